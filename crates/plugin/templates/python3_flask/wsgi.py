"""The app: a Flask application."""

import logging
import os

from flask import Flask

app = Flask(__name__)
app.logger.setLevel(logging.INFO)
if os.environ.get("MFSERV_CURRENT_APP_DEBUG", "0") == "1":
    # let the debugger of the WSGI runner see the exceptions
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.logger.setLevel(logging.DEBUG)


@app.route("/{{ name }}/")
def hello_world():
    app.logger.info("this is an info message")
    return "Hello World !"
