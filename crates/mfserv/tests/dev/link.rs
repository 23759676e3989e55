//! A directory takes the place of nothing that is installed.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::install::{install, release};
use crate::{Turn, node, samples};

#[test]
fn the_directory_of_an_installed_plugin_is_refused_before_its_postinstall_touches_any_data() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    install(&node, &release(&node, &dir));
    let (hook, ran) = (dir.join("postinstall"), node.path("ran"));
    std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = node.mfserv(&["dev", &dir.to_string_lossy()]).code(5).stderr;
    assert!(refused.contains("already installed"), "{refused}");
    assert!(!ran.exists(), "the hook has run");
    node.mfserv(&["uninstall", "sample_static"]).code(0);
    let words = ["dev", &dir.to_string_lossy(), "--json", "--no-wait"];
    let said = node.mfserv(&words).code(0).stdout;
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&said["plugin"]["origin"], &said["applied"]), (&"dev".into(), &Value::Null));
    assert_eq!(said["build"]["plugin"], "sample_static");
    assert!(ran.exists(), "the hook of what is linked has not run");
    let said = node.mfserv(&["info", "sample_static", "--json"]).code(0).stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["name"], &said["releases"]),
        (&"sample_static".into(), &Value::Array(vec![]))
    );
    node.mfserv(&["dev", &dir.to_string_lossy(), "--follow", "--json"]).code(2);
}
