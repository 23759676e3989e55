//! Real frameworks below a prefix that the front strips: what they make of addresses, redirects and
//! cookies.

use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_testkit::{Client, Method, Node, Response};

use crate::{Turn, node};

const FLASK: &str = r#"
from flask import Flask, make_response, redirect, request, url_for

app = Flask(__name__)

@app.get("/")
def index():
    return url_for("about")

@app.get("/about")
def about():
    return "about"

@app.get("/go")
def go():
    return redirect(url_for("about"))

@app.get("/slash/")
def slash():
    return "slash"

@app.get("/absolute")
def absolute():
    return url_for("about", _external=True)

@app.get("/cookie")
def cookie():
    answer = make_response("set")
    answer.set_cookie("a", "b", path=request.script_root + "/")
    return answer
"#;

const DJANGO: &str = r#"
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import get_script_prefix, path, reverse

def index(request):
    return HttpResponse(reverse("about"))

def about(request):
    return HttpResponse("about")

def go(request):
    return HttpResponseRedirect(reverse("about"))

def absolute(request):
    return HttpResponse(request.build_absolute_uri(reverse("about")))

def cookie(request):
    answer = HttpResponse("set")
    answer.set_cookie("a", "b", path=get_script_prefix())
    return answer

urlpatterns = [
    path("", index),
    path("about", about, name="about"),
    path("go", go),
    path("slash/", about),
    path("absolute", absolute),
    path("cookie", cookie),
]
"#;

const FASTAPI: &str = r#"
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, RedirectResponse

app = FastAPI()

@app.get("/")
def index(request: Request):
    return PlainTextResponse(request.url_for("about").path)

@app.get("/about")
def about():
    return PlainTextResponse("about")

@app.get("/go")
def go(request: Request):
    return RedirectResponse(request.url_for("about").path, 302)

@app.get("/slash/")
def slash():
    return PlainTextResponse("slash")

@app.get("/absolute")
def absolute(request: Request):
    return PlainTextResponse(str(request.url_for("about")))

@app.get("/cookie")
def cookie(request: Request):
    answer = PlainTextResponse("set")
    answer.set_cookie("a", "b", path=request.scope["root_path"] + "/")
    return answer
"#;

const PACKAGE_JSON: &str = r#"{
  "name": "express-app",
  "version": "1.0.0",
  "private": true,
  "scripts": { "start": "node server.js" },
  "dependencies": { "express": "^4.21.0" }
}"#;

/// Express learns no prefix by itself: an app reads the field.
const EXPRESS: &str = r#"
const express = require("express");
const app = express();
const base = (request) => request.get("X-Forwarded-Prefix") || "";

app.set("strict routing", true);
app.get("/", (request, answer) => answer.send(base(request) + "/about"));
app.get("/about", (request, answer) => answer.send("about"));
app.get("/go", (request, answer) => answer.redirect(base(request) + "/about"));
app.get("/slash", (request, answer) => answer.redirect(base(request) + "/slash/"));
app.get("/absolute", (request, answer) => {
  answer.send(`http://${request.get("host")}${base(request)}/about`);
});
app.get("/cookie", (request, answer) => {
  answer.cookie("a", "b", { path: base(request) + "/" }).send("set");
});

const server = app.listen(process.env.PORT);
process.on("SIGTERM", () => server.close());
"#;

/// An example whose file has another text.
fn app(node: &Node, example: &str, (file, text): (&str, &str)) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
    let to = node.path("apps").join(example);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-r").arg(from).arg(&to).status().unwrap().success());
    std::fs::write(to.join(file), text).unwrap();
    to
}

fn ask(node: &Node, host: &str, path: &str) -> Response {
    let fields = [("Host", host)];
    Client::new(node.address()).ask(Method::Get, path, &fields, b"").unwrap()
}

#[test]
fn flask_django_fastapi_and_express_know_their_prefix_in_links_redirects_and_cookies() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("apps/first");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("index.html"), "<p>first").unwrap();
    node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    for (example, file, text) in [
        ("flask", "app.py", FLASK),
        ("django", "bookshelf/urls.py", DJANGO),
        ("fastapi", "main.py", FASTAPI),
        ("express", "server.js", EXPRESS),
    ] {
        let dir = app(&node, example, (file, text));
        if example == "express" {
            // The example is TypeScript that is built; this is the program itself.
            std::fs::write(dir.join("package.json"), PACKAGE_JSON).unwrap();
        }
        let ran = node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(&format!("{example} is not served at /")), "{said}");
        assert!(said.contains(&format!("http://{example}.localhost")), "{said}");
    }
    let host = format!("127.0.0.1:{}", node.address().port());
    let host = host.as_str();
    for name in ["flask", "django", "fastapi", "express"] {
        let own = format!("{name}.localhost:{}", node.address().port());
        for (host, prefix) in [(host, format!("/{name}")), (own.as_str(), String::new())] {
            addresses_are_below(&node, name, host, &prefix);
        }
    }
    // Who has / has no prefix, and a page of its own for what others do not answer.
    assert_eq!(ask(&node, host, "/").text(), "<p>first");
    assert_eq!(ask(&node, "first.localhost", "/").text(), "<p>first");
    let page = ask(&node, host, "/fastapi/docs").text();
    assert!(page.contains("'/fastapi/openapi.json'"), "{page}");
    node.stop();
}

fn addresses_are_below(node: &Node, name: &str, host: &str, prefix: &str) {
    let about = format!("{prefix}/about");
    let of = |path: &str| ask(node, host, &format!("{prefix}{path}"));
    let location = |path: &str| {
        let answer = of(path);
        assert!((300..400).contains(&answer.status), "{name} {host} {path}: {answer:?}");
        let to = answer.field("location").unwrap();
        to.strip_prefix(&format!("http://{host}")).unwrap_or(to).to_string()
    };
    assert_eq!(of("/").text(), about, "{name} {host}");
    if !prefix.is_empty() {
        assert_eq!(of("").text(), about, "{name} without a slash");
    }
    assert_eq!(of("/about").text(), "about", "{name} {host}");
    assert_eq!(location("/go"), about, "{name} {host}");
    assert_eq!(location("/slash"), format!("{prefix}/slash/"), "{name} {host}");
    assert_eq!(of("/absolute").text(), format!("http://{host}{about}"), "{name}");
    let cookie = of("/cookie").field("set-cookie").unwrap().to_string();
    let path = cookie.split("; ").find_map(|part| part.strip_prefix("Path="));
    assert_eq!(path, Some(format!("{prefix}/").as_str()), "{name} {host}: {cookie}");
}
