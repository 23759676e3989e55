"""A list of things to do, kept in memory of the process."""

from flask import Flask, render_template, url_for

app = Flask(__name__)


@app.get("/")
def index():
    return render_template("index.html", style=url_for("static", filename="style.css"))


@app.get("/version")
def version():
    return "one\n"
