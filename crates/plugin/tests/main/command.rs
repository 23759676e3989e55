//! `[build] cmd`: when it runs, what it finds, and what becomes of a command that fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mfserv_core::plugin_spec::BuildSection;
use mfserv_plugin::build::{self, BuildOptions, Held};

use super::{Node, Reported};

/// Copies a source, and writes down that it ran, outside of the plugin.
const COPY: &str = "echo run >> ../runs; mkdir -p dist; cp src/a.txt dist/a.txt";

struct Plugin {
    node: Node,
    section: BuildSection,
}

impl Plugin {
    fn new(command: &str) -> Self {
        let node = Node::new();
        let section = BuildSection { command: command.into(), out: vec!["dist".into()] };
        fs::create_dir_all(node.work().join("site/src")).unwrap();
        fs::write(node.work().join("site/src/a.txt"), "one").unwrap();
        Self { node, section }
    }

    fn dir(&self) -> std::path::PathBuf {
        self.node.work().join("site")
    }

    /// Whether there was nothing to do.
    fn build(&self) -> Result<bool, String> {
        self.build_with(&[])
    }

    fn build_with(&self, variables: &[(&str, &str)]) -> Result<bool, String> {
        let options = BuildOptions::new(self.node.home.clone());
        let path = format!("{}/tools:/usr/bin:/bin", self.dir().display());
        let own = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let env = own.chain([("PATH".to_string(), path)]).collect::<BTreeMap<_, _>>();
        let mut said = Reported::default();
        let held = Held::take(&self.node.home, &self.dir()).map_err(|why| why.to_string())?;
        let built = build::command(&held, &self.section, &env, &options, &mut said);
        built.map(|report| report.unchanged).map_err(|problem| problem.to_string())
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.node.work().join("runs")).unwrap_or_default().lines().count()
    }

    fn made(&self) -> String {
        fs::read_to_string(self.dir().join("dist/a.txt")).unwrap_or_default()
    }
}

fn write(dir: &Path, file: &str, text: &str) {
    fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
    fs::write(dir.join(file), text).unwrap();
}

#[test]
fn the_command_runs_when_a_source_its_line_or_what_it_makes_has_changed_and_not_else() {
    let mut plugin = Plugin::new(COPY);
    let dir = plugin.dir();
    assert_eq!((plugin.build(), plugin.runs(), plugin.made()), (Ok(false), 1, "one".into()));
    assert_eq!((plugin.build(), plugin.runs()), (Ok(true), 1));
    // Of the same content, packages, and what tools leave behind.
    write(&dir, "src/a.txt", "one");
    write(&dir, "node_modules/x/index.js", "");
    write(&dir, "src/.a.txt.swp", "");
    assert_eq!((plugin.build(), plugin.runs()), (Ok(true), 1));
    for (number, edit) in [
        (2, (&|| write(&dir, "src/a.txt", "two")) as &dyn Fn()),
        (3, &|| write(&dir, "src/deep/new.txt", "")),
        (4, &|| fs::remove_file(dir.join("src/deep/new.txt")).unwrap()),
        (5, &|| write(&dir, "dist/a.txt", "by hand")),
        (6, &|| fs::remove_dir_all(dir.join("dist")).unwrap()),
    ] {
        edit();
        assert_eq!((plugin.build(), plugin.runs()), (Ok(false), number));
        assert_eq!((plugin.build(), plugin.runs()), (Ok(true), number));
        assert_eq!(plugin.made(), "two");
    }
    plugin.section.command = format!("{COPY}; echo more >> dist/a.txt");
    assert_eq!((plugin.build(), plugin.made()), (Ok(false), "twomore\n".into()));
}

#[test]
fn the_command_is_a_line_for_a_shell_with_the_programs_of_the_plugin_and_no_other_variables() {
    let plugin = Plugin::new("mkdir -p dist && tool > dist/a.txt && env >> dist/a.txt");
    write(&plugin.dir(), "tools/tool", "#!/bin/sh\npwd\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(plugin.dir().join("tools/tool"), mode).unwrap();
    assert_eq!(plugin.build(), Ok(false));
    let made = plugin.made();
    let here = plugin.dir().canonicalize().unwrap();
    assert_eq!(made.lines().next().unwrap(), here.to_str().unwrap());
    assert!(!made.contains("CARGO_MANIFEST_DIR"), "{made}");
}

#[test]
fn a_command_that_fails_says_its_last_lines_and_runs_again_the_next_time() {
    let plugin = Plugin::new(&format!("{COPY}; seq 1 500; test ! -f broken"));
    assert_eq!(plugin.build(), Ok(false));
    write(&plugin.dir(), "broken", "");
    for number in [2, 3] {
        let problem = plugin.build().unwrap_err();
        assert!(problem.contains("the build command (echo run"), "{problem}");
        assert!(problem.contains("it ended with exit code 1"), "{problem}");
        assert!(problem.contains("\n500") || problem.contains(" 500"), "{problem}");
        assert!(problem.contains("(460 lines before)") && !problem.contains("459"), "{problem}");
        assert!(problem.contains("correct [build] cmd"), "{problem}");
        assert_eq!(plugin.runs(), number);
    }
    fs::remove_file(plugin.dir().join("broken")).unwrap();
    assert_eq!((plugin.build(), plugin.runs()), (Ok(false), 4), "what was made is not trusted");
}

#[test]
fn a_command_that_makes_nothing_of_what_it_should_is_an_error() {
    for command in ["true", "mkdir -p dist"] {
        let plugin = Plugin::new(command);
        let problem = plugin.build().unwrap_err();
        assert!(problem.contains("the build command has made no dist"), "{command}: {problem}");
    }
}

#[test]
fn what_was_there_before_the_run_is_not_taken_for_its_result_unless_the_same_command_left_it() {
    let mut plugin = Plugin::new("true");
    let dir = plugin.dir();
    write(&dir, "dist/a.txt", "by hand");
    for _ in 0..2 {
        let problem = plugin.build().unwrap_err();
        assert!(problem.contains("the build command has made nothing in dist"), "{problem}");
        assert!(problem.contains("remove dist"), "{problem}");
    }
    // As make does: what is newer than its sources is left, and times of files are kept.
    plugin.section.command =
        "mkdir -p dist; cmp -s src/a.txt dist/a.txt || cp -p src/a.txt dist; test ! -f no".into();
    assert_eq!((plugin.build(), plugin.made()), (Ok(false), "one".into()));
    write(&dir, "README", "an edit of something else");
    assert_eq!((plugin.build(), plugin.build()), (Ok(false), Ok(true)));
    write(&dir, "src/a.txt", "two");
    write(&dir, "no", "");
    assert!(plugin.build().is_err());
    fs::remove_file(dir.join("no")).unwrap();
    assert_eq!((plugin.build(), plugin.made()), (Ok(false), "two".into()));
}

#[test]
fn a_command_runs_again_for_another_variable_or_packages_and_always_if_it_names_no_result() {
    let mut plugin = Plugin::new(COPY);
    let dir = plugin.dir();
    let production = [("MODE", "production")];
    for (variables, number) in [(&[][..], 1), (&production[..], 2)] {
        assert_eq!((plugin.build_with(variables), plugin.runs()), (Ok(false), number));
        assert_eq!((plugin.build_with(variables), plugin.runs()), (Ok(true), number));
    }
    let in_terminal = [("MODE", "production"), ("TERM", "xterm")];
    assert_eq!(plugin.build_with(&in_terminal), Ok(true));
    for mark in ["local/.mfserv-environment.json", "node_modules/.mfserv-node.json"] {
        write(&dir, mark, "{}");
        assert_eq!(plugin.build_with(&production), Ok(false), "{mark}");
        assert_eq!(plugin.build_with(&production), Ok(true), "{mark}");
    }
    plugin.section.out.clear();
    let runs = plugin.runs();
    assert_eq!((plugin.build(), plugin.build()), (Ok(false), Ok(false)));
    assert_eq!(plugin.runs(), runs + 2);
}

#[test]
fn one_command_at_a_time_has_a_plugin_directory_and_a_session_waits_for_it() {
    let plugin = Plugin::new(COPY);
    let held = Held::take(&plugin.node.home, &plugin.dir()).unwrap();
    let problem = plugin.build().unwrap_err();
    assert!(problem.contains("is being changed by another command"), "{problem}");
    let cancel = mfserv_plugin::Cancel::default();
    let (home, dir, cancelled) = (plugin.node.home.clone(), plugin.dir(), cancel.clone());
    let waits = std::thread::spawn(move || Held::wait(&home, &dir, &cancelled).is_ok());
    cancel.cancel();
    assert!(!waits.join().unwrap(), "it does not wait for ever");
    let (home, dir) = (plugin.node.home.clone(), plugin.dir());
    let never = mfserv_plugin::Cancel::default();
    let waits = std::thread::spawn(move || Held::wait(&home, &dir, &never).is_ok());
    drop(held);
    assert!(waits.join().unwrap());
    assert_eq!(plugin.build(), Ok(false));
}
