//! Plugins that name an interpreter: built, packed, installed and served with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use mfserv_plugin::base;
use mfserv_plugin::build::{BuildOptions, build};
use mfserv_plugin::environment::{Placed, environment};
use mfserv_plugin::{Cancel, Home, Silent, python};

use crate::requirements::{LOOSE, write};
use crate::templates::serve;
use crate::wsgi_client::get;
use crate::{Node, spec_of};

const APP: &str = "
import sys
import itsdangerous


def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    where = itsdangerous.__file__.split('site-packages')[0]
    return [('%d.%d %s' % (sys.version_info[0], sys.version_info[1], where)).encode('ascii')]
";

/// A home whose base environments stay in the target directory: each takes seconds to make. The
/// node has them too.
fn lend_bases(node: &Node) -> Home {
    let shared = Home::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("interpreters"));
    fs::create_dir_all(shared.base()).unwrap();
    fs::create_dir_all(node.home.base().parent().unwrap()).unwrap();
    symlink(shared.base(), node.home.base()).unwrap();
    shared
}

#[test]
fn a_plugin_is_built_and_served_with_each_interpreter_that_it_names() {
    for name in ["python3.7", "python3.9", "python3.13", "python3.13t"] {
        let Ok(interpreter) = python::find(Some(name)) else {
            eprintln!("SKIPPED: plugins of {name}: it is not on PATH");
            continue;
        };
        let version = interpreter.short_version.clone();
        assert_eq!(name, format!("python{version}"));
        let node = Node::new();
        let shared = lend_bases(&node);
        let base =
            base::ensure(&shared, &interpreter, None, &Cancel::default(), &mut Silent).unwrap();
        let dir = node.plugin("python3_raw_wsgi", "named").canonicalize().unwrap();
        let config = fs::read_to_string(dir.join("config.ini")).unwrap();
        let named = format!("[general]\n_python={name}");
        write(&dir, "config.ini", &config.replacen("[general]", &named, 1));
        write(&dir, LOOSE, "itsdangerous\n");
        write(&dir, "main/wsgi.py", APP);
        let options =
            BuildOptions { python: Some(name.into()), ..BuildOptions::new(node.home.clone()) };
        let report = build(&dir, &options, &mut Silent).unwrap().python.unwrap();
        assert_eq!(report.interpreter, format!("Python {}", interpreter.version));

        let (worker, socket) = serve(&node, &dir, Some(&base), false);
        let numbers = version.trim_end_matches('t');
        let from = dir.join(format!("local/lib/python{version}/"));
        assert_eq!(get(&socket, "/", "").1, format!("{numbers} {}", from.display()));
        drop(worker);
        let spec = spec_of(&dir);
        let placed = Placed { dir: &dir, spec: &spec };
        let env = environment(&node.home, placed, &[], Some(&base), &Default::default()).unwrap();
        assert_eq!(env["PYTHON_SHORT_VERSION"], version);
        let said = Command::new("sh")
            .args(["-c", "command -v python && python -c 'import mflog, requests, werkzeug'"])
            .env_clear()
            .envs(&env)
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
        let python = String::from_utf8_lossy(&said.stdout).trim().to_string();
        assert_eq!(python, dir.join("local/bin/python").to_string_lossy());
    }
}
