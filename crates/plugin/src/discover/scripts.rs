//! Python programs that are servers themselves: Tornado, aiohttp, `bottle.run`, `http.server`.

use super::procfile::short;
use super::python::{self, MODULES, code_lines, may_have_an_app, rank};
use super::{Evidence, Finding, Listing, PROGRAM, SERVER, Web, django};

/// What starts a server, at the border or indented: the end of a program.
const STARTS: &[&str] = &[
    ".run(",
    "run(",
    "run_app(",
    ".listen(",
    "serve(",
    ".launch(",
    "serve_forever(",
    "quickstart(",
    "make_server(",
    "HTTPServer(",
    "start_server(",
    "create_server(",
    "listenTCP(",
];
/// Packages whose programs are servers, by what is imported of them.
const SERVERS: &[&str] = &[
    "tornado",
    "aiohttp",
    "bottle",
    "sanic",
    "flask",
    "http",
    "wsgiref",
    "socketserver",
    "uvicorn",
    "hypercorn",
    "waitress",
    "gevent",
    "eventlet",
    "cherrypy",
    "twisted",
    "gradio",
    "nicegui",
    "robyn",
    "blacksheep",
    "socketify",
    "falcon",
    "web",
    "microdot",
    "websockets",
    "panel",
    "bjoern",
    "cheroot",
    "meinheld",
    "werkzeug",
    "granian",
    "emmett",
    "klein",
    "reflex",
    "socketio",
    "fasthtml",
];

pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let top = listing.ending(".py").filter(|(path, _)| !path.contains('/'));
    let sources = top.filter(|(path, _)| may_have_an_app(path) && is_plain(path));
    let mut found: Vec<Found> = sources.filter_map(|(path, text)| server_in(path, text)).collect();
    found.sort_by_key(|one| (!one.reads_port, rank(one.file)));
    let Some(first) = found.first().map(|one| (!one.reads_port, rank(one.file))) else {
        return Vec::new();
    };
    let (is_known, reads_port) = (first.1 < MODULES.len(), !first.0);
    let as_good = found.iter().filter(|one| one.reads_port == reads_port);
    let as_good = as_good.take(if is_known { 1 } else { usize::MAX });
    // What an app has for its author (`app.run()` at its end) can be chosen, and is not asked about.
    let has_app = !python::find(listing).is_empty() || !django::find(listing).is_empty();
    let rank = match (has_app, is_known || reads_port) {
        (true, _) => PROGRAM + 1,
        (false, true) => SERVER,
        (false, false) => PROGRAM,
    };
    as_good.map(|one| one.finding(rank)).collect()
}

/// A program that starts a server.
struct Found<'a> {
    file: &'a str,
    line: usize,
    text: &'a str,
    reads_port: bool,
}

impl Found<'_> {
    fn finding(&self, rank: u8) -> Finding {
        // What it prints is in the log at once.
        let web = Web::Command(format!("python -u {}", self.file));
        let title = "a Python program with a server of its own";
        let mut finding = Finding::new(self.file, title, rank, Some(web));
        finding.evidence.push(Evidence::new(
            self.file,
            self.line,
            format!("has {}", short(self.text)),
        ));
        finding
    }
}

/// It can be a word of a command.
fn is_plain(path: &str) -> bool {
    path.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

fn server_in<'a>(file: &'a str, text: &'a str) -> Option<Found<'a>> {
    let mut imports = code_lines(text).filter_map(|(_, line)| {
        let module = line.strip_prefix("import ").or_else(|| line.strip_prefix("from "))?;
        module.split([' ', '.', ',']).next()
    });
    let reads_port = text.contains("\"PORT\"") || text.contains("'PORT'");
    if !reads_port && !imports.any(|module| SERVERS.contains(&module)) {
        return None;
    }
    let starts = |line: &&(usize, &str)| {
        let code = line.1.trim_start();
        let is_code = !code.starts_with(['#', '@', '"', '\'']) && !code.starts_with("def ");
        is_code && STARTS.iter().any(|start| calls(code, start))
    };
    let lines: Vec<(usize, &str)> = (1..).zip(text.lines()).collect();
    // A library has such a line only inside of functions, and nothing at its end that calls them.
    let is_main = code_lines(text).any(|(_, line)| {
        line.starts_with("if __name__") || STARTS.iter().any(|start| calls(line, start))
    });
    let (line, text_of) = lines.iter().rev().find(starts).filter(|_| is_main)?;
    Some(Found { file, line: *line, text: text_of, reads_port })
}

/// Whether a line calls this: `run(` is not `dry_run(`.
fn calls(code: &str, start: &str) -> bool {
    code.match_indices(start).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        start.starts_with('.') || before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
    })
}
