//! Imports that nothing provides, found in the sources.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_plugin::imports::undeclared;
use mfserv_plugin::{Cancel, Home, python};

use crate::requirements::write;
use crate::{Node, spec_of};

const WSGI: &str = "
import os, sys, nobody_one
import main.models
from . import views
from typing import TYPE_CHECKING
from contextlib import suppress

try:
    import nobody_optional
except ImportError:
    nobody_optional = None
try:
    import nobody_either
except (ValueError, ImportError):
    import nobody_or
try:
    import json
except ImportError:
    import nobody_fallback as json
with suppress(ImportError):
    import nobody_suppressed
if TYPE_CHECKING:
    import nobody_typed
if sys.version_info[0] < 3:
    import nobody_old
else:
    import urllib.request
if os.environ.get('X'):
    import nobody_sometimes


class Page:
    import nobody_class


def application(environ, start_response):
    import nobody_lazy
";

/// What is said of a plugin whose PATH begins with `bin` of its own, as that of each plugin does.
fn said(dir: &Path, more: &str) -> Vec<Diagnostic> {
    let python = python::find(None).unwrap();
    let bin = python.path.parent().unwrap();
    let env = BTreeMap::from([
        ("PATH".to_string(), format!("{}/bin:{}", dir.display(), bin.display())),
        ("PYTHONPATH".to_string(), format!("{}{more}", dir.display())),
    ]);
    let home = Home::new(dir.parent().unwrap().parent().unwrap().join("home"));
    undeclared(&home, dir, &spec_of(dir), &env, &Cancel::default())
}

/// Module, place, and whether a start needs it.
fn found(dir: &Path, more: &str) -> Vec<(String, String, bool)> {
    let of = |one: &Diagnostic| {
        let module = one.what.split(' ').nth(2).unwrap().trim_end_matches(',').to_string();
        let at = one.at.as_ref().unwrap().to_string();
        let place = at.strip_prefix(&format!("{}/", dir.display())).unwrap().to_string();
        assert!(!one.is_error() && one.help.as_ref().unwrap().contains("requirements-to-freeze"));
        (module, place, one.because[0].contains("worker"))
    };
    said(dir, more).iter().map(of).collect()
}

#[test]
fn imports_that_nothing_provides_are_found_with_their_place_and_guarded_ones_are_not() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "lacks").canonicalize().unwrap();
    assert_eq!(found(&dir, ""), []);
    write(&dir, "main/wsgi.py", WSGI);
    write(&dir, "main/__init__.py", "");
    write(&dir, "main/views.py", "import nobody_view\n");
    write(&dir, "main/models.py", "from .deep import thing\nimport namespaced.inside\n");
    write(&dir, "main/deep/__init__.py", "");
    write(&dir, "main/deep/thing.py", "from nobody_deep.x import y\nimport main.wsgi\n");
    write(&dir, "namespaced/inside.py", "");
    write(&dir, "script.py", "import nobody_script, helper\n");
    write(&dir, "lib/helper.py", "import nobody_one\n");
    write(&dir, "tests/any.py", "import nobody_tests\n");
    write(&dir, "setup.py", "import nobody_setup\n");
    write(&dir, "broken.py", "import (\n");
    let one = |module: &str, place: &str, starts| (module.to_string(), place.to_string(), starts);
    let wanted = [
        one("nobody_deep", "main/deep/thing.py:1", true),
        one("nobody_view", "main/views.py:1", true),
        one("nobody_one", "main/wsgi.py:2", true),
        one("nobody_or", "main/wsgi.py:15", true),
        one("nobody_sometimes", "main/wsgi.py:29", false),
        one("nobody_class", "main/wsgi.py:33", true),
        one("nobody_lazy", "main/wsgi.py:37", false),
        one("nobody_script", "script.py:1", false),
    ];
    let more = format!(":{}", dir.join("lib").display());
    assert_eq!(found(&dir, &more), wanted);
    // What a program adds to where it looks is not known here.
    write(&dir, "main/views.py", "import sys\nsys.path.insert(0, '/opt/x')\nimport nobody_view\n");
    assert!(found(&dir, &more).iter().all(|(.., starts)| !starts));
}

#[test]
fn packages_beside_the_plugin_provide_what_is_in_them() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "has").canonicalize().unwrap();
    write(&dir, "main/wsgi.py", "import nobody_one\n");
    assert_eq!(found(&dir, "").len(), 1);
    let packages = node.work().join("packages");
    write(&packages, "nobody_one/__init__.py", "raise SystemExit('it is not run')");
    assert_eq!(found(&dir, &format!(":{}", packages.display())), []);
}

#[test]
fn nothing_of_a_plugin_is_run_to_read_its_imports() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "evil").canonicalize().unwrap();
    let ran = node.work().join("ran");
    let code = format!("import os; os.mkdir({:?})\n", ran.display().to_string());
    // The codec `idna` imports stringprep when a file is parsed.
    write(&dir, "main/wsgi.py", "# -*- coding: idna -*-\nimport nobody_one\nimport by_pth\n");
    for name in ["ast.py", "json.py", "stringprep.py", "sitecustomize.py", "usercustomize.py"] {
        write(&dir, name, &code);
    }
    write(&dir, "bin/python", &format!("#!/bin/sh\nmkdir {}\n", ran.display()));
    fs::set_permissions(dir.join("bin/python"), fs::Permissions::from_mode(0o755)).unwrap();
    // Of a `.pth` file the directories count, and the code does not.
    write(&dir, "lib/site-packages/any.pth", &format!("../more\n{code}"));
    write(&dir, "lib/more/by_pth.py", &code);
    let more = format!(":{}", dir.join("lib/site-packages").display());
    let one = |module: &str| (module.to_string(), "main/wsgi.py:2".to_string(), true);
    assert_eq!(found(&dir, &more), [one("nobody_one")]);
    assert!(!ran.exists());
}

#[test]
fn what_is_tried_once_conditional_compiled_or_vendored_is_not_missing() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "fine").canonicalize().unwrap();
    const FINE: &str = "
import os, six_like, compiled
try:
    import nobody_tried
except ImportError:
    nobody_tried = None
if nobody_tried:
    from nobody_tried.client import x
if os.name == 'nt':
    import msvcrt
if six_like.PY2:
    import urllib2
else:
    import urllib.request
def late():
    import nobody_tried.late
";
    write(&dir, "main/wsgi.py", FINE);
    write(&dir, "main/six_like.py", "");
    let suffix = python::find(None).unwrap().abi;
    write(&dir, &format!("main/compiled.{suffix}.so"), "");
    assert_eq!(found(&dir, ""), []);
    // Outside of a condition they are missing.
    write(&dir, "main/wsgi.py", "import urllib2\nimport vendored\n");
    write(&dir, "third/party/vendored/__init__.py", "");
    assert_eq!(found(&dir, "").len(), 2);
    write(&dir, "main/path.py", "import sys\nsys.path.insert(0, 'third/party')\n");
    let one = ("urllib2".to_string(), "main/wsgi.py:1".to_string(), false);
    assert_eq!(found(&dir, ""), [one]);
}

#[test]
fn a_file_that_cannot_be_looked_at_is_said() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "deep").canonicalize().unwrap();
    // Whether this ends the parser, or us, depends on the version of Python.
    write(&dir, "deep.py", &format!("x = {}1\n", "1+".repeat(200_000)));
    // A test that would be computed for hours is not.
    write(&dir, "grows.py", "import sys\nif sys.version_info[0] < 9**9**9**9:\n    import os\n");
    let all = said(&dir, "");
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].what.contains("the imports of deep were not all looked at"), "{all:?}");
}

#[test]
fn a_command_with_an_interpreter_of_its_own_is_left_to_it() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "conda").canonicalize().unwrap();
    write(&dir, "main.py", "import nobody_one\n");
    let conda = node.work().join("miniconda/bin");
    write(&conda, "gunicorn", &format!("#!{}/python3.9\n", conda.display()));
    write(&conda, "other", "#!/bin/sh\n");
    let config = fs::read_to_string(dir.join("config.ini")).unwrap();
    let line = config.lines().find(|line| line.starts_with("_cmd_and_args")).unwrap();
    for (command, count) in [
        ("python main.py".to_string(), 1),
        ("{plugin_dir}/local/bin/python main.py".to_string(), 1),
        (format!("{}/other main.py", conda.display()), 1),
        (format!("{}/python main.py", conda.display()), 0),
        (format!("nice -n 5 {}/python3 main.py", conda.display()), 0),
        (format!("{}/gunicorn main:app", conda.display()), 0),
        ("conda run -n x python main.py".to_string(), 0),
    ] {
        write(&dir, "config.ini", &config.replace(line, &format!("_cmd_and_args={command}")));
        assert_eq!(found(&dir, "").len(), count, "{command}");
    }
}

#[test]
fn an_app_without_a_list_of_packages_is_told_the_whole_list_to_write() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "bare").canonicalize().unwrap();
    write(&dir, "main/wsgi.py", "import nobody_one, yaml as _\nimport nobody_two\n");
    write(&dir, "script.py", "import nobody_one\n");
    write(&dir, ".mfserv-made-of", "/apps/bare\n");
    let list = "python3_virtualenv_sources/requirements-to-freeze.txt";
    write(&dir, list, "");
    let all = said(&dir, "");
    assert_eq!(all.len(), 1, "{all:?}");
    let text = all[0].to_string();
    assert!(text.contains("nobody_two (main/wsgi.py:2)"), "{text}");
    let help = all[0].help.clone().unwrap();
    assert!(help.starts_with("write /apps/bare/requirements.txt"), "{help}");
    assert!(help.contains("nobody-one, nobody-two"), "{help}");
    // With a list each package has its own line, and the list is named.
    write(&dir, list, "-r main/requirements.txt\n");
    assert!(said(&dir, "").iter().all(|one| one.help.as_ref().unwrap().starts_with("add `")));
}
