//! `Procfile`: lines `NAME: COMMAND`. `web` answers requests, `release` runs once before a
//! release serves, `cron…` are jobs whose line begins with the five fields of a schedule, all
//! others run beside the app.

use super::{Evidence, Finding, Listing, Program, SAID, Web};

const FILE: &str = "Procfile";

/// The lines of a Procfile: number, name, command.
fn lines(listing: &Listing) -> Vec<(usize, &str, &str)> {
    let text = listing.text(FILE).unwrap_or_default();
    let named = (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.trim();
        let (name, command) = line.split_once(':').filter(|_| !line.starts_with('#'))?;
        let (name, command) = (name.trim(), command.trim());
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let usable = !name.is_empty() && name.chars().all(good) && !command.is_empty();
        usable.then_some((number, name, command))
    });
    named.collect()
}

pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let lines = lines(listing);
    let Some((number, ..)) = lines.first().copied() else { return Vec::new() };
    let web = lines.iter().find(|(_, name, _)| *name == "web");
    let (rank, evidence) = match web {
        Some((number, _, command)) => {
            (SAID, Evidence::new(FILE, *number, format!("has web: {}", short(command))))
        }
        // It says what runs beside an app that other rules may find.
        None => (super::PROGRAM, Evidence::new(FILE, number, "has programs, and no web")),
    };
    let web = web.map(|(_, _, command)| Web::Command((*command).to_string()));
    let mut finding = Finding::new("procfile", "programs of a Procfile", rank, web);
    finding.evidence.push(evidence);
    vec![finding]
}

/// Adds to any reading what a Procfile has beside `web`.
pub(super) fn add_others(finding: &mut Finding, listing: &Listing) {
    for (number, name, command) in lines(listing) {
        if name == "web" {
            continue;
        }
        let says = |what: &str| Evidence::new(FILE, number, format!("has {what} {name}"));
        if name == "release" {
            finding.evidence.push(Evidence::new(FILE, number, "has release"));
            // What somebody wrote goes before what we would do.
            finding.release = vec![command.to_string()];
            continue;
        }
        let (schedule, line) = match name.starts_with("cron") {
            true => schedule(command).map_or((None, command), |(when, line)| (Some(when), line)),
            false => (None, command),
        };
        finding.evidence.push(says(if schedule.is_some() { "the job" } else { "the program" }));
        finding.programs.push(Program {
            name: name.replace('-', "_"),
            line: line.to_string(),
            schedule,
        });
    }
}

/// The five fields of a schedule, or `@daily`, and the command after them.
fn schedule(line: &str) -> Option<(String, &str)> {
    let of_a_schedule =
        |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || "*/,-@".contains(c));
    let count = if line.starts_with('@') { 1 } else { 5 };
    let mut rest = line;
    let mut fields = Vec::new();
    for _ in 0..count {
        let (field, after) = rest.split_once(char::is_whitespace)?;
        fields.push(field);
        rest = after.trim_start();
    }
    let good = fields.iter().all(|field| of_a_schedule(field)) && !rest.is_empty();
    good.then(|| (fields.join(" "), rest))
}

/// The beginning of a line.
pub(super) fn short(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.into(),
    }
}
