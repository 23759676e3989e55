//! Lists of Python packages, and which framework they name.

use mfserv_core::Diagnostic;

use super::{Evidence, Listing};

/// Where the Python packages of an app are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonPackages {
    /// The list that is used; `None` if there is none.
    pub file: Option<String>,
    /// Lists of which none is known to be that of a server.
    choices: Vec<String>,
    /// The directory of the list, below the app's: empty, or that of the app's modules.
    pub dir: String,
    /// The framework that it names, and where.
    pub(super) evidence: Vec<Evidence>,
}

/// The lists that are used, the best first: a lock is what the author has tried.
const USED: &[&str] = &["uv.lock", "poetry.lock", "Pipfile.lock", "requirements.txt", PROJECT];
/// It may be there for the options of tools alone: lists of packages go first.
const PROJECT: &str = "pyproject.toml";
/// A directory with a list for each purpose.
const BY_PURPOSE: &str = "requirements";
/// What the list for servers is called there.
const FOR_SERVERS: &[&str] = &["production.txt", "prod.txt"];
/// The list that the others begin with.
const FOR_ALL: &str = "base.txt";
/// Lists that are for no server.
const FOR_WORK: &[&str] = &[
    "ci.txt",
    "dev.txt",
    "develop.txt",
    "development.txt",
    "doc.txt",
    "docs.txt",
    "lint.txt",
    "local.txt",
    "test.txt",
    "testing.txt",
    "tests.txt",
];
/// Lists of other tools, and the command that makes one that is used.
const OTHERS: &[(&str, &str)] = &[
    ("Pipfile", "pipenv lock"),
    ("pdm.lock", "pdm export -o requirements.txt"),
    ("pylock.toml", "uv pip freeze > requirements.txt"),
    ("environment.yml", "pip list --format=freeze > requirements.txt"),
    ("conda-lock.yml", "pip list --format=freeze > requirements.txt"),
];
/// Frameworks by the name of their package, and what people call them.
const FRAMEWORKS: &[(&str, &str)] = &[
    ("django", "Django"),
    ("fastapi", "FastAPI"),
    ("flask", "Flask"),
    ("quart", "Quart"),
    ("litestar", "Litestar"),
    ("starlette", "Starlette"),
    ("falcon", "Falcon"),
    ("bottle", "Bottle"),
    ("dash", "Dash"),
    ("pyramid", "Pyramid"),
    ("sanic", "Sanic"),
];

/// How many directories below the app's may hold a project with a list of its own.
pub(super) const MANAGED_BELOW: usize = 2;

/// The list of Python packages, for modules in this directory (`root`); `None` if the app has neither a
/// list nor a module.
pub(super) fn python_packages(listing: &Listing, root: &str) -> Option<PythonPackages> {
    let (mut file, mut dir, mut choices) = (None, "", Vec::new());
    let below = (!root.is_empty()).then_some(root);
    for place in [""].into_iter().chain(below) {
        let (used, several) = list_in(listing, place);
        choices.extend(several.into_iter().map(|file| in_dir(place, &file)));
        if used.is_some() {
            (file, dir) = (used, place);
            break;
        }
    }
    if file.is_none() && listing.ending(".py").next().is_none() {
        return None;
    }
    let evidence = framework_in(listing, dir).map(|(evidence, _)| evidence);
    let (dir, evidence) = (dir.into(), evidence.into_iter().collect());
    Some(PythonPackages { file, choices, dir, evidence })
}

/// The list in a directory, and those of which one would have to be chosen.
fn list_in(listing: &Listing, dir: &str) -> (Option<String>, Vec<String>) {
    let has = |file: &&&str| listing.has(&in_dir(dir, file));
    if let Some(file) = USED.iter().filter(|file| **file != PROJECT).find(has) {
        return (Some(file.to_string()), Vec::new());
    }
    let mut others = by_purpose(listing, dir);
    others.retain(|name| !FOR_WORK.contains(name));
    let of = |names: &[&str]| -> Vec<&str> {
        others.iter().copied().filter(|name| names.contains(name)).collect()
    };
    let has_project = listing.has(&in_dir(dir, PROJECT));
    match (&of(FOR_SERVERS)[..], &of(&[FOR_ALL])[..], &others[..]) {
        ([one], _, _) | ([], [one], _) => (Some(format!("{BY_PURPOSE}/{one}")), Vec::new()),
        // What a list of another name is for is not known.
        _ if has_project => (Some(PROJECT.to_string()), Vec::new()),
        ([], [], [one]) => (Some(format!("{BY_PURPOSE}/{one}")), Vec::new()),
        // Also none: those for work alone say that the app itself needs nothing.
        _ => (None, others.iter().map(|name| format!("{BY_PURPOSE}/{name}")).collect()),
    }
}

/// The lists in `requirements/`, by name.
fn by_purpose<'a>(listing: &'a Listing, dir: &str) -> Vec<&'a str> {
    let below = in_dir(dir, &format!("{BY_PURPOSE}/"));
    let all = listing.ending(".txt").filter_map(|(path, _)| path.strip_prefix(&below));
    all.filter(|name| !name.contains('/')).collect()
}

pub(super) fn in_dir(dir: &str, file: &str) -> String {
    if dir.is_empty() { file.into() } else { format!("{dir}/{file}") }
}

/// A list of Python packages, wherever it lies.
pub(super) fn is_list(path: &str) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let by_purpose = name.ends_with(".txt") && dir.rsplit('/').next() == Some(BY_PURPOSE);
    (USED.contains(&name) || by_purpose) && dir.split('/').count() <= MANAGED_BELOW
}

/// The framework that the list of a module names: the one in its directory, or else further up.
pub(super) fn framework_of(listing: &Listing, module: &str) -> Option<&'static str> {
    let dirs = module.match_indices('/').map(|(end, _)| &module[..end]).rev();
    let mut named = dirs.chain([""]).filter_map(|dir| framework_in(listing, dir));
    named.next().map(|(_, title)| title)
}

/// The first framework that a list of this directory names.
fn framework_in(listing: &Listing, dir: &str) -> Option<(Evidence, &'static str)> {
    // What a list for servers begins with is in another one.
    let by_purpose = by_purpose(listing, dir).into_iter().map(|one| format!("{BY_PURPOSE}/{one}"));
    let files = ["requirements.txt", PROJECT, "uv.lock", "poetry.lock", "Pipfile.lock"];
    for file in files.into_iter().map(str::to_string).chain(by_purpose) {
        let file = &in_dir(dir, &file);
        let lines: Vec<(usize, String)> = (1..)
            .zip(listing.text(file).unwrap_or_default().lines())
            .map(|(number, line)| (number, line.trim().to_ascii_lowercase()))
            .collect();
        for (package, title) in FRAMEWORKS {
            if let Some((number, _)) = lines.iter().find(|(_, line)| names(line, package)) {
                return Some((Evidence::new(file, *number, format!("names {title}")), title));
            }
        }
    }
    None
}

/// Whether a line of a list, in lower case, names this package.
fn names(line: &str, package: &str) -> bool {
    let line = line.strip_prefix("name = ").unwrap_or(line);
    let line = line.strip_prefix("dependencies = [").unwrap_or(line).trim_start();
    let mut items = line.split(',').map(|item| item.trim().trim_start_matches(['"', '\'']));
    items.any(|item| {
        item.strip_prefix(package).is_some_and(|rest| {
            !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c))
        })
    })
}

/// `version` of `pyproject.toml`, if it is written there.
pub(super) fn version(listing: &Listing) -> Option<String> {
    let text = listing.text("pyproject.toml")?;
    let mut lines = text.lines().skip_while(|line| line.trim() != "[project]").skip(1);
    let line = lines.by_ref().take_while(|line| !line.starts_with('['));
    let mut named = line.filter_map(|line| line.trim().strip_prefix("version"));
    let value = named.next()?.trim_start().strip_prefix('=')?.trim();
    Some(value.trim_matches(['"', '\'']).to_string())
}

/// Refuses an app whose packages are only in a list that is not read, or in one of several; says
/// how to make one that is.
pub fn other_lists(listing: &Listing, packages: &PythonPackages) -> Result<(), Diagnostic> {
    if packages.file.is_some() {
        return Ok(());
    }
    let unknown = Diagnostic::error("the Python packages of the app are not known")
        .kind(mfserv_core::Kind::BadConfiguration);
    if let Some(first) = packages.choices.first() {
        return Err(unknown
            .because(format!("there are several lists: {}", packages.choices.join(", ")))
            .help(format!(
                "a file requirements.txt with the line `-r {first}` chooses one; \
                 {BY_PURPOSE}/{} and {BY_PURPOSE}/{FOR_ALL} need none",
                FOR_SERVERS[0]
            )));
    }
    let Some((file, command)) = OTHERS.iter().find(|(file, _)| listing.has(file)) else {
        return Ok(());
    };
    Err(unknown
        .because(format!("{file} is not read"))
        .help(format!("`{command}` writes a list that is read ({})", USED.join(", "))))
}
