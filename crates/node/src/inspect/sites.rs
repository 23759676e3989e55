//! What is wrong with the static files of apps: rules that are not obeyed, pages that are not there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use mfserv_core::diagnostic::Location;
use mfserv_core::plan::Loaded;
use mfserv_core::plugin_spec::AppSpec;
use mfserv_core::route::redirects::{FILE, FILE_MAX, Redirects};
use mfserv_core::{Diagnostic, Kind};

/// So many lines of a file are named, the others are counted.
const NAMED_MAX: usize = 20;

/// The problems of a plugin in this directory.
pub(super) fn problems(dir: &Path, loaded: &Loaded) -> Vec<Diagnostic> {
    let plugin = &loaded.spec.name;
    let mut all = Vec::new();
    for app in &loaded.spec.apps {
        let name = &app.command.name;
        let root = dir.join(name).join(app.static_directory.trim_start_matches('/'));
        let rules = if app.has_redirects() { bad_rules(&root.join(FILE)) } else { Vec::new() };
        for problem in missing_pages(&root, app).into_iter().chain(rules) {
            let what = format!("{plugin}/{name}: {}", problem.what);
            all.push(Diagnostic { what, ..problem }.about(plugin));
        }
    }
    all
}

fn missing_pages(root: &Path, app: &AppSpec) -> Vec<Diagnostic> {
    let missing = app.error_pages.iter().filter(|page| !root.join(&page.file).is_file());
    let warning = |file: &str| {
        Diagnostic::warning(format!("the page /{file} of _error_pages is not there"))
            .because(format!("there is no file {}", root.join(file).display()))
            .help("make it, or correct _error_pages: until then clients see the usual page")
    };
    missing.map(|page| warning(&page.file)).collect()
}

fn bad_rules(file: &Path) -> Vec<Diagnostic> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|open| open.take(FILE_MAX as u64).read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let (_, wrong) = Redirects::parse(&text);
    let error = |what: String| Diagnostic::error(what).kind(Kind::BadConfiguration);
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
