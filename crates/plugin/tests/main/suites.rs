//! The tests of Werkzeug, Flask and Django, with each request of their test clients through the
//! WSGI server of mfserv, and those of Starlette and FastAPI through the ASGI server
//! (`tests/suites/`). Only with `MFSERV_LONG`: they take three minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_testkit::skipped;

use crate::Node;
use crate::templates::with_base;

const NO_TRAILERS: &str = "the server sends no trailers, which few clients read";
const BAD_HOST: &str = "values of Host that the server refuses with 400, before the app";

/// A suite: its package with the version that these exceptions are of, arguments, and how many
/// requests it sends at least.
struct Suite {
    packages: &'static Packages,
    package: &'static str,
    program: &'static [&'static str],
    folder: &'static str,
    arguments: &'static [&'static str],
    /// Tests that are left out, each with the reason.
    exceptions: &'static [(&'static str, &'static str)],
    requests_min: usize,
}

const PYTEST: &[&str] = &["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p"];

/// A virtual environment: its name and packages.
type Packages = (&'static str, &'static [&'static str]);

const FOR_WSGI: Packages = (
    "wsgi",
    &[
        "pytest<9",
        "pytest-timeout",
        "flask",
        "werkzeug",
        "django",
        "asgiref",
        "cryptography",
        "watchdog",
        "ephemeral-port-reserve",
    ],
);

const FOR_ASGI: Packages = (
    "asgi",
    &[
        "pytest<9.2",
        "pytest-timeout",
        "pytest-codspeed",
        "pytest-xdist",
        "starlette==1.10.0",
        "fastapi==0.165.0",
        "websockets==17.4",
        "httpx2[zstd]",
        "httpx",
        "anyio[trio]",
        "uvloop",
        "itsdangerous",
        "jinja2",
        "python-multipart",
        "pyyaml",
        "importlib-metadata",
        "opentelemetry-sdk",
        "blockbuster",
        "dirty-equals",
        "inline-snapshot",
        "pwdlib[argon2]",
        "pyjwt",
        "sqlmodel",
        "strawberry-graphql",
        "a2wsgi",
        "email-validator",
        "pydantic-settings",
        "pydantic-extra-types",
        "typer",
        "flask",
        "orjson",
        "ujson",
    ],
);

const SUITES: [Suite; 5] = [
    Suite {
        packages: &FOR_ASGI,
        package: "starlette==1.10.0",
        program: PYTEST,
        folder: "",
        arguments: &["asgi_through_server", "-k", "not trio", "tests"],
        exceptions: &[
            ("tests/test_testclient.py", "of the test client itself"),
            ("tests/middleware/test_gzip.py::test_gzip_trailers", NO_TRAILERS),
            (
                "tests/middleware/test_gzip.py::test_gzip_excluded_content_type_trailers",
                NO_TRAILERS,
            ),
            ("tests/middleware/test_https_redirect.py", BAD_HOST),
            ("tests/middleware/test_trusted_host.py::test_trusted_host_middleware_ipv6", BAD_HOST),
            ("tests/test_routing.py::test_host_routing", BAD_HOST),
            (
                "tests/middleware/test_body_limit.py::\
                 test_received_bytes_are_counted_with_unreliable_content_length",
                "a body longer than its length: the server reads no more than that",
            ),
            (
                "tests/test_concurrency.py::test_accessing_context_from_threaded_sync_endpoint",
                "the variable is set in the thread of the test client",
            ),
            ("tests/test_exceptions.py::test_force_500_response", "the server's answer has a text"),
            (
                "tests/test_requests.py::test_request_send_push_promise",
                "a push, which HTTP/1.1 has not",
            ),
            ("tests/test_responses.py::test_response_phrase", "an answer with the status 123"),
            ("tests/test_routing.py::test_websocket_route_middleware", "names come in lower case"),
            (
                "tests/test_staticfiles.py::test_staticfiles_with_invalid_dir_permissions_returns_401",
                "root may read any directory",
            ),
            (
                "tests/test_websockets.py::test_receive_wrong_message_type",
                "messages that no client sends",
            ),
        ],
        requests_min: 500,
    },
    Suite {
        packages: &FOR_ASGI,
        package: "fastapi==0.165.0",
        program: PYTEST,
        folder: "",
        arguments: &["asgi_through_server", "-k", "not trio", "tests"],
        exceptions: &[
            ("tests/test_telemetry", "needs programs of services for telemetry"),
            ("tests/test_fastapi_cli.py", "of the command line of FastAPI"),
            (
                "tests/test_dependency_after_yield_streaming.py::test_broken_session_stream_no_raise",
                "a stream that fails before its first byte: the server answers 500, not 200",
            ),
        ],
        requests_min: 4000,
    },
    Suite {
        packages: &FOR_WSGI,
        package: "flask==3.1.3",
        program: PYTEST,
        folder: "",
        arguments: &["through_server", "tests"],
        exceptions: &[],
        requests_min: 440,
    },
    Suite {
        packages: &FOR_WSGI,
        package: "werkzeug==3.1.9",
        program: PYTEST,
        folder: "",
        arguments: &["through_server", "tests"],
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
        packages: &FOR_WSGI,
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
            "tests of Werkzeug, Flask, Django, Starlette and FastAPI through the servers of Python \
             apps: MFSERV_LONG=1 runs them",
        );
        return;
    }
    let node = Node::new();
    let shared = with_base(&node);
    let base = &shared.environment;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("suites");
    fs::create_dir_all(&place).unwrap();
    // The extension module is the same for all: MFSERV_TEST_PYTHON=python3.13 tries another.
    let interpreter = std::env::var("MFSERV_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    for suite in &SUITES {
        let (name, packages) = suite.packages;
        let environment = place.join(format!("{name}-{interpreter}"));
        let python = environment.join("bin/python");
        if !python.exists() {
            run(Command::new(&interpreter).args(["-m", "venv"]).arg(&environment));
            run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(*packages));
        }
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
