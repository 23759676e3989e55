//! Web apps in Python sources. Lines at the left border are read: an app is a name of its
//! module. Nothing is imported.

use super::packages::framework;
use super::procfile::short;
use super::{Evidence, Finding, Interface, Listing, SERVER, Web};

/// What makes an app: the callable, the interface of what it returns, its name for people.
const MAKERS: &[(&str, Interface, &str)] = &[
    ("Flask", Interface::Wsgi, "Flask"),
    ("FastAPI", Interface::Asgi, "FastAPI"),
    ("Starlette", Interface::Asgi, "Starlette"),
    ("Quart", Interface::Asgi, "Quart"),
    ("Litestar", Interface::Asgi, "Litestar"),
    ("Bottle", Interface::Wsgi, "Bottle"),
    ("falcon.App", Interface::Wsgi, "Falcon"),
    ("falcon.asgi.App", Interface::Asgi, "Falcon"),
    ("make_wsgi_app", Interface::Wsgi, "Pyramid"),
    ("get_wsgi_application", Interface::Wsgi, "Django"),
    ("get_asgi_application", Interface::Asgi, "Django"),
];
/// Functions that make an app when they are called.
const FACTORIES: &[&str] = &["create_app", "make_app", "get_app"];
/// Modules that have the app, by what people call them; others come later.
const MODULES: &[&str] = &["wsgi", "asgi", "app", "main", "application", "server", "run", "api"];
/// Names of apps in their module.
const NAMES: &[&str] = &["app", "application", "server", "api", "asgi_app", "wsgi_app"];

/// An app in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    file: String,
    line: usize,
    text: String,
    callable: String,
    interface: Interface,
    title: &'static str,
    how: How,
}

/// How a module has its app; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    /// It is made, or is a function, here.
    Made,
    /// It comes from another module.
    Imported,
    /// A function makes it.
    Factory,
}

pub(super) fn find_django(listing: &Listing) -> Vec<Finding> {
    let Some(text) = listing.text("manage.py").filter(|text| text.contains("django")) else {
        return Vec::new();
    };
    let line = (1..).zip(text.lines()).find(|(_, line)| line.contains("DJANGO_SETTINGS_MODULE"));
    let settings = line.and_then(|(_, line)| line.split(['"', '\'']).nth(3));
    let Some(settings) = settings else { return Vec::new() };
    let project = settings.split('.').next().unwrap_or(settings);
    let module = |name: &str| listing.has(&format!("{project}/{name}.py"));
    let interface = match (module("wsgi"), module("asgi")) {
        (true, _) => Interface::Wsgi,
        (false, true) => Interface::Asgi,
        (false, false) => return Vec::new(),
    };
    let file = if interface == Interface::Wsgi { "wsgi" } else { "asgi" };
    let web = Web::Python {
        interface,
        module: format!("{project}.{file}"),
        callable: "application".into(),
        is_factory: false,
        root: String::new(),
        is_django: true,
    };
    let mut finding = Finding::new("django", "a Django project", SERVER, Some(web));
    let number = line.map_or(0, |(number, _)| number);
    finding.evidence.push(Evidence::new("manage.py", number, format!("names {settings}")));
    finding.release.push("python manage.py migrate --noinput".into());
    let files = listing.ending(".py").filter(|(path, _)| path.starts_with(&format!("{project}/")));
    for (path, text) in files.filter(|(path, _)| path.contains("settings")) {
        let assigned = |line: &str| line.trim_start().starts_with("STATIC_ROOT");
        if text.lines().any(assigned) {
            finding.release.push("python manage.py collectstatic --noinput".into());
        }
        if let Some((line, name)) = database(text) {
            finding.evidence.push(Evidence::new(path, line, format!("keeps its data in {name}")));
            finding.persistent.push(name);
        }
    }
    vec![finding]
}

/// The file of SQLite beside `manage.py` that settings name.
fn database(text: &str) -> Option<(usize, String)> {
    (1..).zip(text.lines()).find_map(|(number, line)| {
        let named = line.contains("NAME").then(|| {
            let mut words = line.split(['"', '\'']).rev();
            words.find(|word| word.ends_with(".sqlite3") || word.ends_with(".db"))
        });
        let name = named.flatten()?.trim_start_matches("./");
        let inside = !name.starts_with('/') && !name.contains("..") && !name.contains([' ', ';']);
        inside.then(|| (number, name.to_string()))
    })
}

pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let is_django = !find_django(listing).is_empty();
    let package = framework(listing);
    let sources = listing.ending(".py").filter(|(path, _)| may_have_an_app(path));
    let found =
        sources.filter_map(|(path, text)| app_in(path, text, package.as_ref().map(|p| p.1)));
    let mut found: Vec<Found> = found.filter(|one| !is_django || one.title != "Django").collect();
    found.sort_by_key(|one| (depth(&one.file), one.how, rank(&one.file)));
    let Some(first) = found.first().cloned() else { return Vec::new() };
    // wsgi.py and asgi.py are there to be served, whatever else makes an app.
    let entry =
        found.iter().find(|one| rank(&one.file) < 2 && depth(&one.file) == depth(&first.file));
    let meant: Vec<Found> = match entry {
        Some(entry) => vec![entry.clone()],
        None => {
            let alike =
                |one: &&Found| depth(&one.file) == depth(&first.file) && one.how == first.how;
            let known = |one: &&Found| rank(&one.file) < MODULES.len();
            let alike: Vec<Found> = found.iter().filter(alike).cloned().collect();
            match alike.iter().any(|one| known(&one)) {
                true => alike.into_iter().filter(|one| known(&one)).collect(),
                false => alike,
            }
        }
    };
    let others = found.iter().filter(|one| !meant.contains(one));
    let meant = meant.iter().map(|one| finding(one, SERVER));
    // They can be chosen, and are not asked about.
    meant.chain(others.map(|one| finding(one, super::PROGRAM + 1))).collect()
}

fn finding(found: &Found, rank: u8) -> Finding {
    let (root, module) = module_of(&found.file);
    let choice = format!("{module}:{}", found.callable);
    let web = Web::Python {
        interface: found.interface,
        module,
        callable: found.callable.clone(),
        is_factory: found.how == How::Factory,
        root: root.into(),
        is_django: false,
    };
    let mut finding = Finding::new(&choice, &format!("a {} app", found.title), rank, Some(web));
    let says = format!("has {}", short(&found.text));
    finding.evidence.push(Evidence::new(&found.file, found.line, says));
    finding
}

fn may_have_an_app(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    !name.starts_with("test_") && !["conftest.py", "setup.py", "manage.py"].contains(&name)
}

fn depth(file: &str) -> usize {
    let file = file.strip_prefix("src/").unwrap_or(file);
    // A package is beside the modules of its directory.
    file.strip_suffix("/__init__.py").unwrap_or(file).split('/').count()
}

/// How usual a module is for an app: the index in [`MODULES`].
fn rank(file: &str) -> usize {
    let stem = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".py");
    MODULES.iter().position(|name| *name == stem).unwrap_or(MODULES.len())
}

/// Where a module is imported from, and its name.
fn module_of(file: &str) -> (&'static str, String) {
    let (root, file) = match file.strip_prefix("src/") {
        Some(below) => ("src", below),
        None => ("", file),
    };
    let path = file.trim_end_matches(".py");
    let path = path.strip_suffix("/__init__").unwrap_or(path);
    (root, path.replace('/', "."))
}

/// The best app of a source.
fn app_in(file: &str, text: &str, package: Option<&'static str>) -> Option<Found> {
    let mut best: Option<Found> = None;
    for (line, code) in code_lines(text) {
        let Some(mut found) = app_of(file, code, package) else { continue };
        found.line = line;
        let better = best.as_ref().is_none_or(|best| {
            let order = |one: &Found| {
                let name = NAMES.iter().position(|name| *name == one.callable);
                (one.how, name.unwrap_or(NAMES.len()))
            };
            order(&found) < order(best)
        });
        if better {
            best = Some(found);
        }
    }
    best
}

/// Lines at the left border, with their numbers; texts in triple quotes are no code.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut quote: Option<&str> = None;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let inside = quote.is_some();
        for mark in ["\"\"\"", "'''"] {
            if quote.is_none_or(|open| open == mark) && line.matches(mark).count() % 2 == 1 {
                quote = if quote.is_some() { None } else { Some(mark) };
            }
        }
        !inside && line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    })
}

fn app_of(file: &str, code: &str, package: Option<&'static str>) -> Option<Found> {
    let found = |callable: &str, interface, title, how| Found {
        file: file.into(),
        line: 0,
        text: code.into(),
        callable: callable.into(),
        interface,
        title,
        how,
    };
    if let Some(rest) = code.strip_prefix("def ") {
        let name = rest.split('(').next().unwrap_or_default();
        if FACTORIES.contains(&name) && has_defaults(rest) {
            let (interface, title) = by_package(package);
            return Some(found(name, interface, title, How::Factory));
        }
        let is_wsgi = rest.contains("environ") && rest.contains("start_response");
        let named = NAMES.contains(&name);
        return (is_wsgi && named).then(|| found(name, Interface::Wsgi, "WSGI", How::Made));
    }
    if let Some(rest) = code.strip_prefix("async def ") {
        let name = rest.split('(').next().unwrap_or_default();
        let is_asgi = ["scope", "receive", "send"].iter().all(|word| rest.contains(word));
        let named = NAMES.contains(&name);
        return (is_asgi && named).then(|| found(name, Interface::Asgi, "ASGI", How::Made));
    }
    if let Some((_, names)) =
        code.strip_prefix("from ").and_then(|rest| rest.split_once(" import "))
    {
        let (interface, title) = match rank(file) {
            0 => (Interface::Wsgi, "WSGI"),
            1 => (Interface::Asgi, "ASGI"),
            _ => return None,
        };
        let mut bound = names.split(',').filter_map(|name| name.split_whitespace().last());
        let name = bound.find(|name| NAMES.contains(name))?;
        return Some(found(name, interface, title, How::Imported));
    }
    let (name, value) = code.split_once('=')?;
    let name = name.split(':').next().unwrap_or(name).trim();
    let value = value.trim();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    if name == "server" && value == "app.server" {
        return Some(found(name, Interface::Wsgi, "Dash", How::Made));
    }
    let called = value.split('(').next().filter(|_| value.contains('('))?;
    let last = called.rsplit('.').next().unwrap_or(called);
    let maker = MAKERS.iter().find(|(maker, ..)| *maker == called || *maker == last);
    if let Some((_, interface, title)) = maker {
        return Some(found(name, *interface, title, How::Made));
    }
    let made = FACTORIES.contains(&last) && NAMES.contains(&name);
    let (interface, title) = by_package(package);
    made.then(|| found(name, interface, title, How::Made))
}

/// Whether a function can be called without arguments: `create_app(config=None)`.
fn has_defaults(signature: &str) -> bool {
    let arguments = signature.split_once('(').map_or("", |(_, rest)| rest);
    let arguments = arguments.rsplit_once(')').map_or(arguments, |(arguments, _)| arguments);
    let mut named = arguments.split(',').map(str::trim).filter(|one| !one.is_empty());
    named.all(|one| one.contains('=') || one.starts_with('*'))
}

/// The interface of an app that only a function knows, by the framework that is installed.
fn by_package(package: Option<&'static str>) -> (Interface, &'static str) {
    match package {
        Some(title @ ("FastAPI" | "Starlette" | "Quart" | "Litestar")) => (Interface::Asgi, title),
        Some(title) => (Interface::Wsgi, title),
        None => (Interface::Wsgi, "WSGI"),
    }
}
