//! A plugin runs from its directory while it is written: what is saved is served, what is
//! broken is shown, and no request is lost.

mod builds;
mod command;
mod edits;
mod files;
mod killed;
pub mod link;
mod live;
mod terminal;

use std::path::{Path, PathBuf};

use mfserv_core::event::Fact;
use mfserv_testkit::{Client, Method, Node, Plugin, Response, programs, until, until_some};

use crate::PATIENCE;

/// A plugin of one Python app with two workers, watched for `*.py` but in `ignored/`.
fn watched(name: &str) -> Plugin {
    let code = programs::SERVES.replace("\"hello from \"", "\"first edition of \"");
    Plugin::python(name, &code)
        .key("app_main", "numprocesses", "2")
        .file(".autorestart_includes", "*.py\n*.ini\n")
        .file(".autorestart_excludes", "/ignored\n__pycache__\n")
}

/// Its code with another edition.
fn edition(number: &str) -> String {
    programs::SERVES.replace("\"hello from \"", &format!("\"{number} edition of \""))
}

/// Writes beside and renames, as editors do.
fn save(path: &Path, text: &str) {
    let beside = path.with_extension("swp");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[track_caller]
fn until_served(node: &Node, plugin: &str, what: &str) {
    until(&format!("{plugin} serves {what:?}"), PATIENCE, || {
        node.get(&format!("/{plugin}")).text().starts_with(what)
    });
}

/// How often the workers of a plugin have been renewed.
fn renewals(node: &Node, plugin: &str) -> usize {
    let facts = node.events().into_iter().map(|event| event.fact);
    facts.filter(|fact| matches!(fact, Fact::Renewed { plugin: of, .. } if of == plugin)).count()
}

#[track_caller]
fn until_renewed(node: &Node, plugin: &str, times: usize) {
    until(&format!("{plugin} is renewed {times} times"), PATIENCE, || {
        renewals(node, plugin) >= times
    });
}

/// The problems that have been recorded, as people see them.
fn problems(node: &Node) -> Vec<String> {
    let facts = node.events().into_iter().map(|event| event.fact);
    let problems = facts.filter_map(|fact| match fact {
        Fact::Problem { problem } | Fact::NotRenewed { problem, .. } => Some(problem.to_string()),
        _ => None,
    });
    problems.collect()
}

#[track_caller]
fn until_said(node: &Node, what: &str) -> String {
    until_some(&format!("{what:?} is said"), PATIENCE, || {
        problems(node).into_iter().find(|problem| problem.contains(what))
    })
}

/// A running node with one watched plugin, and its directory.
fn developing(plugin: &Plugin) -> (Node, PathBuf) {
    let node = crate::node();
    let dir = node.add(plugin);
    node.start();
    (node, dir)
}

/// A GET with some fields.
#[track_caller]
fn get_with(node: &Node, path: &str, fields: &[(&str, &str)]) -> Response {
    let answer = Client::new(node.address()).ask(Method::Get, path, fields, b"");
    answer.unwrap_or_else(|broken| panic!("GET {path}: {broken}"))
}
