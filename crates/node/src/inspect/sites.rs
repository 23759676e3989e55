//! What is wrong with the static files of apps: rules that are not obeyed, pages that are not there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use mfserv_core::diagnostic::Location;
use mfserv_core::plan::Loaded;
use mfserv_core::plugin_spec::AppSpec;
use mfserv_core::route::Symlinks;
use mfserv_core::route::redirects::{FILE, FILE_MAX, Redirects};
use mfserv_core::{Diagnostic, Kind};
use mfserv_front::embedded::opening::{self, Effort, Found};

/// So many lines of a file are named, the others are counted.
const NAMED_MAX: usize = 20;

/// The problems of a plugin in this directory. Files are opened as the front does, so that nothing waits
/// and links lead as far as there (`symlinks`).
pub(super) fn problems(dir: &Path, loaded: &Loaded, symlinks: Symlinks) -> Vec<Diagnostic> {
    let plugin = &loaded.spec.name;
    let mut all = Vec::new();
    for app in &loaded.spec.apps {
        let name = &app.command.name;
        let root = dir.join(name).join(app.static_directory.trim_start_matches('/'));
        let rules = if app.has_redirects() { bad_rules(&root, symlinks) } else { Vec::new() };
        for problem in missing_pages(&root, app, symlinks).into_iter().chain(rules) {
            let what = format!("{plugin}/{name}: {}", problem.what);
            all.push(Diagnostic { what, ..problem }.about(plugin));
        }
    }
    all
}

fn missing_pages(root: &Path, app: &AppSpec, symlinks: Symlinks) -> Vec<Diagnostic> {
    let open = |file: &str| opening::open(root, file, symlinks, Effort::Disk);
    let is_there = |file: &str| matches!(open(file), Ok(Found::File(..)));
    let missing = app.error_pages.iter().filter(|page| !is_there(&page.file));
    let warning = |file: &str| {
        Diagnostic::warning(format!("the page /{file} of _error_pages is not there"))
            .because(format!("there is no file {} that the front reads", root.join(file).display()))
            .help("make it, or correct _error_pages: until then clients see the usual page")
    };
    missing.map(|page| warning(&page.file)).collect()
}

fn bad_rules(root: &Path, symlinks: Symlinks) -> Vec<Diagnostic> {
    let file = root.join(FILE);
    let error = |what: String| Diagnostic::error(what).kind(Kind::BadConfiguration);
    let unread = |why: String| {
        vec![
            error(format!("{FILE} is not obeyed"))
                .because(format!("{}: {why}", file.display()))
                .help("make it an ordinary file that the user of mfserv may read"),
        ]
    };
    let open = match opening::open(root, FILE, symlinks, Effort::Disk) {
        Ok(Found::File(open, _)) => File::from(open),
        Ok(Found::Nothing) => return Vec::new(),
        Ok(Found::Directory) => return unread("it is a directory".into()),
        Ok(Found::Forbidden) => {
            let why = "its permissions forbid it, it is no ordinary file, or a link leads out of the \
                       site ([front] static_symlinks)";
            return unread(why.into());
        }
        Err(why) => return unread(why.to_string()),
    };
    let mut text = Vec::new();
    // One byte more than is obeyed: so it is said that the file is too long.
    if let Err(why) = open.take(FILE_MAX as u64 + 1).read_to_end(&mut text) {
        return unread(why.to_string());
    }
    let (_, wrong) = Redirects::parse(&text);
    let named = wrong.iter().take(NAMED_MAX).map(|one| {
        error(format!("a line of {FILE} is not obeyed"))
            .because(&one.reason)
            .at(Location::new(file.display().to_string(), one.line))
            .help(one.help)
    });
    let more = wrong.len().saturating_sub(NAMED_MAX);
    let more = (more > 0).then(|| error(format!("{more} more lines of {FILE} are not obeyed")));
    named.chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of the rules in a directory.
    fn said(root: &Path, symlinks: Symlinks) -> String {
        let all = bad_rules(root, symlinks);
        all.iter().map(|one| format!("{} {:?}\n", one.what, one.because)).collect()
    }

    #[test]
    fn rules_that_the_front_does_not_read_are_named_and_nothing_waits_for_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let (root, file) = (dir.path().join("site"), dir.path().join("site").join(FILE));
        std::fs::create_dir(&root).unwrap();
        assert_eq!(said(&root, Symlinks::Follow), "");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(said(&root, Symlinks::Follow).contains("it is no ordinary file"));
        std::fs::remove_file(&file).unwrap();
        std::fs::write(dir.path().join("rules"), "/a /b Country=fr\n").unwrap();
        std::os::unix::fs::symlink("../rules", &file).unwrap();
        assert!(said(&root, Symlinks::Follow).contains("conditions"));
        assert!(said(&root, Symlinks::Beneath).contains("a link leads out of the site"));
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "# a comment\n".repeat(FILE_MAX / 12 + 1)).unwrap();
        assert!(said(&root, Symlinks::Follow).contains("is longer than"));
    }
}
