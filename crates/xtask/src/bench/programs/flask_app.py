"""The smallest app of Flask: what most plugins are written with."""

from flask import Flask

app = Flask(__name__)


@app.route("/", defaults={"path": ""})
@app.route("/<path:path>")
def index(path):
    return "ok\n"
