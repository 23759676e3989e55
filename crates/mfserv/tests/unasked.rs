//! Variables that an app has without being told: what it would have to be told elsewhere.

use std::path::PathBuf;

use mfserv_testkit::Node;

use crate::{Turn, node};

/// An app with these files.
fn app(node: &Node, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = node.path("apps").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    for (file, text) in files {
        std::fs::write(dir.join(file), text).unwrap();
    }
    dir
}

#[test]
fn an_app_of_node_is_told_that_it_is_deployed_unless_somebody_has_said_what_it_is() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let server = "\
        require('http').createServer((_, answer) => answer.end(`mode ${process.env.NODE_ENV}`))\n\
            .listen(process.env.PORT, process.env.HOST);\n";
    let dir = app(&node, "shop", &[("server.js", server)]);
    let path = dir.to_str().unwrap();
    node.mfserv(&["dev", "--detach", path]).code(0);
    assert_eq!(node.get("/shop").text(), "mode undefined");
    node.mfserv(&["uninstall", "shop"]);
    node.mfserv(&["deploy", path]).code(0);
    assert_eq!(node.get("/shop").text(), "mode production");
    let print = ["run", "shop", "node", "-p", "process.env.NODE_ENV"];
    assert_eq!(node.mfserv(&print).code(0).stdout, "production\n");
    node.mfserv(&["env", "set", "shop", "NODE_ENV=staging"]).code(0);
    assert_eq!(node.get("/shop").text(), "mode staging");
    assert_eq!(node.mfserv(&print).code(0).stdout, "staging\n");
    node.stop();
}

#[test]
fn uvicorn_of_a_procfile_believes_the_front_who_asks() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let source = "\
async def app(scope, receive, send):
    if scope['type'] != 'http':
        return
    said = f\"{scope['client'] and scope['client'][0]} {scope['scheme']}\".encode()
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': said})
";
    let dir = app(
        &node,
        "asks",
        &[
            ("web.py", source),
            ("requirements.txt", "uvicorn\n"),
            ("Procfile", "web: uvicorn web:app --port $PORT\n"),
        ],
    );
    node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    assert_eq!(node.get("/asks").text(), "127.0.0.1 http");
    node.mfserv(&["env", "set", "asks", "FORWARDED_ALLOW_IPS=10.0.0.1"]).code(0);
    assert_eq!(node.get("/asks").text(), "None http");
    node.stop();
}
