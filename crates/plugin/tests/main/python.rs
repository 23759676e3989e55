//! How Python packages are found and built: rules of the plugin, tools, base
//! environments that travel.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mfserv_core::Diagnostic;
use mfserv_plugin::base::{self, export, import};
use mfserv_plugin::build::{BuildOptions, build};
use mfserv_plugin::{Cancel, Home, Progress, Silent, python, tools};

use crate::Node;

const HOME: &str = "MFSERV_TEST_PYTHON_HOME";
const DIR: &str = "MFSERV_TEST_PYTHON_DIR";

/// Runs a test of this binary as a process of its own.
fn part(name: &str, prefix: &[&str]) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match prefix {
        [] => Command::new(exe),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(exe);
            command
        }
    };
    command.args(["--exact", "--ignored", "--nocapture", name]);
    command
}

#[track_caller]
fn succeeds(mut command: Command) -> String {
    let said = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    text
}

/// An index of its own in a directory: `eels` as a wheel and as a source that
/// needs `tools` to be built, in two versions.
const INDEX: &str = r##"
import io, os, sys, tarfile, zipfile
out = sys.argv[1]
def wheel(name, version, parts):
    info = "%s-%s.dist-info/" % (name, version)
    parts = dict(parts)
    parts[info + "METADATA"] = "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version)
    parts[info + "WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    parts[info + "RECORD"] = "".join("%s,,\n" % part for part in [*parts, info + "RECORD"])
    with zipfile.ZipFile(os.path.join(out, "%s-%s-py3-none-any.whl" % (name, version)), "w") as file:
        for part, text in parts.items():
            file.writestr(part, text)
wheel("eels", "1.0", {"eels.py": "MADE = 'binary'\n"})
for version in "1.0", "2.0":
    wheel("tools", version, {"tools.py": "VERSION = '%s'\n" % version})
BACKEND = '''
import os, zipfile, tools
def build_wheel(directory, settings=None, metadata=None):
    info = "eels-1.0.dist-info/"
    name = "eels-1.0-py3-none-any.whl"
    parts = {
        "eels.py": "MADE = 'compiled with %s, nice %s, secrets %s'\\n" % (tools.VERSION, os.nice(0), sorted(n for n in os.environ if "SECRET" in n)),
        info + "METADATA": "Metadata-Version: 2.1\\nName: eels\\nVersion: 1.0\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    parts[info + "RECORD"] = "".join(part + ",,\\n" for part in [*parts, info + "RECORD"])
    with zipfile.ZipFile(os.path.join(directory, name), "w") as file:
        for part, text in parts.items():
            file.writestr(part, text)
    return name
'''
with tarfile.open(os.path.join(out, "eels-1.0.tar.gz"), "w:gz") as tar:
    for name, text in {
        "PKG-INFO": "Metadata-Version: 2.1\nName: eels\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = ["tools"]\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "eels"\nversion = "1.0"\n',
        "backend.py": BACKEND,
    }.items():
        data = text.encode()
        entry = tarfile.TarInfo("eels-1.0/" + name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
"##;

#[test]
fn what_is_binary_and_what_is_compiled_and_with_what_is_as_the_plugin_says() {
    let node = Node::new();
    let index = node.work().join("index");
    fs::create_dir(&index).unwrap();
    let made = Command::new("python3").args(["-c", INDEX]).arg(&index).status().unwrap();
    assert!(made.success());
    let dir = node.plugin("python3_raw_wsgi", "foo");
    let sources = dir.join("python3_virtualenv_sources");
    fs::write(sources.join("requirements-to-freeze.txt"), "eels\n").unwrap();
    let allow = sources.join("allow_binary_packages");
    let built = |when: &str| {
        let mut command = part("python::builds_what_another_test_names", &[]);
        command.env(HOME, node.home.root()).env(DIR, &dir);
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", &index).env("PIP_NO_CACHE_DIR", "1");
        command.env("UV_NO_INDEX", "1").env("UV_FIND_LINKS", &index).env("UV_NO_CACHE", "1");
        command.env("MY_SECRET", "x").env("AWS_SECRET_ACCESS_KEY", "x");
        let told = succeeds(command);
        let mut python = Command::new(dir.join("local/bin/python"));
        python.args(["-c", "import eels; print(eels.MADE)"]);
        println!("{when}: {told}");
        succeeds(python).trim().to_string()
    };
    assert_eq!(built("all may be binary"), "binary");
    fs::write(&allow, "# only this\nother\n").unwrap();
    assert_eq!(built("another may be"), "compiled with 2.0, nice 10, secrets []");
    fs::write(sources.join("build_constraint"), "tools<2\n").unwrap();
    assert_eq!(built("built with an older tool"), "compiled with 1.0, nice 10, secrets []");
    fs::write(&allow, "other\nEels\n").unwrap();
    assert_eq!(built("it may be"), "binary");
    fs::remove_file(&allow).unwrap();
    assert_eq!(built("none may be"), "compiled with 1.0, nice 10, secrets []");
    // the wheel that is packaged is the one that was compiled
    assert_eq!(crate::tree(&sources.join("src")).len(), 2);
}

#[test]
#[ignore = "it is a part of another test"]
fn builds_what_another_test_names() {
    let (Some(home), Some(dir)) = (std::env::var_os(HOME), std::env::var_os(DIR)) else { return };
    let report = build(dir.as_ref(), &BuildOptions::new(Home::new(home)), &mut Silent).unwrap();
    println!("{report:?}");
}

#[test]
fn the_interpreter_is_that_of_the_host_whatever_the_shell_has_activated() {
    let folder = tempfile::tempdir().unwrap();
    let host = python::find(None).unwrap();
    let own = folder.path().join("v");
    let made = Command::new(&host.path).args(["-m", "venv", "--without-pip"]).arg(&own).status();
    assert!(made.unwrap().success());
    let path = std::env::var("PATH").unwrap();
    let asked = |path: String| {
        let mut command = part("python::says_its_interpreter", &[]);
        command.env("PATH", path).env("VIRTUAL_ENV", &own);
        let said = succeeds(command);
        let line = said.lines().find_map(|line| line.split_once("interpreter: ")).unwrap();
        line.1.to_string()
    };
    let wanted = format!("{} {}", host.identity(), host.path.display());
    assert_eq!(asked(format!("{}/bin:{path}", own.display())), wanted);
    // With nothing else on PATH it is the one, and still not a program that may be gone tomorrow.
    let alone = asked(format!("{}/bin", own.display()));
    assert!(alone.starts_with(&host.identity()), "{alone}");
    assert!(!alone.contains(&*own.to_string_lossy()), "{alone}");
}

#[test]
#[ignore = "it is a part of another test"]
fn says_its_interpreter() {
    let found = python::find(None).unwrap();
    println!("interpreter: {} {}", found.identity(), found.path.display());
}

#[test]
fn a_base_environment_travels_to_a_machine_without_a_network() {
    let (here, there) = (Node::new(), Node::new());
    let python = python::find(None).unwrap();
    let file = export(&here.home, &python, &here.work(), &Cancel::default(), &mut Silent).unwrap();
    assert!(file.ends_with(format!("mfserv-base-python{}.tar.zst", python.short_version)));
    let unshare = ["unshare", "--map-root-user", "--net"];
    let can =
        Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    let prefix = if can.is_ok_and(|status| status.success()) { &unshare[..] } else { &[] };
    let mut command = part("python::imports_what_another_test_names", prefix);
    command.env(HOME, there.home.root()).env(DIR, &file);
    command.env("PIP_NO_INDEX", "1").env("UV_OFFLINE", "1");
    succeeds(command);
    let left: Vec<_> =
        fs::read_dir(there.home.base()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("stage")), "{left:?}");

    // another Python is refused by its name
    let other = python::Interpreter { abi: "cpython-399".into(), ..python };
    let error = import(&there.home, &file, &other, &Cancel::default(), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("cpython-399"), "{error}");
}

#[test]
#[ignore = "it is a part of another test, run without a network"]
fn imports_what_another_test_names() {
    let (Some(home), Some(file)) = (std::env::var_os(HOME), std::env::var_os(DIR)) else { return };
    let home = Home::new(home);
    let python = python::find(None).unwrap();
    let base = import(&home, Path::new(&file), &python, &Cancel::default(), &mut Silent).unwrap();
    let mut command = Command::new(base.bin().join("python"));
    command.args(["-c", "import uvicorn, mflog, aiohttp_metwork_middlewares"]);
    succeeds(command);
}

/// What is said of a build.
#[derive(Default)]
struct Notices(Vec<String>);

impl Progress for Notices {
    fn line(&mut self, _text: &str) {}
    fn step(&mut self, _text: &str) {}
    fn notice(&mut self, notice: Diagnostic) {
        self.0.push(notice.to_string());
    }
}

#[test]
fn packages_that_a_release_brings_along_for_others_are_not_used_which_is_said() {
    let node = Node::new();
    let python = python::find(None).unwrap();
    let release = node.work().join("release");
    fs::create_dir_all(release.join(".mfserv-base")).unwrap();
    fs::write(release.join(".mfserv-base/base.json"), "of another day").unwrap();
    let mut said = Notices::default();
    base::ensure(&node.home, &python, Some(&release), &Cancel::default(), &mut said).unwrap();
    let is_said = said.0.iter().any(|notice| {
        notice.contains("packages that the plugin brings along are not used")
            && notice.contains("base.json")
    });
    assert!(is_said, "{:?}", said.0);
}

#[test]
fn uv_is_fetched_once_checked_and_used_by_the_next_build() {
    let node = Node::new();
    let python = python::find(None).unwrap();
    let fetch = || tools::uv(&node.home, &python, &Cancel::default(), &mut Silent).unwrap();
    let uv = fetch();
    let mut command = Command::new(&uv);
    command.arg("--version");
    let version = succeeds(command);
    if python::on_path("uv").is_none() {
        assert_eq!(version.split_whitespace().nth(1), Some(tools::UV));
    }
    assert_eq!(fetch(), uv);
    let dir = node.plugin("python3_flask", "foo");
    let options = BuildOptions::new(node.home.clone());
    build(&dir, &options, &mut Silent).unwrap();
    // the figures of docs/plugins.md are made by these lines, alone on the machine
    fs::remove_dir_all(&dir).unwrap();
    let dir = node.plugin("python3_flask", "foo");
    let fresh = build(&dir, &options, &mut Silent).unwrap();
    let again = build(&dir, &options, &mut Silent).unwrap();
    println!("fresh {} ms, unchanged {} ms", fresh.elapsed_ms, again.elapsed_ms);
    assert_eq!(fresh.python.unwrap().tool, "uv");
    assert!(again.python.unwrap().unchanged);
}
