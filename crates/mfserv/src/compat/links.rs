//! Where MFSERV's commands are put: links to this program, and what their shells and
//! makefiles read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;

use super::COMMANDS;

/// The first words of each file that we write; a file without them is not ours.
const MARK: &str = "# Written by `mfserv setup --commands`";
/// Our own name, beside the others.
const OURS: &str = "mfserv";

const PYTHON: &str = include_str!("../../share/opt/python3");
const NODE: &str = include_str!("../../share/opt/node");

/// What is read below PREFIX, by path: files of shells and makefiles, and directories in place of
/// the layers of MFSERV that scripts name by their path.
const SHARED: &[(&str, &str)] = &[
    ("share/plugin.mk", include_str!("../../share/plugin.mk")),
    ("share/plugin_env.bashrc", include_str!("../../share/plugin_env.bashrc")),
    ("share/profile", include_str!("../../share/profile")),
    ("opt/root/.layerapi2_label", "root@mfserv\n"),
    ("opt/python3/.layerapi2_label", "python3@mfext\n"),
    ("opt/python3/bin/python", PYTHON),
    ("opt/python3/bin/python3", PYTHON),
    ("opt/nodejs/.layerapi2_label", "nodejs@mfext\n"),
    ("opt/nodejs/bin/node", NODE),
    ("opt/nodejs/bin/npm", NODE),
    ("opt/nodejs/bin/npx", NODE),
];

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The links that are there now.
    pub links: usize,
    /// What was not there before, or was another.
    pub changed: Vec<PathBuf>,
}

/// Puts a link for each command into `bin`, and what they need into `share` beside it. All is
/// checked first: if a file that is not ours is in the way, nothing is written.
pub fn write(bin: &Path, program: &Path) -> Result<Written, Diagnostic> {
    let bin = std::path::absolute(bin)
        .map_err(|e| Diagnostic::error("the directory has no usable path").because(e))?;
    let (Some("bin"), Some(prefix)) = (bin.file_name().and_then(|n| n.to_str()), bin.parent())
    else {
        return Err(Diagnostic::error(format!("{} is not called bin", bin.display()))
            .kind(Kind::Usage)
            .because("what the commands need is written to the directory share beside it")
            .help("say PREFIX/bin"));
    };
    let place = prefix.to_string_lossy();
    if place.contains(|c: char| c.is_whitespace() || "'\"$`\\#:=".contains(c)) {
        return Err(Diagnostic::error(format!("{place} cannot be the place of commands"))
            .kind(Kind::Usage)
            .because("blanks and signs of shells and makefiles cannot be in its path"));
    }
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let names = COMMANDS.iter().map(|(name, _)| *name).chain([OURS]);
    // Where the program itself is in `bin`, it is no link to itself.
    let places: Vec<PathBuf> =
        names.map(|name| bin.join(name)).filter(|link| *link != program).collect();
    let files: Vec<(PathBuf, String)> = SHARED
        .iter()
        .map(|(path, text)| (prefix.join(path), text.replace("@PREFIX@", &place)))
        .collect();
    let foreign = places.iter().filter(|link| !is_ours(link, &program));
    let foreign = foreign
        .chain(files.iter().filter(|(file, text)| !is_written(file, text)).map(|(file, _)| file));
    if let Some(foreign) = foreign.map(|path| path.display().to_string()).next() {
        return Err(Diagnostic::error(format!("{foreign} is not a file of mfserv"))
            .kind(Kind::Refused)
            .because("it would be overwritten; nothing was written")
            .help("choose another directory, or move it away"));
    }
    let mut written = Written { links: places.len(), ..Written::default() };
    for dir in files.iter().filter_map(|(file, _)| file.parent()).chain([bin.as_path()]) {
        disk::create_dir(dir)?;
    }
    for link in places {
        if fs::read_link(&link).is_ok_and(|target| target == program) {
            continue;
        }
        disk::relink(&link, &program)?;
        written.changed.push(link);
    }
    for (file, text) in files {
        if fs::read_to_string(&file).is_ok_and(|there| there == text) {
            continue;
        }
        disk::write(&file, text.as_bytes())?;
        if text.starts_with("#!") {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
                .map_err(|e| disk::failed("write", &file, e))?;
        }
        written.changed.push(file);
    }
    Ok(written)
}

/// Nothing is there, or a link to this program or to another mfserv.
fn is_ours(link: &Path, program: &Path) -> bool {
    match fs::symlink_metadata(link) {
        Err(_) => true,
        Ok(found) if found.is_symlink() => fs::read_link(link).is_ok_and(|target| {
            target == program || target.file_name().is_some_and(|name| name == OURS)
        }),
        Ok(_) => false,
    }
}

/// Nothing is there, or a file that we have written.
fn is_written(file: &Path, text: &str) -> bool {
    let Ok(found) = fs::symlink_metadata(file) else { return true };
    let ours = |there: &str| there == text || has_mark(there);
    found.is_file() && fs::read_to_string(file).is_ok_and(|there| ours(&there))
}

/// The mark is in the first line, or after the `#!` line of a script.
fn has_mark(text: &str) -> bool {
    text.lines().take(2).any(|line| line.starts_with(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_are_written_once_and_again_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("mfserv");
        fs::write(&program, "").unwrap();
        let bin = folder.path().join("prefix/bin");
        let first = write(&bin, &program).unwrap();
        assert_eq!(first.changed.len(), first.links + SHARED.len());
        assert_eq!(write(&bin, &program).unwrap().changed, Vec::<PathBuf>::new());
        fs::remove_file(bin.join("plugins.list")).unwrap();
        assert_eq!(write(&bin, &program).unwrap().changed, [bin.join("plugins.list")]);
    }

    #[test]
    fn a_foreign_file_is_not_overwritten_and_then_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("mfserv");
        fs::write(&program, "").unwrap();
        for name in ["bin/plugins.list", "share/profile", "opt/python3/bin/python"] {
            let prefix = tempfile::tempdir().unwrap();
            let foreign = prefix.path().join(name);
            fs::create_dir_all(foreign.parent().unwrap()).unwrap();
            fs::write(&foreign, "mine").unwrap();
            let bin = prefix.path().join("bin");
            assert_eq!(write(&bin, &program).unwrap_err().kind, Kind::Refused);
            assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");
            assert_eq!(fs::read_dir(foreign.parent().unwrap()).unwrap().count(), 1);
        }
        assert_eq!(write(folder.path(), &program).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn every_shared_file_says_who_wrote_it() {
        let mut others = SHARED.iter().filter(|(_, text)| !has_mark(text));
        // A label has one line, by which it is recognised.
        assert!(others.all(|(path, _)| path.ends_with(".layerapi2_label")));
    }
}
