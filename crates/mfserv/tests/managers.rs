//! Apps whose packages pnpm or Yarn have locked are built with that tool, the real one, and deployed
//! with the packages that they need to run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mfserv_testkit::{Node, skipped};

use crate::apps::{edit, example};
use crate::{Turn, node};

/// How npm fetches a tool, and what the tool is called with to write its lock and nothing else.
struct Tool {
    name: &'static str,
    package: &'static str,
    lock: &'static str,
    locks: &'static [&'static str],
}

const PNPM: Tool = Tool {
    name: "pnpm",
    package: "pnpm@10",
    lock: "pnpm-lock.yaml",
    locks: &["install", "--lockfile-only"],
};
const YARN: Tool = Tool {
    name: "yarn",
    package: "yarn@1",
    lock: "yarn.lock",
    locks: &["install", "--ignore-scripts"],
};
const BERRY: Tool = Tool {
    name: "yarn",
    package: "@yarnpkg/cli-dist@4",
    lock: "yarn.lock",
    locks: &["install", "--mode=update-lockfile"],
};

/// The last but one, which many projects have stayed with.
const YARN_3: Tool = Tool { package: "@yarnpkg/cli-dist@3.6.4", ..BERRY };

impl Tool {
    /// The example of Express in a directory of this name, locked by this tool; `None` if the tool
    /// cannot be had.
    fn locked(&self, node: &Node, name: &str) -> Option<PathBuf> {
        let from = example(node, "express");
        let dir = from.with_file_name(name);
        std::fs::rename(from, &dir).unwrap();
        std::fs::write(dir.join(self.lock), "").unwrap();
        let mut npm = Command::new("npm");
        npm.args(["exec", "--yes", &format!("--package={}", self.package), "--", self.name]);
        let ran = npm.args(self.locks).current_dir(&dir).output().unwrap();
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            let why = said.lines().last().unwrap_or_default();
            skipped(&format!("{} cannot be had of the registry of npm: {why}", self.package));
            return None;
        }
        let _ = std::fs::remove_dir_all(dir.join("node_modules"));
        Some(dir)
    }
}

fn has(dir: &Path, package: &str) -> bool {
    dir.join("node_modules").join(package).join("package.json").is_file()
}

/// Develops, deploys, updates and rolls back.
fn lives(tool: &Tool, name: &str) {
    let node = node();
    node.start();
    let Some(dir) = tool.locked(&node, name) else { return };
    let lock = std::fs::read(dir.join(tool.lock)).unwrap();
    let path = format!("/{name}/version");
    node.mfserv(&["dev", "--detach", dir.to_str().unwrap()]).code(0);
    assert_eq!(node.get(&path).text(), "one\n");
    assert!(has(&dir, "typescript") && !dir.join("package-lock.json").exists());
    assert_eq!(std::fs::read(dir.join(tool.lock)).unwrap(), lock, "the lock is obeyed");

    let ran = node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains(&format!("with {} ", tool.name)), "{said}");
    assert!(said.contains(&format!("{} run build", tool.name)), "{said}");
    assert_eq!(node.get(&path).text(), "one\n");
    let packed = node.path(&format!("var/releases/{name}/1/main"));
    assert!(has(&packed, "express") && !has(&packed, "typescript") && !has(&packed, "@types/node"));

    edit(&dir, "src/server.ts", "one", "two");
    node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    assert_eq!(node.get(&path).text(), "two\n", "what was left out is there for a build");
    node.mfserv(&["rollback", name]).code(0);
    assert_eq!(node.get(&path).text(), "one\n");

    // What the lock does not have is not installed.
    edit(
        &dir,
        "package.json",
        "\"express\": \"^4.21.0\"",
        "\"express\": \"^4.21.0\", \"is-odd\": \"3.0.1\"",
    );
    let ran = node.mfserv(&["deploy", dir.to_str().unwrap()]);
    assert!(
        ran.code != 0 && ran.stderr.contains(&format!("run `{} install` there", tool.name)),
        "{ran:?}"
    );
    assert_eq!(node.get(&path).text(), "one\n", "what ran before");
    node.stop();
}

#[test]
fn an_app_with_a_lock_of_pnpm_is_built_by_pnpm_and_deployed_with_what_it_needs_to_run() {
    let _turn = Turn::heavy();
    lives(&PNPM, "by-pnpm");
}

#[test]
fn an_app_with_a_lock_of_yarn_1_is_built_by_yarn_1_and_deployed_with_what_it_needs_to_run() {
    let _turn = Turn::heavy();
    lives(&YARN, "by-yarn");
}

#[test]
fn an_app_with_a_lock_of_yarn_4_is_built_by_yarn_4_and_deployed_with_what_it_needs_to_run() {
    let _turn = Turn::heavy();
    lives(&BERRY, "by-berry");
}

#[test]
fn an_app_with_a_lock_of_yarn_3_is_deployed_with_all_its_packages_and_that_is_said() {
    let _turn = Turn::heavy();
    let node = node();
    node.start();
    let Some(dir) = YARN_3.locked(&node, "by-yarn-3") else { return };
    // Yarn 3 has patches of its own for packages: another 3 may write another lock.
    edit(
        &dir,
        "package.json",
        r#""name": "express-example","#,
        r#""packageManager": "yarn@3.6.4", "name": "express-example","#,
    );
    let ran = node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("with yarn 3."), "{said}");
    assert!(said.contains("the packages for development are deployed, too"), "{said}");
    assert_eq!(node.get("/by-yarn-3/version").text(), "one\n");
    assert!(has(&node.path("var/releases/by-yarn-3/1/main"), "typescript"));
    node.stop();
}

#[test]
fn a_pnpm_on_path_that_is_older_than_the_lock_is_passed_over() {
    let _turn = Turn::heavy();
    let node = node();
    node.start();
    let Some(dir) = PNPM.locked(&node, "by-newer-pnpm") else { return };
    let old = node.path("old-pnpm");
    let mut npm = Command::new("npm");
    let installed = npm.args(["install", "pnpm@8", "--prefix"]).arg(&old).output().unwrap();
    if !installed.status.success() {
        return skipped("pnpm 8 cannot be had of the registry of npm");
    }
    let path = std::env::var("PATH").unwrap();
    let mut command = node.command(&["deploy", dir.to_str().unwrap()]);
    command.env("PATH", format!("{}:{path}", old.join("node_modules/.bin").display()));
    let ran = command.output().unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(ran.status.success() && said.concat().contains("with pnpm 10."), "{said:?}");
    assert_eq!(node.get("/by-newer-pnpm/version").text(), "one\n");
    node.stop();
}

#[test]
fn an_app_that_starts_with_a_program_for_development_is_deployed_with_it_and_that_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("apps/by-runner");
    std::fs::create_dir_all(dir.join("runner")).unwrap();
    let package = r#"{"name": "by-runner", "scripts": {"start": "runner"},
        "devDependencies": {"runner": "file:./runner"}}"#;
    let runner = r#"{"name": "runner", "version": "1.0.0", "bin": "run.js"}"#;
    let program = "#!/usr/bin/env node\nrequire('http')\
        .createServer((_, answer) => answer.end('it runs')).listen(process.env.PORT);\n";
    for (file, text) in
        [("package.json", package), ("runner/package.json", runner), ("runner/run.js", program)]
    {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let ran = node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("`start` calls runner of runner, one of devDependencies"), "{said}");
    assert_eq!(node.get("/by-runner").text(), "it runs");
    node.stop();
}

#[test]
fn where_a_tool_is_missing_the_error_names_it_at_once_and_says_how_to_get_it() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = example(&node, "express");
    std::fs::write(dir.join("pnpm-lock.yaml"), "lockfileVersion: '9.0'\n").unwrap();
    let programs = node.path("programs");
    std::fs::create_dir(&programs).unwrap();
    let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join("node"))
        .find(|path| path.is_file());
    std::os::unix::fs::symlink(real.unwrap(), programs.join("node")).unwrap();
    let mut command = node.command(&["deploy", dir.to_str().unwrap()]);
    command.env("PATH", &programs);
    let began = std::time::Instant::now();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for part in [
        "pnpm is not there",
        "pnpm is not on PATH",
        "corepack is not on PATH",
        "npm is not on PATH",
        "`npm install -g pnpm@10` installs it",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A second, on a machine that does much else.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
