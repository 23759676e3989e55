//! Where MFSERV's commands are put: links to this program, and what their shells and
//! makefiles read.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;

use super::COMMANDS;

/// The first words of each file that we write; a file without them is not ours.
const MARK: &str = "# Written by `mfserv setup --commands`";
/// Our own name, beside the others.
const OURS: &str = "mfserv";

/// What is read from `PREFIX/share`, by name.
const SHARED: &[(&str, &str)] = &[
    ("plugin.mk", include_str!("../../share/plugin.mk")),
    ("plugin_env.bashrc", include_str!("../../share/plugin_env.bashrc")),
    ("profile", include_str!("../../share/profile")),
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
    let share = prefix.join("share");
    let names = COMMANDS.iter().map(|(name, _)| *name).chain([OURS]);
    // Where the program itself is in `bin`, it is no link to itself.
    let places: Vec<PathBuf> =
        names.map(|name| bin.join(name)).filter(|link| *link != program).collect();
    let files: Vec<(PathBuf, String)> = SHARED
        .iter()
        .map(|(name, text)| (share.join(name), text.replace("@PREFIX@", &place)))
        .collect();
    let foreign = places.iter().filter(|link| !is_ours(link, &program));
    let foreign =
        foreign.chain(files.iter().map(|(file, _)| file).filter(|file| !is_written(file)));
    if let Some(foreign) = foreign.map(|path| path.display().to_string()).next() {
        return Err(Diagnostic::error(format!("{foreign} is not a file of mfserv"))
            .kind(Kind::Refused)
            .because("it would be overwritten; nothing was written")
            .help("choose another directory, or move it away"));
    }
    let mut written = Written { links: places.len(), ..Written::default() };
    for dir in [&bin, &share] {
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
fn is_written(file: &Path) -> bool {
    match fs::symlink_metadata(file) {
        Err(_) => true,
        Ok(found) => {
            found.is_file() && fs::read_to_string(file).is_ok_and(|text| text.starts_with(MARK))
        }
    }
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
        for name in ["bin/plugins.list", "share/profile"] {
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
        assert!(SHARED.iter().all(|(_, text)| text.starts_with(MARK)));
    }
}
