//! Where modules are imported from: `src`, or the directory that whoever starts the app goes into.

use super::Listing;

/// Where a module is imported from (empty for the directory itself), and its name.
///
/// `backend/app.py` is `app`, as after `cd backend`, unless something says that `backend` is a package:
/// its `__init__.py`, an import by that name, or an import of a module beside it (`from .models`).
pub(super) fn module_of(listing: &Listing, file: &str) -> (String, String) {
    let (root, file) = match file.strip_prefix("src/") {
        Some(below) => ("src".to_string(), below),
        None => entered(listing, file),
    };
    let path = file.trim_end_matches(".py");
    let path = path.strip_suffix("/__init__").unwrap_or(path);
    (root, path.replace('/', "."))
}

fn entered<'a>(listing: &Listing, file: &'a str) -> (String, &'a str) {
    let (mut root, mut rest) = (String::new(), file);
    while let Some((dir, below)) = rest.split_once('/') {
        let place = if root.is_empty() { dir.to_string() } else { format!("{root}/{dir}") };
        let is_known = listing.ending(".py").next().is_some();
        if !is_known || is_package(listing, &place, dir, !below.contains('/')) {
            break;
        }
        (root, rest) = (place, below);
    }
    (root, rest)
}

/// Whether the modules of a directory are imported by its name.
fn is_package(listing: &Listing, place: &str, name: &str, is_last: bool) -> bool {
    let sign = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if listing.has(&format!("{place}/__init__.py")) || !place.chars().all(|c| sign(c) || c == '/') {
        return true;
    }
    let names = |line: &str| {
        let line = line.trim_start();
        let module = line.strip_prefix("from ").or_else(|| line.strip_prefix("import "));
        module.is_some_and(|module| {
            let end =
                |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            module.strip_prefix(name).is_some_and(end)
        })
    };
    let inside = format!("{place}/");
    listing.ending(".py").any(|(path, text)| {
        let beside = is_last && path.strip_prefix(&inside).is_some_and(|it| !it.contains('/'));
        text.lines().any(|line| names(line) || beside && line.trim_start().starts_with("from ."))
    })
}
