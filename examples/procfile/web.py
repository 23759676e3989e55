"""A WSGI app without a framework."""


def app(environ, start_response):
    text = "one\n" if environ["PATH_INFO"] == "/version" else "A Procfile app\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
