//! The tests of Werkzeug, Flask and Django, with each request of their test clients through the
//! WSGI server of mfserv (`tests/suites/`). Only with `MFSERV_LONG`: they take a minute.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_testkit::skipped;

use crate::Node;
use crate::templates::with_base;

/// A suite: its package with the version that these exceptions are of, arguments, and how many
/// requests it sends at least.
struct Suite {
    package: &'static str,
    program: &'static [&'static str],
    folder: &'static str,
    arguments: &'static [&'static str],
    /// Tests that are left out, each with the reason.
    exceptions: &'static [(&'static str, &'static str)],
    requests_min: usize,
}

const PYTEST: &[&str] = &["-m", "pytest", "-q", "-p", "through_server", "-p", "no:cacheprovider"];

const SUITES: [Suite; 3] = [
    Suite {
        package: "flask==3.1.3",
        program: PYTEST,
        folder: "",
        arguments: &["tests"],
        exceptions: &[],
        requests_min: 440,
    },
    Suite {
        package: "werkzeug==3.1.9",
        program: PYTEST,
        folder: "",
        arguments: &["tests"],
        exceptions: &[
            ("tests/test_serving.py", "of Werkzeug's own server"),
            ("tests/middleware/test_lint.py", "environments that no request makes"),
            ("tests/test_test.py", "of the test client itself: apps that are given no request"),
            ("tests/test_wrappers.py::test_type_forcing", "an environment without a method"),
            ("tests/test_wrappers.py::test_base_response", "the app returns text, not bytes"),
            ("tests/test_wsgi.py::test_closing_iterator", "the app returns text, not bytes"),
        ],
        requests_min: 70,
    },
    Suite {
        package: "django==5.2.19",
        program: &["django_through_server.py"],
        folder: "tests",
        arguments: &[
            "--parallel=1",
            "wsgi",
            "handlers",
            "requests_tests",
            "file_uploads",
            "test_client",
        ],
        exceptions: &[
            ("test_invalid_urls", "paths without a slash, which no request has"),
            ("test_async_streaming", "its warning is looked for in the thread of the test"),
            ("test_request_signals", "the client closes the answer, and the server does"),
            ("test_request_signals_streaming_response", "as the one before"),
            ("test_readonly_root", "root may write to any directory"),
        ],
        requests_min: 260,
    },
];

#[test]
fn the_tests_of_web_frameworks_pass_through_the_server_of_mfserv() {
    if std::env::var_os("MFSERV_LONG").is_none() {
        skipped(
            "tests of Werkzeug, Flask and Django through the WSGI server: MFSERV_LONG=1 runs them",
        );
        return;
    }
    let node = Node::new();
    let shared = with_base(&node);
    let base = &shared.environment;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("suites");
    fs::create_dir_all(&place).unwrap();
    let python = place.join("python/bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(place.join("python")));
    }
    let needed = ["pytest<9", "flask", "werkzeug", "django", "asgiref", "cryptography", "watchdog"];
    let needed = needed.iter().chain(&["ephemeral-port-reserve", "pytest-timeout"]);
    run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(needed));
    for suite in &SUITES {
        let sources = sources(&python, &place, suite.package);
        let said = passes(&python, &base.site_packages(), &sources, suite);
        let count = said.lines().rev().find_map(|line| line.strip_prefix("through the server: "));
        let count: usize = count.unwrap_or_default().trim().parse().unwrap_or_default();
        assert!(count >= suite.requests_min, "{}: {count} requests\n{said}", suite.package);
    }
}

/// Runs a suite without its exceptions; what it said.
fn passes(python: &Path, modules: &Path, sources: &Path, suite: &Suite) -> String {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites");
    let mut command = Command::new(python);
    match suite.program {
        [program] => command.arg(harness.join(program)),
        arguments => command.args(arguments),
    };
    command.args(suite.arguments).current_dir(sources.join(suite.folder));
    let names = suite.exceptions.iter().map(|(test, _reason)| *test);
    match suite.program == PYTEST {
        true => command.args(names.map(|test| format!("--deselect={test}"))),
        false => command.env("LEFT_OUT", names.collect::<Vec<_>>().join(",")),
    };
    let path = format!("{}:{}", harness.display(), modules.display());
    run(command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// The sources of a package with its tests, unpacked.
fn sources(python: &Path, place: &Path, package: &str) -> PathBuf {
    let sources = place.join(package.replace("==", "-"));
    if !sources.exists() {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:"]);
        run(pip.arg(package).arg("-d").arg(place));
        let file = place.join(format!("{}.tar.gz", package.replace("==", "-")));
        run(Command::new("tar").arg("xzf").arg(file).arg("-C").arg(place));
    }
    sources
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{errors}", output.status);
    said
}
