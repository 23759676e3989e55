//! Data and code in the directory of an app: databases that its author works with, which are no part
//! of what is deployed, and programs, which are.

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};

use super::Wanted;
use super::code::is_named;
use super::lasting::{Asked, Lasting, add};
use crate::child::Run;
use crate::discover::{Finding, Web};
use crate::leftovers::Leftovers;
use crate::progress::{Cancel, Silent};
use crate::python::{clean, on_path};

/// The most entries that are looked at, those of the upper directories first.
const MOST: usize = 100_000;
/// The most databases that are named.
const MOST_FOUND: usize = 50;
/// Each database of SQLite begins so.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The shortest page of SQLite: the length of a database is a multiple of it.
const PAGE: u64 = 512;
/// How long git may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Programs, by their names.
const PROGRAMS: &[&str] = &[
    ".py", ".js", ".mjs", ".cjs", ".ts", ".jsx", ".tsx", ".rb", ".php", ".pl", ".sh", ".vue",
    ".svelte",
];

/// What outlives the releases of an app, when it is deployed.
#[derive(Debug, Default)]
pub struct Kept {
    /// The options that stay, with the databases that were found.
    pub lasting: Lasting,
    /// All paths.
    pub paths: Vec<String>,
    /// Paths of earlier commands that hold code of the app.
    pub warnings: Vec<Diagnostic>,
}

/// The options of an app that is deployed, those of before included, and what outlives its releases by
/// them: its databases, too.
pub fn kept(
    place: &Path,
    dir: &Path,
    finding: &Finding,
    asked: &Asked,
) -> Result<Kept, Diagnostic> {
    let own = databases_of(dir, finding)
        .into_iter()
        .filter(|path| !is_named(&asked.packed, path) && !finding.persistent.contains(path));
    let own: Vec<String> = own.collect();
    if let Some(path) = asked.no_persistent.iter().find(|path| is_named(&own, path)) {
        return Err(Diagnostic::error(format!("--no-persist {path} takes nothing back"))
            .kind(Kind::Usage)
            .because("it is a database of SQLite that git does not have: it stays persistent")
            .help(format!(
                "`--no-persist {path} --pack {path}` deploys this file in place of the data of the app"
            )));
    }
    let mut lasting = Lasting::with(place, asked)?;
    let mut warnings = Vec::new();
    for path in &lasting.persistent {
        let Some(code) = code_in(dir, finding, path) else { continue };
        if asked.persistent.iter().any(|asked| same(asked, path)) {
            return Err(refused(path, &code));
        }
        warnings.push(frozen(path, &code));
    }
    own.into_iter().for_each(|path| lasting.add(path));
    let mut paths = finding.persistent.clone();
    lasting.persistent.iter().for_each(|path| add(&mut paths, path.clone()));
    let packed = paths.iter().filter(|path| asked.packed.iter().any(|asked| same(asked, path)));
    warnings.extend(packed.map(|path| only_first(path)));
    Ok(Kept { lasting, paths, warnings })
}

/// What outlives the releases of an app that becomes a plugin. A path without an extension would begin
/// as a directory: such a database is left to its author.
pub(super) fn of_plugin(wanted: &Wanted<'_>) -> Vec<String> {
    let mut paths = wanted.finding.persistent.clone();
    let own = databases_of(wanted.source, wanted.finding).into_iter();
    own.filter(|path| Path::new(path).extension().is_some()).for_each(|path| add(&mut paths, path));
    paths
}

/// None of a site: what lies in it is published.
fn databases_of(dir: &Path, finding: &Finding) -> Vec<String> {
    if finding.served().is_some() { Vec::new() } else { databases(dir) }
}

fn same(one: &str, other: &str) -> bool {
    one.trim_start_matches("./").trim_end_matches('/') == other
}

/// The databases of SQLite below an app's directory that git does not know: its author's own data. All
/// of them where git does not know the directory.
fn databases(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(dir, &mut |path| {
        if is_database(&dir.join(path)) && is_declarable(path) && !is_tracked(dir, path) {
            found.push(path.to_string());
        }
        found.len() < MOST_FOUND
    });
    found.sort();
    found
}

/// A path that a list of persistent paths can have.
fn is_declarable(path: &str) -> bool {
    !path.contains([';', '\n', '{', '}'])
}

fn is_database(file: &Path) -> bool {
    // Neither links nor FIFOs are opened.
    let is_whole = |about: &fs::Metadata| about.len() >= PAGE && about.len() % PAGE == 0;
    if !fs::symlink_metadata(file).is_ok_and(|about| about.is_file() && is_whole(&about)) {
        return false;
    }
    let mut start = [0; 16];
    let read = fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && &start == MAGIC
}

/// Calls `each` with the files that are deployed, by their path in the directory, until it returns false.
fn walk(dir: &Path, each: &mut dyn FnMut(&str) -> bool) {
    let leftovers = Leftovers::new();
    let mut todo = VecDeque::from([String::new()]);
    let mut seen = 0;
    while let Some(below) = todo.pop_front() {
        for entry in fs::read_dir(dir.join(&below)).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST {
                return;
            }
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else {
                continue;
            };
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if name == "node_modules" || leftovers.is(dir, &path, kind.is_dir()).is_some() {
                continue;
            }
            if kind.is_dir() {
                todo.push_back(path);
            } else if kind.is_file() && !each(&path) {
                return;
            }
        }
    }
}

/// Whether git has a file of the app, in the repository that is nearest to it.
fn is_tracked(dir: &Path, path: &str) -> bool {
    let file = dir.join(path);
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let (Some(above), Some(name)) = (file.parent(), name) else { return false };
    match tracked(above, &name) {
        Some(files) => !files.is_empty(),
        // Who cannot ask git leaves the files of a repository as they are.
        None => above.ancestors().any(|dir| dir.join(".git").exists()),
    }
}

fn is_tracked_at_all(dir: &Path) -> bool {
    tracked(dir, ".").is_some_and(|files| !files.is_empty())
}

/// The files that git has of a file or directory, by their path in `dir`; `None` where there is no
/// repository, or no git.
fn tracked(dir: &Path, path: &str) -> Option<Vec<String>> {
    let mut command = clean(&on_path("git")?);
    // The repository may be somebody else's: nothing of it is run.
    command.args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]);
    command.args(["-c", "core.quotePath=false", "--literal-pathspecs"]);
    command.arg("-C").arg(dir).args(["ls-files", "--", path]);
    let never = Cancel::default();
    let run = Run { what: "asking git for its files", limit: LIMIT, cancel: &never };
    let said = run.run(command, &mut Silent).ok()?;
    Some(said.text().lines().map(str::to_string).collect())
}

/// The code of an app that a path is or has in it; `None` if it is only data. A new release would
/// bring no other.
fn code_in(dir: &Path, finding: &Finding, path: &str) -> Option<String> {
    let holds = |file: &str| Path::new(file).starts_with(path);
    if let Some(file) = entry_files(finding).into_iter().find(|file| holds(file)) {
        return Some(file);
    }
    let is_program = |file: &str| PROGRAMS.iter().any(|end| file.ends_with(end));
    match tracked(dir, path) {
        // A directory may lie in a repository that has nothing of it.
        Some(files) if !files.is_empty() || is_tracked_at_all(dir) => {
            return files.into_iter().find(|file| is_program(file));
        }
        _ => {}
    }
    let mut found = None;
    walk(dir, &mut |file| {
        if holds(file) && is_program(file) {
            found = Some(file.to_string());
        }
        found.is_none()
    });
    found
}

/// The files that start an app: the reasons for which it was taken for one, and the module that is served.
fn entry_files(finding: &Finding) -> Vec<String> {
    let data = |file: &String| finding.persistent.contains(file);
    let mut files: Vec<String> = finding.evidence.iter().map(|one| one.file.clone()).collect();
    if let Some(Web::Python { module, root, .. }) = &finding.web {
        let below = if root.is_empty() { String::new() } else { format!("{root}/") };
        let path = format!("{below}{}", module.replace('.', "/"));
        files.extend([format!("{path}.py"), format!("{path}/__init__.py")]);
    }
    files.retain(|file| !data(file));
    files.extend(["manage.py", "package.json", "Procfile"].map(String::from));
    files
}

/// `--pack` of a path that outlives releases.
fn only_first(path: &str) -> Diagnostic {
    Diagnostic::warning(format!("{path} is deployed only if the app has no data there yet"))
        .because("what the app has at this path outlives its releases")
        .help(format!("`--no-persist {path} --pack {path}` replaces it, unless settings name it"))
}

/// A path of an earlier command that has code in it.
fn frozen(path: &str, code: &str) -> Diagnostic {
    Diagnostic::warning(format!(
        "{path} is not deployed, as an earlier command has said --persist {path}"
    ))
    .because(format!("it has {code}, which is code of the app: what serves is an old one"))
    .help(format!(
        "`mfserv deploy DIR --no-persist {path}` deploys it again; name what the app writes in it: \
             `--persist {path}/data.db`"
    ))
}

/// `--persist` of code.
fn refused(path: &str, code: &str) -> Diagnostic {
    let is = if path == code { "it is" } else { "it has" };
    Diagnostic::error(format!("--persist can't have {path}"))
        .kind(Kind::Usage)
        .because(format!(
            "{is} {code}, which is code of the app: later deployments would not bring a new one"
        ))
        .help("name only what the app writes: a file (`--persist data.db`), or a directory without code")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::{Listing, choose, readings};
    use crate::generate::{Purpose, write_into};

    fn app(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn database() -> Vec<u8> {
        let mut text = MAGIC.to_vec();
        text.resize(4096, 0);
        text
    }

    fn git(dir: &Path, words: &[&str]) {
        let mut command = clean(&on_path("git").unwrap());
        command.arg("-C").arg(dir).args(words);
        assert!(command.output().unwrap().status.success(), "{words:?}");
    }

    #[test]
    fn databases_that_git_does_not_have_are_data_wherever_they_are() {
        let data = database();
        let folder = app(&[
            ("app.py", b"x"),
            ("app.db", &data),
            ("instance/shop", &data),
            ("part/of.sqlite", &data),
            ("short.db", b"SQLite format 3\0"),
            ("other.db", &[7; 4096]),
            ("odd;name.db", &data),
            ("node_modules/a/x.db", &data),
            (".venv/x.db", &data),
        ]);
        let dir = folder.path();
        std::os::unix::fs::symlink("app.db", dir.join("link.db")).unwrap();
        assert_eq!(databases(dir), ["app.db", "instance/shop", "part/of.sqlite"]);
        git(dir, &["init", "--quiet"]);
        git(dir, &["add", "part/of.sqlite", "app.py"]);
        assert_eq!(databases(dir), ["app.db", "instance/shop"]);
        // Of a repository below, the one below knows its files.
        git(&dir.join("instance"), &["init", "--quiet"]);
        git(&dir.join("instance"), &["add", "shop"]);
        assert_eq!(databases(dir), ["app.db"]);
    }

    #[test]
    fn a_plugin_that_an_app_becomes_declares_its_databases_and_packs_none() {
        let data = database();
        let folder = app(&[
            ("app.py", b"from flask import Flask\napp = Flask(__name__)\n"),
            ("instance/shop.db", &data),
            ("instance/bare", &data),
        ]);
        let dir = folder.path();
        let finding = choose(&readings(&Listing::read(dir).unwrap()), None, dir).unwrap();
        let wanted = Wanted {
            source: dir,
            finding: &finding,
            name: "shop",
            purpose: Purpose::Deploy,
            at_root: true,
            builds_at_edits: false,
            lasting: &Lasting::default(),
            named: &[],
        };
        write_into(&wanted).unwrap();
        let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        assert!(text("config.ini").contains("_persistent_paths=instance/shop.db\n"));
        assert!(text(".releaseignore").contains("/instance/shop.db\n/instance/shop.db-journal\n"));
    }

    #[test]
    fn a_path_with_code_is_not_persistent_and_one_with_data_is() {
        let data = database();
        let folder = app(&[
            ("src/shop/__init__.py", b"from flask import Flask\napp = Flask(__name__)\n"),
            ("src/instance/app.db", &data),
            ("lib/other.py", b""),
            ("uploads/.gitkeep", b""),
            ("uploads/made.py", b""),
        ]);
        let dir = folder.path();
        let listing = Listing::read(dir).unwrap();
        let finding = choose(&readings(&listing), None, dir).unwrap();
        let code = |path: &str| code_in(dir, &finding, path);
        for path in ["src", "src/shop", "src/shop/__init__.py"] {
            assert_eq!(code(path).as_deref(), Some("src/shop/__init__.py"), "{path}");
        }
        assert_eq!(code("lib").as_deref(), Some("lib/other.py"));
        for path in ["src/instance", "src/instance/app.db", "up", "nothing"] {
            assert_eq!(code(path), None, "{path}");
        }
        assert!(code("package.json").is_some() && code("uploads").is_some());
        git(dir, &["init", "--quiet"]);
        git(dir, &["add", "lib", "uploads/.gitkeep"]);
        assert_eq!(code("lib").as_deref(), Some("lib/other.py"));
        assert_eq!(code("uploads"), None, "git does not have what was uploaded");
        let said = refused("lib", "lib/other.py").to_string();
        assert!(said.contains("it has lib/other.py"), "{said}");
    }
}
