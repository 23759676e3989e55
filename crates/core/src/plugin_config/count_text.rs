//! `numprocesses` of an override file, as `mfserv scale` writes it and takes it back.

use crate::diagnostic::{Diagnostic, Location};
use crate::ini::{Dialect, Document, parse};
use crate::layers::{assignments, merge};

use super::schema::PROCESSES;

/// The beginning of the comment above a line that `mfserv scale` has written. What stood there
/// before follows it.
const MARK: &str = "# by mfserv scale; before: ";
/// What the comment says when there was no such line.
const NOTHING: &str = "nothing";

/// The line that decides about the count of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountLine {
    /// The key as written, with its variant: `numprocesses[prod]`.
    pub key: String,
    /// Where it stands; `None` = nowhere.
    pub at: Option<Location>,
}

/// Which line of these files, the weakest first, decides about the count of a section.
pub fn count_line<'a>(
    documents: impl IntoIterator<Item = &'a Document>,
    section: &str,
    config_name: &str,
) -> CountLine {
    let all = documents.into_iter().flat_map(assignments);
    let values = merge(all.filter(|one| one.section == section), config_name);
    match values.into_iter().find(|value| value.key == PROCESSES.row.name) {
        Some(value) => CountLine { key: value.written, at: Some(value.origin.location()) },
        None => CountLine { key: PROCESSES.row.name.into(), at: None },
    }
}

/// The text of an override file with a count for a section. Every other line stays; the line that
/// is replaced is kept in a comment, for [`without_count`].
pub fn with_count(text: &str, section: &str, key: &str, count: u32) -> Result<String, Diagnostic> {
    let found = Found::new(text, section, key)?;
    let mut lines = found.lines;
    let assignment = format!("{key}={count}");
    match (found.header, found.key) {
        (_, Some(at)) if at.marked => drop(lines.splice(at.from..at.to, [assignment])),
        (_, Some(at)) => {
            let before = lines[at.from..at.to].iter().map(|line| line.trim());
            let mark = format!("{MARK}{}", before.collect::<Vec<_>>().join(" "));
            lines.splice(at.from..at.to, [mark, assignment]);
        }
        (Some(header), None) => {
            lines.splice(header + 1..header + 1, [format!("{MARK}{NOTHING}"), assignment]);
        }
        (None, None) => {
            if lines.last().is_some_and(|line| !line.trim().is_empty()) {
                lines.push(String::new());
            }
            lines.extend([format!("[{section}]"), format!("{MARK}{NOTHING}"), assignment]);
        }
    }
    Ok(joined(&lines))
}

/// The text without what [`with_count`] has written for a section; `None` if that is nothing.
pub fn without_count(text: &str, section: &str) -> Result<Option<String>, Diagnostic> {
    let document = parse(text, "override", Dialect::Plugin)?;
    let entries = document.section(section).map_or(&[][..], |section| &section.entries);
    let keys = entries.iter().map(|entry| entry.key.as_str());
    for key in keys.filter(|key| key.starts_with(PROCESSES.row.name)) {
        let found = Found::new(text, section, key)?;
        let Some(at) = found.key.filter(|at| at.marked) else { continue };
        let mut lines = found.lines;
        let before = lines[at.from - 1].trim().trim_start_matches(MARK).to_string();
        let back = Some(before).filter(|before| before != NOTHING);
        let restored = back.is_some();
        lines.splice(at.from - 1..at.to, back);
        if let Some(header) = found.header.filter(|_| !restored) {
            remove_if_empty(&mut lines, header);
        }
        return Ok(Some(joined(&lines)));
    }
    Ok(None)
}

/// Removes the header of a section that has no line.
fn remove_if_empty(lines: &mut Vec<String>, header: usize) {
    let rest = &lines[header + 1..];
    let next = rest.iter().position(|line| !line.trim().is_empty());
    if next.is_none_or(|next| rest[next].trim_start().starts_with('[')) {
        let end = next.map_or(lines.len(), |next| header + 1 + next);
        lines.drain(header..end);
        while next.is_none() && lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
    }
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Where a key of a section is in a text.
struct Found {
    lines: Vec<String>,
    /// The index of the section's header.
    header: Option<usize>,
    key: Option<Place>,
}

/// The lines of a key, continued ones included.
struct Place {
    from: usize,
    to: usize,
    /// The comment of `mfserv scale` is above them.
    marked: bool,
}

impl Found {
    fn new(text: &str, section: &str, key: &str) -> Result<Found, Diagnostic> {
        let document = parse(text, "override", Dialect::Plugin)?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let section = document.section(section);
        let entries = section.map_or(&[][..], |section| &section.entries);
        let place = entries.iter().find(|entry| entry.key == key).map(|entry| {
            let from = (entry.line as usize).saturating_sub(1);
            let more = lines[from + 1..].iter();
            let more = more.take_while(|l| l.starts_with([' ', '\t']) && !l.trim().is_empty());
            let marked = from > 0 && lines[from - 1].trim().starts_with(MARK);
            Place { from, to: from + 1 + more.count(), marked }
        });
        let header = section.map(|section| (section.line as usize).saturating_sub(1));
        Ok(Found { lines, header, key: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, file: &str) -> Document {
        parse(text, file, Dialect::Plugin).unwrap()
    }

    #[test]
    fn a_count_is_written_beside_everything_else_and_taken_back_without_a_trace() {
        for text in [
            "",
            "# mine\n[app_main]\n# how many\n# numprocesses=4\ntimeout=3\n",
            "[app_main]\nnumprocesses=2\n\n# the end\n",
            "[app_main]\ntimeout=3\nnumprocesses = 2\nmax_age=1\n[app_other]\nnumprocesses=7\n",
            "[app_other]\nnumprocesses=7\n",
            "[custom]\na=1\n  b\n[app_main]\n[app_other]\nnumprocesses=7\n",
        ] {
            let scaled = with_count(text, "app_main", "numprocesses", 5).unwrap();
            let documents = [document(text, "own"), document(&scaled, "override")];
            let line = count_line(&documents, "app_main", "GENERIC");
            let at = line.at.unwrap();
            assert_eq!(&*at.file, "override", "{scaled}");
            let number = at.line as usize;
            assert_eq!(scaled.lines().nth(number - 1), Some("numprocesses=5"), "{scaled}");
            for kept in text.lines().filter(|line| !line.starts_with("numprocesses")) {
                assert!(scaled.lines().any(|line| line == kept), "{kept:?} is lost: {scaled}");
            }
            let again = with_count(&scaled, "app_main", "numprocesses", 9).unwrap();
            assert_eq!(again, scaled.replace("numprocesses=5", "numprocesses=9"));
            if !text.contains("[app_main]\n[") {
                assert_eq!(without_count(&again, "app_main").unwrap().as_deref(), Some(text));
            }
        }
    }

    #[test]
    fn a_count_that_a_person_has_written_is_not_taken_back() {
        let text = "[app_main]\nnumprocesses=2\n";
        assert_eq!(without_count(text, "app_main").unwrap(), None);
        assert_eq!(without_count("", "app_main").unwrap(), None);
    }

    #[test]
    fn the_variant_that_decides_is_the_one_that_is_written() {
        let own = document("[app_main]\nnumprocesses=2\nnumprocesses[prod]=8\n", "own");
        let line = count_line([&own], "app_main", "prod_eu");
        assert_eq!((line.key.as_str(), line.at), ("numprocesses[prod]", Some(own.at(3))));
        let text = with_count("", "app_main", &line.key, 3).unwrap();
        let both = [own, document(&text, "override")];
        let line = count_line(&both, "app_main", "prod_eu");
        assert_eq!(line.at.map(|at| at.file.to_string()), Some("override".into()));
        assert_eq!(without_count(&text, "app_main").unwrap().as_deref(), Some(""));
        assert_eq!(count_line([], "app_main", "prod").at, None);
    }

    #[test]
    fn an_override_file_that_cannot_be_read_is_not_written() {
        with_count("[app_main\n", "app_main", "numprocesses", 3).unwrap_err();
        without_count("numprocesses=1\n", "app_main").unwrap_err();
    }
}
