//! The server of mfserv with ASGI apps, and a Python whose tasks begin at once: all that is promised
//! holds there too.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use mfserv_plugin::base::BaseEnvironment;
use mfserv_plugin::python::{self, Interpreter};
use mfserv_testkit::skipped;

use crate::Node;
use crate::asgi::asgi_is_served_as_it_is_promised;
use crate::templates::with_base;

#[test]
fn asgi_apps_are_served_as_they_are_promised_by_tasks_that_begin_at_once() {
    let names = ["python3.13", "python3.12"];
    let Some(newer) = names.iter().find_map(|name| python::find(Some(name)).ok()) else {
        return skipped("tasks that begin at once: no Python 3.12 or 3.13 is on PATH");
    };
    let node = Node::new();
    let shared = with_base(&node);
    let base = our_part_of(&shared.environment, newer, node.work().join("newer"));
    asgi_is_served_as_it_is_promised(&node, &base);
}

/// A base environment with another interpreter, and nothing in it but what is of mfserv: the module
/// in Rust is the same for all.
fn our_part_of(base: &BaseEnvironment, interpreter: Interpreter, dir: PathBuf) -> BaseEnvironment {
    let made = BaseEnvironment { dir, interpreter };
    fs::create_dir_all(made.bin()).unwrap();
    fs::create_dir_all(made.site_packages()).unwrap();
    let python = made.interpreter.path.clone();
    symlink(&python, made.bin().join("python")).unwrap();
    for name in ["mfserv_wsgi.py", "mfserv_worker", "_mfserv_worker.abi3.so"] {
        symlink(base.site_packages().join(name), made.site_packages().join(name)).unwrap();
    }
    let program = made.bin().join("mfserv_worker");
    let script = fs::read_to_string(base.bin().join("mfserv_worker")).unwrap();
    let (_, rest) = script.split_once('\n').unwrap();
    fs::write(&program, format!("#!{}\n{rest}", python.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    made
}
