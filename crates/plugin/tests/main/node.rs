//! A Node plugin from template to running app, with the real npm and its registry.

use std::fs;
use std::process::{Command, Stdio};

use mfserv_plugin::Silent;
use mfserv_plugin::archive::pack;
use mfserv_plugin::build::{BuildOptions, build};
use mfserv_plugin::environment::{Placed, environment};
use mfserv_plugin::store::install;

use crate::wsgi::End;
use crate::wsgi_client::get;
use crate::{Node, Reported, options, spec_of};

#[test]
fn a_node_plugin_goes_from_template_to_running_app() {
    let node = Node::new();
    let dir = node.plugin("node", "sample");
    let build_options = BuildOptions::new(node.home.clone());
    let report = build(&dir, &build_options, &mut Reported::default()).unwrap().node.unwrap();
    assert!(!report.unchanged && report.packages > 10, "{report:?}");
    let lock = fs::read(dir.join("package-lock.json")).unwrap();
    assert!(build(&dir, &build_options, &mut Silent).unwrap().node.unwrap().unchanged);
    assert_eq!(fs::read(dir.join("package-lock.json")).unwrap(), lock);

    let file = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap();
    let (installed, _) = install(&node.home, &file, &options(false), &mut Silent).unwrap();
    let spec = spec_of(&installed.dir);
    let placed = Placed { dir: &installed.dir, spec: &spec };
    let variables = environment(&node.home, placed, &[], None, &Default::default()).unwrap();
    let socket = node.work().join("s");
    let child = Command::new("node")
        .arg(installed.dir.join("sample/server.js"))
        .args([socket.as_os_str(), "60".as_ref()])
        .env_clear()
        .envs(variables)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut app = End(child);
    for path in ["/sample", "/sample/"] {
        assert_eq!(get(&socket, path, "").1, "Hello World from sample!");
    }
    assert!(get(&socket, "/other", "").0.starts_with("HTTP/1.1 404"));
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0));
}
