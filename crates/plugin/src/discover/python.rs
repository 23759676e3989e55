//! Web apps in Python sources. Lines at the left border are read: an app is a name of its
//! module. Nothing is imported.

use super::packages::framework_of;
use super::procfile::short;
use super::roots::module_of;
use super::{Evidence, Finding, Interface, Listing, SERVER, Web, django};

/// What makes an app: the callable, the interface of what it returns, its name for people.
const MAKERS: &[(&str, Interface, &str)] = &[
    ("Flask", Interface::Wsgi, "Flask"),
    ("FastAPI", Interface::Asgi, "FastAPI"),
    ("Starlette", Interface::Asgi, "Starlette"),
    ("Quart", Interface::Asgi, "Quart"),
    ("Litestar", Interface::Asgi, "Litestar"),
    ("Sanic", Interface::Asgi, "Sanic"),
    ("Bottle", Interface::Wsgi, "Bottle"),
    ("bottle.default_app", Interface::Wsgi, "Bottle"),
    ("default_app", Interface::Wsgi, "Bottle"),
    ("falcon.App", Interface::Wsgi, "Falcon"),
    ("falcon.asgi.App", Interface::Asgi, "Falcon"),
    ("make_wsgi_app", Interface::Wsgi, "Pyramid"),
    ("get_wsgi_application", Interface::Wsgi, "Django"),
    ("get_asgi_application", Interface::Asgi, "Django"),
];
/// Functions that make an app when they are called.
const FACTORIES: &[&str] = &["create_app", "make_app", "get_app"];
/// Imports of frameworks whose apps only their own servers can run.
const OWN_SERVERS: &[&str] =
    &["tornado.web", "tornado import web", "aiohttp.web", "aiohttp import web"];
/// Modules that have the app, by what people call them; others come later.
pub(super) const MODULES: &[&str] =
    &["wsgi", "asgi", "app", "main", "application", "server", "run", "api"];
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

pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let is_django = !django::find(listing).is_empty();
    let sources = listing.ending(".py").filter(|(path, _)| may_have_an_app(path));
    let found =
        sources.filter_map(|(path, text)| app_in(path, text, || framework_of(listing, path)));
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
    let meant = meant.iter().map(|one| finding(listing, one, SERVER));
    // They can be chosen, and are not asked about.
    meant.chain(others.map(|one| finding(listing, one, super::PROGRAM + 1))).collect()
}

fn finding(listing: &Listing, found: &Found, rank: u8) -> Finding {
    let (root, module) = module_of(listing, &found.file);
    // What servers of others are told from the directory itself.
    let choice = format!("{}:{}", module_of(&Listing::default(), &found.file).1, found.callable);
    let web = Web::Python {
        interface: found.interface,
        module,
        callable: found.callable.clone(),
        is_factory: found.how == How::Factory,
        root,
        is_django: false,
    };
    let mut finding = Finding::new(&choice, &format!("a {} app", found.title), rank, Some(web));
    let says = format!("has {}", short(&found.text));
    finding.evidence.push(Evidence::new(&found.file, found.line, says));
    finding
}

pub(super) fn may_have_an_app(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    !name.starts_with("test_") && !["conftest.py", "setup.py", "manage.py"].contains(&name)
}

fn depth(file: &str) -> usize {
    let file = file.strip_prefix("src/").unwrap_or(file);
    // A package is beside the modules of its directory.
    file.strip_suffix("/__init__.py").unwrap_or(file).split('/').count()
}

/// How usual a module is for an app: the index in [`MODULES`].
pub(super) fn rank(file: &str) -> usize {
    let stem = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".py");
    MODULES.iter().position(|name| *name == stem).unwrap_or(MODULES.len())
}

/// The best app of a source.
fn app_in(file: &str, text: &str, package: impl Fn() -> Option<&'static str>) -> Option<Found> {
    let mut best: Option<Found> = None;
    let speaks_http = OWN_SERVERS.iter().any(|own| text.contains(own));
    for (line, code) in code_lines(text) {
        let Some(mut found) = app_of(file, code, &package) else { continue };
        // Apps of these are neither WSGI nor ASGI, whatever makes them.
        if speaks_http && found.title == "WSGI" && !code.contains("environ") {
            continue;
        }
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
pub(super) fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
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

fn app_of(file: &str, code: &str, package: &impl Fn() -> Option<&'static str>) -> Option<Found> {
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
            let (interface, title) = by_package(package());
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
    // Lists of packages are read only where it matters: nearly each line of a source comes here.
    (FACTORIES.contains(&last) && NAMES.contains(&name)).then(|| {
        let (interface, title) = by_package(package());
        found(name, interface, title, How::Made)
    })
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
