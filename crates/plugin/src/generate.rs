//! The plugin that an existing app becomes: a directory of ours around the app's own, which
//! stays as it is.
//!
//! ```text
//! var/dev/NAME/          config.ini, label, lists of packages      (mfserv dev)
//!              main  ──► the app's directory
//! var/build/NAME/        the same                                  (mfserv deploy)
//!              main/     a copy, without caches, environments and secrets
//! ```

mod built;
mod code;
mod config;
mod data;
mod last_build;
mod lasting;
mod node;
mod page;
mod script;
mod servers;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use built::MARK as BUILT;
pub use code::{Copied, is_named};
pub use data::{Kept, kept};
use last_build::RECORD;
pub use lasting::{Asked, Lasting};
use mfserv_core::names::check_plugin_name;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;
pub use node::{NodeBuilt, build_node};
pub use script::Script;

use crate::build::{BuildOptions, Held, KEPT_MODULES};
use crate::discover::Finding;
use crate::home::Home;

/// The app's own files, below the plugin's directory.
pub const CODE: &str = "main";
/// Begins the configuration of a plugin that is made of an app.
pub const MADE_BY_US: &str = "# Made by mfserv of ";
/// Says which directory a plugin was made of; in the plugin's directory.
const MADE_OF: &str = ".mfserv-made-of";
/// Files that this module writes, or does not, by what was found: those of an earlier reading go.
const DOUBTFUL: &[&str] = &[
    "postinstall",
    "mfserv_app.py",
    "uv.lock",
    "poetry.lock",
    "Pipfile.lock",
    "pyproject.toml",
    ".layerapi2_extra_env",
];

/// What the plugin is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It runs while the app is written: its own directory is used.
    Dev,
    /// It is packed: a copy is made.
    Deploy,
}

/// What is made of a directory.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The app's directory, a real path.
    pub source: &'a Path,
    /// What it is.
    pub finding: &'a Finding,
    /// The name of the plugin.
    pub name: &'a str,
    /// What for.
    pub purpose: Purpose,
    /// It is served at `/` as well.
    pub at_root: bool,
    /// Somebody builds again at each edit ([`build_node`]): workers follow builds, not edits.
    pub builds_at_edits: bool,
    /// Options of deployments, of now and of before.
    pub lasting: &'a Lasting,
    /// Files that are packed though they hold secrets, by their path in the directory.
    pub named: &'a [String],
}

/// The name of a plugin that is made of a directory: its own, as far as a plugin may be called so.
pub fn name_of(dir: &Path) -> Result<String, Diagnostic> {
    let own = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let letter = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = own.chars().map(letter).take(100).collect();
    let name = name.trim_matches('-').trim_start_matches("plugin_").trim_start_matches('_');
    check_plugin_name(name).map(|()| name.to_string()).map_err(|because| {
        Diagnostic::error(format!("no plugin can be named after {}", dir.display()))
            .kind(Kind::Usage)
            .because(because)
            .help("say how it is called: `--name NAME`")
    })
}

/// The directory of ours that the plugin is made in.
pub fn place_of(home: &Home, name: &str, purpose: Purpose) -> PathBuf {
    let below = if purpose == Purpose::Dev { "var/dev" } else { "var/build" };
    home.root().join(below).join(name)
}

/// A file or directory that belongs to a place, and lies beside it: what is in the place is packed.
pub(crate) fn beside_place(place: &Path, what: &str) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    place.with_file_name(format!(".{name}.{what}"))
}

/// Removes what was made of an app of this name, for later builds and deployments of it, with their
/// options. Nothing is removed while a command builds it.
pub fn remove_made(home: &Home, name: &str) -> Result<(), Diagnostic> {
    for purpose in [Purpose::Dev, Purpose::Deploy] {
        let place = place_of(home, name, purpose);
        if !place.is_dir() {
            continue;
        }
        let _held = Held::take(home, &place)?;
        for beside in [KEPT_MODULES, RECORD] {
            disk::remove(&beside_place(&place, beside))?;
        }
        disk::remove(&place)?;
    }
    Ok(())
}

/// The directory that a plugin of this module was made of; `None` for any other plugin.
pub fn made_of(plugin: &Path) -> Option<PathBuf> {
    let text = crate::label::read_small(&plugin.join(MADE_OF)).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

/// The plugin that `mfserv dev` has made of an app's directory: its name and its own directory.
pub fn made_from(home: &Home, source: &Path) -> Option<(String, PathBuf)> {
    let places = fs::read_dir(home.root().join("var/dev")).ok()?.flatten();
    let place = places
        .map(|entry| entry.path())
        .find(|place| made_of(place).is_some_and(|of| of == source))?;
    Some((place.file_name()?.to_str()?.to_owned(), place))
}

/// Makes the plugin of a directory. What a build has made in it before stays. Returns its place,
/// and what was copied.
pub fn generate(
    wanted: &Wanted<'_>,
    options: &BuildOptions,
) -> Result<(PathBuf, Copied), Diagnostic> {
    let place = place_of(&options.home, wanted.name, wanted.purpose);
    refuse_path(wanted.source)?;
    if let Some(other) = made_of(&place).filter(|other| other != wanted.source && other.is_dir()) {
        return Err(Diagnostic::error(format!("there is another app of the name {}", wanted.name))
            .kind(Kind::Refused)
            .because(format!("it is made of {}", other.display()))
            .help(format!(
                "`--name NAME` gives this one another name; or remove {}",
                place.display()
            )));
    }
    disk::create_dir(&place)?;
    let copied = match wanted.purpose {
        Purpose::Dev => {
            built::make_place(&place, wanted)?;
            Copied::default()
        }
        Purpose::Deploy => code::copy(wanted, &place, options)?,
    };
    let files = config::files(wanted, CODE);
    files.iter().try_for_each(|file| write(&place, file))?;
    let mut kept: Vec<PathBuf> = files.iter().map(|file| place.join(&file.path)).collect();
    kept.extend(link_lists(wanted, &place)?);
    let programs = fs::read_dir(place.join("bin")).into_iter().flatten().flatten();
    let programs: Vec<PathBuf> = programs.map(|entry| entry.path()).collect();
    let doubtful = DOUBTFUL.iter().map(|name| place.join(name)).chain(programs);
    for stale in doubtful.filter(|path| !kept.contains(path)) {
        disk::remove(&stale)?;
    }
    disk::write(&place.join(MADE_OF), format!("{}\n", wanted.source.display()).as_bytes())?;
    Ok((place, copied))
}

/// Locks and projects are read where the plugin begins. Returns what is there of them.
fn link_lists(wanted: &Wanted<'_>, place: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let list = wanted.finding.python.as_ref();
    let list = list.and_then(|list| Some((list.file.as_deref()?, wanted.source.join(&list.dir))));
    // Lists of pip are named where they are.
    let Some((file, dir)) = list.filter(|(file, _)| !file.ends_with(".txt")) else {
        return Ok(Vec::new());
    };
    let mut made = Vec::new();
    for name in [file, "pyproject.toml"] {
        let (own, ours) = (dir.join(name), place.join(name));
        if !own.is_file() || made.contains(&ours) {
            continue;
        }
        match wanted.purpose {
            Purpose::Dev => disk::relink(&ours, &own)?,
            Purpose::Deploy => {
                fs::copy(&own, &ours).map(drop).map_err(|e| disk::failed("copy", &own, e))?;
            }
        }
        made.push(ours);
    }
    Ok(made)
}

/// Writes the files of a plugin into the app's own directory; it is a plugin then. Returns their
/// names. Refused if one of them is there.
pub fn write_into(wanted: &Wanted<'_>) -> Result<Vec<String>, Diagnostic> {
    let dir = wanted.source;
    if wanted.finding.served() == Some("") {
        return Err(Diagnostic::error(format!("{} can't become a plugin as it is", dir.display()))
            .kind(Kind::Refused)
            .because("a plugin has its pages in a directory below its own")
            .help(
                "move index.html and what belongs to it into `public`; `mfserv dev` and \
                   `mfserv deploy` serve it as it is",
            ));
    }
    let mut finding = wanted.finding.clone();
    finding.persistent = data::of_plugin(wanted);
    let files = config::files(&Wanted { finding: &finding, ..*wanted }, "");
    if let Some(there) = files.iter().find(|file| dir.join(&file.path).exists()) {
        return Err(Diagnostic::error(format!("{} is there", dir.join(&there.path).display()))
            .kind(Kind::Refused)
            .because("a plugin needs a file of this name")
            .help(
                "rename it, or leave the directory as it is: `mfserv dev` and `mfserv deploy` \
                   need no file in it",
            ));
    }
    files.iter().try_for_each(|file| write(dir, file))?;
    Ok(files.into_iter().map(|file| file.path).collect())
}

/// A file of the plugin.
struct PluginFile {
    path: String,
    text: String,
    is_program: bool,
}

fn write(place: &Path, file: &PluginFile) -> Result<(), Diagnostic> {
    let path = place.join(&file.path);
    if fs::read(&path).is_ok_and(|there| there == file.text.as_bytes()) {
        return Ok(());
    }
    path.parent().map_or(Ok(()), disk::create_dir)?;
    disk::write(&path, file.text.as_bytes())?;
    let mode = fs::Permissions::from_mode(if file.is_program { 0o755 } else { 0o644 });
    fs::set_permissions(&path, mode).map_err(|e| disk::failed("write", &path, e))
}

/// Which edits renew the workers, as long as nobody builds again at edits.
pub fn watch_sources(place: &Path, wanted: &Wanted<'_>) -> Result<(), Diagnostic> {
    let rules = config::files(wanted, CODE);
    rules
        .iter()
        .filter(|file| file.path == config::INCLUDES)
        .try_for_each(|file| write(place, file))
}

/// Paths that lists of paths and our placeholders can't have.
fn refuse_path(source: &Path) -> Result<(), Diagnostic> {
    let text = source.to_string_lossy();
    match text.contains([':', '{', '}', '"', '\'', '\n', ';']) {
        true => Err(Diagnostic::error(format!("{text} can't be served from there"))
            .kind(Kind::Usage)
            .because("its path has one of : ; { } or a quote, which search paths can't have")
            .help("rename the directory")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_called_as_its_directory_as_far_as_it_may_be() {
        for (dir, name) in
            [("/x/shop", "shop"), ("/x/my shop.v2", "my-shop-v2"), ("/x/plugin_a", "a")]
        {
            assert_eq!(name_of(Path::new(dir)).unwrap(), name);
        }
        let problem = name_of(Path::new("/x/config")).unwrap_err();
        assert!(problem.to_string().contains("--name"), "{problem}");
    }

    #[test]
    fn servers_that_know_unix_sockets_get_theirs_in_place_of_their_own_options() {
        for (line, wanted) in [
            ("gunicorn a:b --bind 0.0.0.0:$PORT -w 2", "gunicorn a:b -w 2 --bind unix:\"$1\""),
            (
                "python -m uvicorn a:b --port=$PORT --host 0.0.0.0",
                "python -m uvicorn a:b --uds \"$1\"",
            ),
            ("gunicorn -b:80 a:b", "gunicorn a:b --bind unix:\"$1\""),
        ] {
            assert_eq!(servers::for_socket(line).as_deref(), Some(wanted));
            assert!(servers::trusts_front(wanted) && !servers::trusts_front(line), "{line}");
        }
        let believes =
            "--trusted-proxy='*' --trusted-proxy-headers='x-forwarded-for x-forwarded-proto'";
        for (line, wanted) in [
            ("daphne -p $PORT a:b", "daphne a:b -u \"$1\" --proxy-headers".to_string()),
            ("waitress-serve a:b", format!("waitress-serve a:b --unix-socket=\"$1\" {believes}")),
            (
                "waitress-serve --trusted-proxy=10.0.0.1 a:b",
                "waitress-serve --trusted-proxy=10.0.0.1 a:b --unix-socket=\"$1\"".to_string(),
            ),
        ] {
            assert_eq!(servers::for_socket(line), Some(wanted));
        }
        // It has no such variable.
        assert!(!servers::trusts_front("waitress-serve a:b --unix-socket=\"$1\""));
        for line in ["node server.js", "migrate && gunicorn a:b", "myserver --port $PORT"] {
            assert_eq!(servers::for_socket(line), None, "it gets a port");
        }
    }
}
