//! Locks of other tools, translated into exact versions with their sums.

use crate::requirements::{LOOSE, Sample, project};

const SIX: &str = "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274";
const SOURCES: &str = "ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81";

fn uv_lock() -> String {
    format!(
        r#"version = 1
requires-python = ">=3.8"

[[package]]
name = "colorama"
version = "0.4.6"
source = {{ registry = "https://pypi.org/simple" }}

[[package]]
name = "eels"
version = "1.2.3"
source = {{ directory = "libs/eels" }}
dependencies = [{{ name = "six" }}]

[[package]]
name = "sample"
version = "1"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "colorama", marker = "sys_platform == 'win32'" }},
    {{ name = "eels" }},
]

[[package]]
name = "six"
version = "1.17.0"
source = {{ registry = "https://pypi.org/simple" }}
sdist = {{ url = "https://x/six-1.17.0.tar.gz", hash = "sha256:{SOURCES}" }}
wheels = [{{ url = "https://x/six-1.17.0-py2.py3-none-any.whl", hash = "sha256:{SIX}" }}]
"#
    )
}

fn poetry_lock() -> String {
    format!(
        r#"[[package]]
name = "colorama"
version = "0.4.6"
python-versions = ">=3.7"
files = []

[[package]]
name = "eels"
version = "1.2.3"
python-versions = "*"
files = []
[package.dependencies]
colorama = {{version = "*", markers = "sys_platform == \"win32\""}}
six = ">=1.5"
[package.source]
type = "directory"
url = "libs/eels"

[[package]]
name = "six"
version = "1.17.0"
python-versions = ">=2.7, !=3.0.*"
files = [
    {{file = "six-1.17.0-py2.py3-none-any.whl", hash = "sha256:{SIX}"}},
    {{file = "six-1.17.0.tar.gz", hash = "sha256:{SOURCES}"}},
]
"#
    )
}

fn pipfile_lock() -> String {
    format!(
        r#"{{"_meta": {{"sources": [{{"name": "pypi", "url": "https://pypi.org/simple"}}]}},
"default": {{
  "colorama": {{"markers": "sys_platform == 'win32'", "version": "==0.4.6"}},
  "eels": {{"path": "libs/eels"}},
  "six": {{"hashes": ["sha256:{SIX}", "sha256:{SOURCES}"], "version": "==1.17.0"}}}},
"develop": {{"iniconfig": {{"version": "==2.0.0"}}}}}}"#
    )
}

#[test]
fn locks_of_uv_poetry_and_pipenv_are_built_with_their_sums_and_lists_of_ours_go_first() {
    let modern = "[project]\nname = 'sample'\nversion = '1'\ndependencies = ['eels']\n";
    let poetry = "[tool.poetry.dependencies]\npython = '^3.8'\neels = {path = 'libs/eels'}\n";
    for (name, lock, project_file) in [
        ("uv.lock", uv_lock(), modern),
        ("poetry.lock", poetry_lock(), poetry),
        ("Pipfile.lock", pipfile_lock(), ""),
    ] {
        let sample = Sample::new("# no packages of ours\n");
        project(&sample.dir.join("libs/eels"), "eels", "from a lock");
        sample.write("pyproject.toml", project_file);
        sample.write(name, &lock);
        assert!(sample.built(), "{name}");
        let six = format!("six==1.17.0 --hash=sha256:{SIX} --hash=sha256:{SOURCES}");
        assert_eq!(sample.exact(), ["eels @ ./libs/eels".to_string(), six], "{name}");
        assert_eq!(sample.wheels().len(), 2);
        assert!(!sample.built(), "{name}: nothing has changed");
        if name != "uv.lock" {
            continue;
        }
        // A file that is not as the lock says is refused.
        sample.write(name, &lock.replace(SIX, &"0".repeat(64)).replace(SOURCES, &"1".repeat(64)));
        let error = sample.build().unwrap_err().to_string();
        assert!(error.to_ascii_lowercase().contains("hash"), "{name}: {error}");
        sample.write(name, "{ nothing");
        let error = sample.build().unwrap_err();
        assert!(error.at.unwrap().to_string().contains(name), "{name}");
        // A list of ours goes first.
        sample.write(LOOSE, "itsdangerous==2.2.0\n");
        assert!(sample.built());
        assert_eq!(sample.exact(), ["itsdangerous==2.2.0"], "{name}");
    }
}

#[test]
fn a_project_without_a_lock_is_resolved_and_a_stale_lock_is_refused() {
    let sample = Sample::new("");
    let names = |all: &str| {
        format!("[project]\nname = 'sample'\nrequires-python = '>=3.7'\ndependencies = [{all}]\n")
    };
    sample.write("pyproject.toml", &names("'six==1.17.0', 'colorama; sys_platform == \"win32\"'"));
    assert!(sample.built());
    assert_eq!(sample.exact(), ["six==1.17.0"]);
    sample.write("pyproject.toml", &names("'eels', 'itsdangerous'"));
    sample.write("uv.lock", &uv_lock());
    let error = sample.build().unwrap_err();
    assert!(error.because[0].contains("itsdangerous") && error.because[0].contains("uv lock"));
    sample.write("pyproject.toml", &names("'eels'").replace(">=3.7", "<3"));
    let error = sample.build().unwrap_err();
    assert!(error.because[0].contains("requires Python <3"), "{error}");
}
