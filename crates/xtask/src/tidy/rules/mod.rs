//! The rules, one a file.

mod channels;
mod compatibility;
pub mod dependencies;
mod documented;
mod exceptions;
mod layers;
mod links;
mod processes;
mod pure;
pub mod sizes;
mod sleeps;
mod words;

use super::{Finding, Tree};

/// Every rule that needs nothing but the files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let rules = [
        layers::check,
        documented::check,
        compatibility::check,
        links::check,
        words::check,
        sizes::check,
    ];
    let of_a_source =
        [pure::check, processes::check, exceptions::check, channels::check, sleeps::check];
    let mut findings: Vec<Finding> = rules.iter().flat_map(|rule| rule(tree)).collect();
    for source in &tree.sources {
        findings.extend(of_a_source.iter().flat_map(|rule| rule(source)));
    }
    findings
}
