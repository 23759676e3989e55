//! Members of a workspace of npm, pnpm or Yarn: their lock lies in a directory above theirs.

use std::fs;
use std::path::Path;

use ignore::gitignore::GitignoreBuilder;
use mfserv_core::{Diagnostic, Kind};
use serde_json::Value;

const LOCKS: [&str; 4] =
    ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock"];
const PNPM: &str = "pnpm-workspace.yaml";

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

fn lock_in(dir: &Path) -> Option<&'static str> {
    LOCKS.into_iter().find(|lock| dir.join(lock).is_file())
}

fn refusal(dir: &Path, root: &Path, lock: &str) -> Diagnostic {
    let below = dir.strip_prefix(root).unwrap_or(dir).display();
    let name = json(&dir.join("package.json"))
        .and_then(|package| Some(package.get("name")?.as_str()?.to_owned()))
        .unwrap_or_else(|| format!("./{below}"));
    let start = match lock {
        "pnpm-lock.yaml" => format!("pnpm --filter {name} start"),
        "yarn.lock" => format!("yarn workspace {name} start"),
        _ => format!("npm start --workspace {below}"),
    };
    let root = root.display();
    Diagnostic::error(format!("{} is a member of a workspace", dir.display()))
        .kind(Kind::Usage)
        .because(format!("its packages are those of {root}/{lock}, which is above it"))
        .help(format!(
            "write a Procfile in {root} with the line `web: {start}`, and name that directory; or \
             give {below} a lock of its own"
        ))
}

fn has_member(root: &Path, dir: &Path) -> bool {
    let Ok(below) = dir.strip_prefix(root) else { return false };
    let mut globs = GitignoreBuilder::new("");
    for pattern in patterns(root) {
        let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
        let line = match pattern.strip_prefix('!') {
            Some(without) => format!("!/{without}"),
            None => format!("/{pattern}"),
        };
        let _ = globs.add_line(None, &line);
    }
    globs.build().is_ok_and(|globs| globs.matched(below, true).is_ignore())
}

/// The patterns of the members: `workspaces` of package.json, `packages` of pnpm-workspace.yaml.
fn patterns(root: &Path) -> Vec<String> {
    let package = json(&root.join("package.json")).unwrap_or_default();
    let named = package.get("workspaces").unwrap_or(&Value::Null);
    let list = named.as_array().or_else(|| named.get("packages")?.as_array());
    let mut all: Vec<String> =
        list.into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect();
    let text = fs::read_to_string(root.join(PNPM)).unwrap_or_default();
    let lines = text.lines().skip_while(|line| line.trim_end() != "packages:").skip(1);
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
            ("package-lock.json", "package.json", npm, "npm start --workspace packages/web"),
            ("yarn.lock", "package.json", yarn, "yarn workspace @shop/web start"),
            ("pnpm-lock.yaml", PNPM, pnpm, "pnpm --filter @shop/web start"),
        ] {
            let member = ("packages/web/package.json", r#"{"name": "@shop/web"}"#);
            let folder = tree(&[(lock, ""), (list, text), member]);
            let dir = folder.path().join("packages/web");
            let problem = refuse_member(&dir).unwrap_err().to_string();
            assert!(problem.contains(start) && problem.contains(lock), "{problem}");
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
