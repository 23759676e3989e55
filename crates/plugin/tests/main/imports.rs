//! Imports that nothing provides, found in the sources.

use std::collections::BTreeMap;
use std::path::Path;

use mfserv_plugin::imports::undeclared;
use mfserv_plugin::{Cancel, python};

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

/// Module, place, and whether a start needs it.
fn found(dir: &Path, more: &str) -> Vec<(String, String, bool)> {
    let python = python::find(None).unwrap();
    let bin = python.path.parent().unwrap().to_string_lossy().into_owned();
    let env = BTreeMap::from([
        ("PATH".to_string(), bin),
        ("PYTHONPATH".to_string(), format!("{}{more}", dir.display())),
    ]);
    let all = undeclared(dir, &spec_of(dir), &env, &Cancel::default());
    let of = |one: &mfserv_core::Diagnostic| {
        let module = one.what.split(' ').nth(2).unwrap().trim_end_matches(',').to_string();
        let at = one.at.as_ref().unwrap().to_string();
        let place = at.strip_prefix(&format!("{}/", dir.display())).unwrap().to_string();
        assert!(!one.is_error() && one.help.as_ref().unwrap().contains("requirements-to-freeze"));
        (module, place, one.because[0].contains("worker"))
    };
    all.iter().map(of).collect()
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
