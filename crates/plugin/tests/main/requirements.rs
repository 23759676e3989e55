//! Requirements as people have them: local projects and files, nested lists, sums. Built with pip and
//! with uv, and installed from the package alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::archive::pack;
use mfserv_plugin::build::{BuildOptions, BuildReport, build, sources};
use mfserv_plugin::store::install;
use mfserv_plugin::{Cancel, Home, Silent, python, tools};

use crate::{Node, options, spec_of, tree};

pub const LOOSE: &str = "python3_virtualenv_sources/requirements-to-freeze.txt";
const FROZEN: &str = "python3_virtualenv_sources/requirements3.txt";

/// A plugin that only has packages.
pub struct Sample {
    pub node: Node,
    pub dir: PathBuf,
}

impl Sample {
    pub fn new(requirements: &str) -> Self {
        let node = Node::new();
        let dir = node.plugin("python3_raw_wsgi", "sample").canonicalize().unwrap();
        let sample = Self { node, dir };
        sample.write(LOOSE, requirements);
        sample.lend(".pip-");
        sample
    }

    /// Gives the home a tool that another test has made already.
    fn lend(&self, prefix: &str) {
        fs::create_dir_all(self.node.home.base()).unwrap();
        for entry in fs::read_dir(lent().base()).unwrap().flatten() {
            let place = self.node.home.base().join(entry.file_name());
            let is_tool = entry.file_name().to_string_lossy().starts_with(prefix);
            if is_tool && entry.path().is_dir() && !place.exists() {
                std::os::unix::fs::symlink(entry.path(), place).unwrap();
            }
        }
    }

    /// The same for a list of exact versions that somebody else has made.
    pub fn frozen(text: &str) -> Self {
        let sample = Self::new("");
        fs::remove_file(sample.dir.join(LOOSE)).unwrap();
        sample.write(FROZEN, text);
        sample
    }

    pub fn with_uv(self) -> Self {
        self.lend(".uv-");
        let python = python::find(None).unwrap();
        tools::uv(&self.node.home, &python, &Cancel::default(), &mut Silent).unwrap();
        self
    }

    pub fn write(&self, path: &str, text: &str) {
        write(&self.dir, path, text);
    }

    pub fn build(&self) -> Result<BuildReport, Diagnostic> {
        build(&self.dir, &BuildOptions::new(self.node.home.clone()), &mut Silent)
    }

    pub fn built(&self) -> bool {
        !self.build().unwrap().python.unwrap().unchanged
    }

    pub fn exact(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(FROZEN)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_string).collect()
    }

    pub fn wheels(&self) -> Vec<String> {
        let all = tree(&self.dir.join("python3_virtualenv_sources/src"));
        all.into_iter().filter(|name| name.ends_with(".whl")).collect()
    }

    /// Installs the package where nothing of the project is left, and asks for an expression.
    pub fn installed(self, module: &str, expression: &str) -> String {
        let general = spec_of(&self.dir).general;
        let file = pack(&self.dir, &general, &self.node.work(), &mut Silent).unwrap();
        fs::rename(&self.dir, self.dir.with_file_name("gone")).unwrap();
        let (installed, _) = install(&self.node.home, &file, &options(false), &mut Silent).unwrap();
        import(&installed.dir, module, expression)
    }
}

/// A home that has pip and uv.
fn lent() -> &'static Home {
    static LENT: OnceLock<Home> = OnceLock::new();
    LENT.get_or_init(|| {
        let home = Home::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("requirements"));
        let python = python::find(None).unwrap();
        if python::on_path("uv").is_some() {
            // Nothing has to be fetched, and so pip is not made either.
            fs::create_dir_all(home.base()).unwrap();
        }
        tools::uv(&home, &python, &Cancel::default(), &mut Silent).unwrap();
        home
    })
}

pub fn import(dir: &Path, module: &str, expression: &str) -> String {
    let mut command = Command::new(dir.join("local/bin/python"));
    command.args(["-I", "-c", &format!("import {module}; print({expression})")]);
    let said = command.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().trim().to_string()
}

pub fn write(dir: &Path, path: &str, text: &str) {
    let file = dir.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// A project with one module, which says `VALUE`.
pub fn project(dir: &Path, name: &str, value: &str) {
    let about = format!(
        "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
         [project]\nname = \"{name}\"\nversion = \"1.2.3\"\n\
         [project.optional-dependencies]\nmore = [\"itsdangerous\"]\n\
         [tool.setuptools]\npy-modules = [\"{name}\"]\n"
    );
    write(dir, "pyproject.toml", &about);
    write(dir, &format!("{name}.py"), &format!("VALUE = {value:?}\n"));
}

#[test]
fn a_package_of_mfserv_with_an_editable_requirement_installs_from_its_wheel() {
    let sample = Sample::new("");
    project(&sample.dir.join("lib"), "toplib", "packed");
    sample.write(LOOSE, "./lib\n");
    assert!(sample.built());
    fs::remove_dir_all(sample.dir.join("lib")).unwrap();
    // As MFSERV leaves it: no note of ours, and the address in its list.
    fs::remove_file(sample.dir.join("python3_virtualenv_sources/src/.mfserv-wheels.json")).unwrap();
    sample.write(FROZEN, "-e git+https://git.example.org/x/toplib.git@main#egg=toplib\n");
    assert_eq!(sample.installed("toplib", "toplib.VALUE"), "packed");
}

#[test]
fn a_project_of_the_plugin_is_built_from_any_directory_and_an_edit_of_it_again() {
    let sample = Sample::new("-e ./libs/toplib\nother @ file:libs/other\n");
    project(&sample.dir.join("libs/toplib"), "toplib", "one");
    project(&sample.dir.join("libs/other"), "other", "two");
    let before = tree(&sample.dir.join("libs"));
    assert!(sample.built());
    assert_eq!(tree(&sample.dir.join("libs")), before, "the project is the developer's");
    assert_eq!(sample.exact(), ["other @ ./libs/other", "toplib @ ./libs/toplib"]);
    assert!(!sample.built());
    let edited = sample.dir.join("libs/toplib/toplib.py");
    assert!(sources(&sample.dir).contains(&edited));
    fs::write(&edited, "VALUE = 'edited'\n").unwrap();
    assert!(sample.built());
    assert_eq!(import(&sample.dir, "toplib", "toplib.VALUE"), "edited");
    assert_eq!(sample.installed("other", "other.VALUE"), "two");
}

#[test]
fn a_project_beside_the_plugin_and_a_wheel_in_it_are_packed() {
    let sample = Sample::new("../shared[more]\n").with_uv();
    project(&sample.node.work().join("shared"), "shared", "beside");
    assert!(sample.built());
    let exact = sample.exact();
    assert!(exact[0].starts_with("itsdangerous==") && exact[1] == "shared[more] @ ../shared");
    let wheel = sample.wheels().into_iter().find(|name| name.starts_with("shared")).unwrap();
    fs::create_dir(sample.dir.join("wheels")).unwrap();
    let packed = sample.dir.join("python3_virtualenv_sources/src").join(&wheel);
    fs::copy(packed, sample.dir.join("wheels").join(&wheel)).unwrap();
    fs::remove_dir_all(sample.node.work().join("shared")).unwrap();
    sample.write(LOOSE, &format!("wheels/{wheel}\n"));
    assert!(sample.built());
    assert_eq!(sample.exact(), [format!("shared @ ./wheels/{wheel}")]);
    assert_eq!(sample.installed("shared", "shared.VALUE"), "beside");
}

#[test]
fn a_list_that_somebody_else_has_made_may_name_a_project_of_the_plugin() {
    let sample = Sample::frozen("./libs/toplib\n");
    project(&sample.dir.join("libs/toplib"), "toplib", "named");
    assert!(sample.built());
    assert_eq!(sample.installed("toplib", "toplib.VALUE"), "named");
}

#[test]
fn what_an_installation_would_refuse_is_refused_by_the_build() {
    for line in ["-r other.txt", "itsdangerous", "itsdangerous>=2", "--index-url https://x/"] {
        let error = Sample::frozen(&format!("# made\n{line}\n")).build().unwrap_err();
        assert_eq!(error.kind, Kind::BadConfiguration, "{line}");
        assert!(error.at.unwrap().to_string().ends_with("requirements3.txt:2"), "{line}");
    }
    let error = Sample::new("./libs/missing\n").build().unwrap_err();
    assert!(error.because[0].contains("./libs/missing is not there"), "{error}");
}

#[test]
fn a_change_of_any_list_that_is_named_is_a_change_and_a_new_time_alone_is_none() {
    let sample = Sample::new("-r base.txt\n-c ../limits.txt\n");
    let base = "python3_virtualenv_sources/base.txt";
    sample.write(base, "-r deeper/more.txt\n");
    sample.write("python3_virtualenv_sources/deeper/more.txt", "itsdangerous\n");
    sample.write("limits.txt", "itsdangerous<2.2\n");
    assert!(sample.built());
    assert_eq!(sample.exact(), ["itsdangerous==2.1.2"]);
    // A checkout gives all files new times, and another tool old ones.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    let set = |path: &str, time| fs::File::open(sample.dir.join(path)).unwrap().set_modified(time);
    set(FROZEN, old).unwrap();
    assert!(!sample.built());
    sample.write("limits.txt", "itsdangerous<2.1\n");
    set("limits.txt", old - std::time::Duration::from_secs(86_400)).unwrap();
    assert!(sample.built());
    assert_eq!(sample.exact(), ["itsdangerous==2.0.1"]);
    sample.write("python3_virtualenv_sources/deeper/more.txt", "itsdangerous\nblinker\n");
    assert!(sample.built());
    assert_eq!(sample.exact().len(), 2);
}

/// The SHA-256 of a file that pip has fetched, asked for once.
fn sum_of(kind: &str, version: &str) -> String {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "-q", "--no-deps", "-d"]).arg(folder.path());
    command.args([kind, ":all:", &format!("itsdangerous=={version}")]);
    assert!(command.status().unwrap().success());
    let name = tree(folder.path()).pop().unwrap();
    crate::digest(&fs::read(folder.path().join(name)).unwrap())
}

#[test]
fn sums_are_checked_when_packages_are_fetched_and_wheels_made_of_sources_install() {
    let wheel = sum_of("--only-binary", "2.2.0");
    let sample = Sample::frozen(&format!(
        "# by a tool\nitsdangerous==2.2.0 \\\n    --hash=sha256:{} \\\n    --hash=sha256:{wheel}\n    # via x\n",
        "0".repeat(64)
    ));
    assert!(sample.built());
    assert_eq!(sample.installed("itsdangerous", "itsdangerous.__name__"), "itsdangerous");

    // The sum is of the sources, from which a wheel is made here.
    let archive = sum_of("--no-binary", "2.2.0");
    let sample = Sample::frozen(&format!("itsdangerous==2.2.0 --hash=sha256:{archive}\n"));
    fs::remove_file(sample.dir.join("python3_virtualenv_sources/allow_binary_packages")).unwrap();
    assert!(sample.built());
    assert_eq!(sample.installed("itsdangerous", "itsdangerous.__name__"), "itsdangerous");

    let sample = Sample::frozen(&format!("itsdangerous==2.2.0 --hash=sha256:{}\n", "1".repeat(64)));
    assert!(sample.build().unwrap_err().to_string().contains("itsdangerous"));
    // In a list that is resolved they are not lost.
    let sample = Sample::new(&format!("itsdangerous==2.2.0 --hash=sha256:{wheel}\n")).with_uv();
    assert!(sample.built());
    assert_eq!(sample.exact(), [format!("itsdangerous==2.2.0 --hash=sha256:{wheel}")]);
    sample.write(LOOSE, &format!("itsdangerous==2.2.0 --hash=sha256:{}\n", "1".repeat(64)));
    assert!(sample.build().is_err());
}

#[test]
fn a_wheel_that_was_exchanged_after_the_build_is_not_installed() {
    let sum = sum_of("--only-binary", "2.2.0");
    let sample = Sample::frozen(&format!("itsdangerous==2.2.0 --hash=sha256:{sum}\n"));
    assert!(sample.built());
    let wheel = sample.dir.join("python3_virtualenv_sources/src").join(&sample.wheels()[0]);
    let mut bytes = fs::read(&wheel).unwrap();
    bytes.extend_from_slice(b"more");
    fs::write(&wheel, bytes).unwrap();
    let general = spec_of(&sample.dir).general;
    let file = pack(&sample.dir, &general, &sample.node.work(), &mut Silent).unwrap();
    let error = install(&sample.node.home, &file, &options(false), &mut Silent).unwrap_err();
    assert!(error.because[0].contains("SHA-256"), "{error}");
}

#[test]
fn a_plugin_that_pins_what_the_base_environment_has_too_gets_its_own_versions() {
    // What no layer of MFSERV had is no constraint; what one had gives way to a pin,
    // and to what a pinned package needs.
    for (list, tool) in
        [("h11==0.14.0\n", "uv"), ("urllib3<2\nidna==3.4\n", "uv"), ("requests==2.28.0\n", "pip")]
    {
        let sample = Sample::new(list);
        let sample = if tool == "uv" { sample.with_uv() } else { sample };
        assert!(sample.built(), "{list}");
        let exact = sample.exact();
        let pinned = list.lines().filter(|line| line.contains("=="));
        pinned.for_each(|line| assert!(exact.contains(&line.to_string()), "{exact:?}"));
    }
    let sample = Sample::new("idna\n");
    assert!(sample.built());
    let lock = mfserv_plugin::base::lock(&python::find(None).unwrap()).unwrap();
    let base = lock.lines().find(|line| line.starts_with("idna==")).unwrap();
    assert_eq!(sample.exact(), [base], "what is not pinned is as in the base environment");
}
