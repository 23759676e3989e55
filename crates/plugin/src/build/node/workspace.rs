//! Members of a workspace of npm, pnpm or Yarn: their lock lies in a directory above theirs.

use std::fs;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use mfserv_core::{Diagnostic, Kind};
use serde_json::Value;

/// In the order in which they are looked for.
pub const LOCKS: [&str; 4] =
    ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock"];
/// Where pnpm has its members.
pub const PNPM: &str = "pnpm-workspace.yaml";

/// Refuses an app that is a member of a workspace and has no lock of its own: its packages are
/// those of the lock above it, and may be directories beside it, which are not deployed with it.
pub fn refuse_member(dir: &Path) -> Result<(), Diagnostic> {
    if lock_in(dir).is_some() {
        return Ok(());
    }
    for root in dir.ancestors().skip(1) {
        if let Some(lock) = lock_in(root).filter(|_| has_member(root, dir)) {
            return Err(refusal(dir, root, lock));
        }
        // A workspace does not go beyond its repository.
        if root.join(".git").exists() {
            break;
        }
    }
    Ok(())
}

/// The lock in a directory.
pub fn lock_in(dir: &Path) -> Option<&'static str> {
    LOCKS.into_iter().find(|lock| dir.join(lock).is_file())
}

fn refusal(dir: &Path, root: &Path, lock: &str) -> Diagnostic {
    let below = dir.strip_prefix(root).unwrap_or(dir).display().to_string();
    let package = json(&dir.join("package.json")).unwrap_or_default();
    let name = package.get("name").and_then(Value::as_str);
    let name = name.map_or_else(|| format!("./{below}"), str::to_owned);
    let has_start = package.pointer("/scripts/start").is_some();
    let called = below.rsplit('/').next().unwrap_or(&below);
    let root = root.display();
    let help = match has_start {
        true => format!(
            "`mfserv dev {root} --as {below} --name {called}` starts it there, and `mfserv deploy` \
             with these options deploys it"
        ),
        false => {
            let start = arguments(lock, &below, &name, &["run", "SCRIPT"]).join(" ");
            format!(
                "give it a script `start`, which `mfserv dev {root} --as {below} --name {called}` runs; or write a \
                 Procfile in {root} with the line `web: {} {start}`",
                tool(lock)
            )
        }
    };
    Diagnostic::error(format!("{} is a member of a workspace", dir.display()))
        .kind(Kind::Usage)
        .because(format!("its packages are those of {root}/{lock}, which is above it"))
        .help(format!("{help}; or give {below} a lock of its own"))
}

/// The tool of a lock, for a line; what it says itself is left out.
pub fn tool(lock: &str) -> &'static str {
    match lock {
        "pnpm-lock.yaml" => "pnpm --silent",
        "yarn.lock" => "yarn",
        _ => "npm --silent",
    }
}

/// What the tool is told to run a script of a member.
pub fn arguments(lock: &str, dir: &str, name: &str, script: &[&str]) -> Vec<String> {
    let before: &[&str] = match lock {
        "pnpm-lock.yaml" => &["--filter", name],
        "yarn.lock" => &["workspace", name],
        _ => &[],
    };
    let after: &[&str] = if before.is_empty() { &["--workspace", dir] } else { &[] };
    [before, script, after].concat().into_iter().map(str::to_owned).collect()
}

/// Which directories below a root are members of its workspace.
pub struct Members(Option<Gitignore>);

impl Members {
    /// `package`, `pnpm`: package.json and pnpm-workspace.yaml of the root.
    pub fn of(package: &Value, pnpm: &str) -> Members {
        let mut globs = GitignoreBuilder::new("");
        for pattern in patterns(package, pnpm) {
            let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
            let line = match pattern.strip_prefix('!') {
                Some(without) => format!("!/{without}"),
                None => format!("/{pattern}"),
            };
            let _ = globs.add_line(None, &line);
        }
        Members(globs.build().ok())
    }

    /// This one is.
    pub fn has(&self, below: impl AsRef<Path>) -> bool {
        self.0.as_ref().is_some_and(|globs| globs.matched(below, true).is_ignore())
    }
}

fn has_member(root: &Path, dir: &Path) -> bool {
    let Ok(below) = dir.strip_prefix(root) else { return false };
    let package = json(&root.join("package.json")).unwrap_or_default();
    Members::of(&package, &fs::read_to_string(root.join(PNPM)).unwrap_or_default()).has(below)
}

/// The patterns of the members: `workspaces` of package.json, `packages` of pnpm-workspace.yaml.
fn patterns(package: &Value, pnpm: &str) -> Vec<String> {
    let named = package.get("workspaces").unwrap_or(&Value::Null);
    let list = named.as_array().or_else(|| named.get("packages")?.as_array());
    let mut all: Vec<String> =
        list.into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect();
    let lines = pnpm.lines().skip_while(|line| line.trim_end() != "packages:").skip(1);
    let entries = lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries = entries.map_while(|line| line.strip_prefix('-'));
    all.extend(entries.map(|entry| entry.trim().trim_matches(['"', '\'']).to_owned()));
    all
}

fn json(file: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_member_whose_lock_lies_above_is_refused_with_the_line_that_starts_it_there() {
        let npm = r#"{"workspaces": ["packages/*", "!packages/other"]}"#;
        let yarn = r#"{"workspaces": {"packages": ["./packages/web/"]}}"#;
        let pnpm = "# all\npackages:\n  - 'packages/**'\n\ncatalog:\n  - x\n";
        for (lock, list, text, start) in [
            (
                "package-lock.json",
                "package.json",
                npm,
                "npm --silent run SCRIPT --workspace packages/web",
            ),
            ("yarn.lock", "package.json", yarn, "yarn workspace @shop/web run SCRIPT"),
            ("pnpm-lock.yaml", PNPM, pnpm, "pnpm --silent --filter @shop/web run SCRIPT"),
        ] {
            let member = ("packages/web/package.json", r#"{"name": "@shop/web"}"#);
            let folder = tree(&[(lock, ""), (list, text), member]);
            let dir = folder.path().join("packages/web");
            let problem = refuse_member(&dir).unwrap_err().to_string();
            assert!(problem.contains(start) && problem.contains(lock), "{problem}");
            let started = r#"{"scripts": {"start": "node ."}}"#;
            fs::write(dir.join("package.json"), started).unwrap();
            let problem = refuse_member(&dir).unwrap_err().to_string();
            let line =
                format!("`mfserv dev {} --as packages/web --name web`", folder.path().display());
            assert!(problem.contains(&line), "{problem}");
            fs::write(dir.join(lock), "").unwrap();
            refuse_member(&dir).unwrap();
        }
    }

    #[test]
    fn a_directory_that_no_workspace_names_is_none_of_its_members() {
        let npm = r#"{"workspaces": ["packages/*", "!packages/other"]}"#;
        let folder = tree(&[
            ("package-lock.json", ""),
            ("package.json", npm),
            ("packages/other/package.json", "{}"),
            ("apps/web/package.json", "{}"),
            ("packages/git/.git/HEAD", ""),
            ("packages/git/app/package.json", "{}"),
        ]);
        for dir in ["packages/other", "apps/web", "packages/git/app"] {
            refuse_member(&folder.path().join(dir)).unwrap();
        }
    }
}
