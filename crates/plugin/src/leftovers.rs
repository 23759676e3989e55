//! What lies in a project and is no part of it: virtual environments, caches, settings of
//! editors, repositories, secrets. It is neither packed nor watched.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::python::is_virtual_environment;

/// Directories of tools: nobody edits anything in them, and nobody deploys them.
const TOOLS: &str = "\
.venv/
.git/
.hg/
.svn/
.bzr/
CVS/
.idea/
.vscode/
.vs/
.fleet/
.settings/
__pycache__/
.mypy_cache/
.pytest_cache/
.ruff_cache/
.hypothesis/
.ipynb_checkpoints/
.tox/
.nox/
.direnv/
.cache/
.npm/
.pnpm-store/
.parcel-cache/
.turbo/
.nyc_output/
htmlcov/
";
/// Files of tools.
const FILES: &str = "\
*.pyc
*.pyo
*.swp
*.swo
*~
.DS_Store
Thumbs.db
.coverage
.git
.project
.pydevproject
";
/// What holds passwords and keys, by its name. Examples of such files hold none.
const SECRETS: &str = "\
.env
.env.*
.envrc
!.env.example
!.env.sample
!.env.template
!.env.dist
.netrc
_netrc
.pypirc
.git-credentials
.pgpass
.my.cnf
.ssh/
.aws/
.azure/
.gnupg/
.kube/
id_rsa
id_dsa
id_ecdsa
id_ed25519
*.kdbx
credentials.json
client_secret*.json
service-account*.json
service_account*.json
";

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// A virtual environment of Python.
    Environment,
    /// A directory or file of a tool.
    Tool,
    /// Passwords or keys.
    Secret,
}

/// Recognises leftovers.
#[derive(Debug)]
pub(crate) struct Leftovers {
    tools: Gitignore,
    secrets: Gitignore,
}

/// True for a path below a directory that is in no package of it, since its name says that it holds
/// passwords or keys.
pub fn is_secret(path: &Path) -> bool {
    patterns(SECRETS).matched_path_or_any_parents(path, false).is_ignore()
}

impl Leftovers {
    pub(crate) fn new() -> Self {
        Self { tools: patterns(&(TOOLS.to_string() + FILES)), secrets: patterns(SECRETS) }
    }

    /// Recognises virtual environments and nothing else.
    pub(crate) fn none() -> Self {
        Self { tools: Gitignore::empty(), secrets: Gitignore::empty() }
    }

    /// What the entry `path` (below `dir`) is, if it is no part of the project. Nothing is asked
    /// about the directories above it.
    pub(crate) fn is(&self, dir: &Path, path: &str, is_dir: bool) -> Option<Leftover> {
        let mut above = path.split('/').rev().skip(1);
        if above.any(|name| name == "node_modules") {
            // What npm has put there is a package, whatever its files are called; but tools of
            // packages keep their caches beside them.
            let cache = is_dir && path.ends_with("node_modules/.cache");
            return cache.then_some(Leftover::Tool);
        }
        if is_dir && is_virtual_environment(&dir.join(path)) {
            return Some(Leftover::Environment);
        }
        if self.secrets.matched(path, is_dir).is_ignore() {
            return Some(Leftover::Secret);
        }
        self.tools.matched(path, is_dir).is_ignore().then_some(Leftover::Tool)
    }
}

/// Why a file that is packed may hold a secret, by its name and its beginning.
pub(crate) fn looks_like_a_secret(path: &str, beginning: &[u8]) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let text = String::from_utf8_lossy(beginning);
    if text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let keys = [".key", ".p12", ".pfx", ".jks", ".keystore", ".ppk"];
    if keys.iter().any(|ending| name.ends_with(ending)) {
        return Some("keys, by its name");
    }
    let npm = name == ".npmrc"
        && ["_authtoken", "_password", "_auth="]
            .iter()
            .any(|key| text.to_ascii_lowercase().contains(key));
    if npm {
        return Some("a password for a registry");
    }
    let stem = name.split('.').next().unwrap_or_default();
    let kinds = [".json", ".yml", ".yaml", ".toml", ".ini", ".txt", ".cfg", ".conf", ".properties"];
    let named = ["secret", "secrets", "credential", "credentials", "password", "passwords"];
    let data = name == stem || kinds.iter().any(|kind| name.ends_with(kind));
    if named.contains(&stem) && data {
        return Some("secrets, by its name");
    }
    let aws = text.match_indices("AKIA").any(|(at, _)| {
        let key: Vec<char> = text[at..].chars().take(20).collect();
        key.len() == 20 && key.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    });
    if aws {
        return Some("a key of AWS");
    }
    ["ghp_", "github_pat_", "glpat-", "xoxb-"].into_iter().find_map(|sign| {
        let at = text.find(sign)?;
        let rest = &text[at + sign.len()..];
        let long = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_');
        (long.count() >= 20).then_some("an access token")
    })
}

fn patterns(text: &str) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in text.lines() {
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_caches_settings_and_secrets_are_no_part_of_a_project() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        std::fs::create_dir_all(dir.join("tools/my-env")).unwrap();
        std::fs::write(dir.join("tools/my-env/pyvenv.cfg"), "").unwrap();
        let all = Leftovers::new();
        for (path, is_dir, is) in [
            ("tools/my-env", true, Some(Leftover::Environment)),
            (".venv", true, Some(Leftover::Tool)),
            ("main/.git", false, Some(Leftover::Tool)),
            (".idea", true, Some(Leftover::Tool)),
            ("node_modules/.cache", true, Some(Leftover::Tool)),
            ("front/node_modules/.cache", true, Some(Leftover::Tool)),
            (".env", false, Some(Leftover::Secret)),
            ("deep/.env.production", false, Some(Leftover::Secret)),
            (".ssh", true, Some(Leftover::Secret)),
            ("keys/id_ed25519", false, Some(Leftover::Secret)),
            (".env.example", false, None),
            ("keys/id_ed25519.pub", false, None),
            ("src", true, None),
            ("env", true, None),
            ("environment.py", false, None),
            (".gitignore", false, None),
            ("main", true, None),
            ("node_modules/x/.idea", true, None),
            ("node_modules/dotenv/.env", false, None),
            ("node_modules/x/.cache", true, None),
        ] {
            assert_eq!(all.is(dir, path, is_dir), is, "{path}");
        }
    }

    #[test]
    fn a_file_looks_like_a_secret_by_its_name_or_its_beginning() {
        for (path, text) in [
            ("main/x.pem", "-----BEGIN RSA PRIVATE KEY-----\n"),
            ("tls/server.key", ""),
            ("secrets.yml", ""),
            (".npmrc", "//r.example.org/:_authToken=x\n"),
            ("main/settings.py", "KEY = 'AKIAABCDEFGHIJKLMNOP'\n"),
            ("a.txt", "ghp_0123456789abcdefghijklmnopqrstuv"),
        ] {
            assert!(looks_like_a_secret(path, text.as_bytes()).is_some(), "{path}");
        }
        for (path, text) in [
            ("main/cert.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("main/secrets.py", "import secrets\n"),
            (".npmrc", "save-exact=true\n"),
            ("main/keyboard.js", "ghp_"),
        ] {
            assert_eq!(looks_like_a_secret(path, text.as_bytes()), None, "{path}");
        }
    }
}
