//! docs/compatibility.md has a row for all that MFSERV had (`contract.txt`), no row for anything else,
//! and what a row says is true of the commands and keys in the sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::source::{Kind, Source};
use crate::tidy::{Finding, Tree, markdown};

const PAGE: &str = "docs/compatibility.md";
const CONTRACT: &str = "crates/xtask/src/tidy/contract.txt";
const COMMANDS: &str = "crates/mfserv/src/compat.rs";
const MODULE: &str = "crates/core/src/keys/table.rs";
const PLUGIN: &str = "crates/core/src/plugin_config/schema.rs";

/// The second cell of a row.
const STATES: [&str; 3] = ["works", "differs", "refused"];
/// Commands that are there and are no name of this program.
const PROVIDED: &[&str] = &["make", "bjoern_wrapper.py"];
/// Sections and keys of the module that MFSERV had not.
const NEW_KEYS: &[&str] = &[
    "[front]",
    "[elasticsearch]",
    "[influxdb]",
    "[loki]",
    "[metrics]",
    "[python]",
    "[general] _python",
    "[python] legacy_layers",
    "[python] server",
    "[python] threads",
    "[python] asgi_server",
    "[autorestart] configuration",
    "[log] compress_rotated_files",
    "[log] max_total_size",
    "[log] journald",
    "[log] journald_socket",
    "[log] syslog",
    "[log] syslog_facility",
    "[circus] tcp_may_change",
    "[telegraf] agent",
    "[telegraf] program",
    "[telegraf] host",
];
/// Keys of plugins that MFSERV had not. (All keys of jobs are new.)
const NEW_PLUGIN_KEYS: &[&str] = &[
    "_python",
    "_persistent_paths",
    "_start_timeout",
    "_overlap",
    "_ready",
    "_requests_per_worker",
    "_max_body_size",
    "_keep_alive",
    "_hosts",
    "_strip_prefix",
    "_static_fallback",
    "_error_pages",
    "_sendfile_roots",
    "_affinity",
    "_python_server",
    "_python_threads",
    "_python_asgi_server",
    "memory_limit",
    "memory_high",
];
/// The rows of the schema of plugins, and the sections that have them.
const GROUPS: &[(&str, &[&str])] = &[
    ("GENERAL", &["general"]),
    ("COMMAND", &["app_NAME", "extra_daemon_NAME"]),
    ("APP", &["app_NAME"]),
    ("EXTRA", &["extra_daemon_NAME"]),
    ("INTERNAL", &["internal"]),
];

/// A row of the page: where it is, and what it says.
struct Row {
    line: usize,
    state: String,
}

/// The rows by the heading of their part (`## …`) and their name.
type Rows = BTreeMap<(String, String), Row>;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let (Some(page), Some(contract)) = (tree.text(PAGE), tree.text(CONTRACT)) else {
        return vec![Finding::new(PAGE, 1, format!("{PAGE} or {CONTRACT} is not there"))];
    };
    let mut findings = Vec::new();
    let rows = rows(page, &mut findings);
    findings.extend(against_contract(&rows, contract));
    for (path, check) in [
        (COMMANDS, commands as fn(&Source, &Rows) -> Vec<Finding>),
        (MODULE, module_keys),
        (PLUGIN, plugin_keys),
    ] {
        match tree.source(path) {
            Some(source) => findings.extend(check(source, &rows)),
            None => findings.push(Finding::new(path, 1, "there is no such file")),
        }
    }
    findings
}

/// Reads the rows of the page, each of which has three cells.
fn rows(page: &str, findings: &mut Vec<Finding>) -> Rows {
    let mut rows = Rows::new();
    let headings: Vec<(usize, &str)> =
        markdown::prose(page).filter(|(_, line)| line.starts_with('#')).collect();
    for (line, cells) in markdown::rows(page) {
        let above = headings.iter().filter(|(at, _)| *at < line);
        let part = above.clone().rfind(|(_, text)| text.starts_with("## "));
        let part = part.map_or("", |(_, text)| text.trim_start_matches("## "));
        let mut above = above;
        let last = above.next_back().map_or("", |(_, text)| text.trim_start_matches('#').trim());
        let [what, state, how] = &cells[..] else {
            findings.push(Finding::new(PAGE, line, "a row has three cells"));
            continue;
        };
        if !STATES.contains(&state.as_str()) || what.is_empty() || how.is_empty() {
            let text = format!("the cells are a name, one of {}, and how", STATES.join(", "));
            findings.push(Finding::new(PAGE, line, text));
        }
        for name in names(what) {
            // A key is named with its section.
            let name = if last.starts_with('[') { format!("{last} {name}") } else { name };
            rows.insert((part.to_string(), name), Row { line, state: state.clone() });
        }
    }
    rows
}

/// What stands between backticks, without arguments; else the whole cell.
fn names(cell: &str) -> Vec<String> {
    let codes: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    if codes.is_empty() {
        return vec![cell.to_string()];
    }
    let is_argument = |word: &&str| word.starts_with('[') || *word == word.to_uppercase();
    let named = codes.into_iter().map(|code| {
        let words: Vec<&str> = code.split(' ').collect();
        let kept = words[1..].iter().take_while(|word| !is_argument(word)).count();
        words[..=kept].join(" ")
    });
    named.collect()
}

/// `contract.txt` has the headings of the parts, and a name on each line below.
fn against_contract(rows: &Rows, contract: &str) -> Vec<Finding> {
    let (mut part, mut findings, mut wanted) = ("", Vec::new(), BTreeSet::new());
    for (index, line) in contract.lines().enumerate() {
        match line.strip_prefix("## ") {
            Some(heading) => part = heading,
            None if line.is_empty() || line.starts_with("# ") => {}
            None => {
                let name = (part.to_string(), line.to_string());
                if !rows.contains_key(&name) {
                    let text = format!("`{line}` has no row in {PAGE} below `## {part}`");
                    findings.push(Finding::new(CONTRACT, index + 1, text));
                }
                wanted.insert(name);
            }
        }
    }
    let more = rows.iter().filter(|(name, _)| !wanted.contains(name));
    let text = |name: &str| format!("`{name}` is not in {CONTRACT}: did MFSERV have it?");
    findings.extend(more.map(|((_, name), row)| Finding::new(PAGE, row.line, text(name))));
    findings
}

/// A row says "refused" of what is not there, and of nothing else.
fn agrees(row: &Row, name: &str, is_there: bool) -> Option<Finding> {
    let text = match (row.state == "refused", is_there) {
        (true, true) => format!("`{name}` is there, and its row says refused"),
        (false, false) => format!("`{name}` is not there, and its row says {}", row.state),
        _ => return None,
    };
    Some(Finding::new(PAGE, row.line, text))
}

fn commands(source: &Source, rows: &Rows) -> Vec<Finding> {
    let code = source.code();
    // (NAME, FUNCTION)
    let table: BTreeMap<String, (usize, bool)> = code
        .windows(8)
        .filter(|it| it[1].kind == Kind::Text)
        .filter(|it| [0, 2, 4, 5, 7].map(|at| it[at].text.as_str()) == ["(", ",", ":", ":", ")"])
        .map(|it| (it[1].text.clone(), (it[1].line, it[6].text != "instead")))
        .collect();
    let first = |name: &str| name.split(' ').next().unwrap_or_default().to_string();
    let known = rows.iter().filter(|((part, _), _)| part == "Commands");
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for ((_, name), row) in known {
        let command = first(name);
        // Only a part of the command is spoken of.
        let is_part = command != *name && row.state == "refused";
        let there = table.get(&command).is_some_and(|(_, there)| *there);
        let there = there || PROVIDED.contains(&command.as_str());
        findings.extend((!is_part).then(|| agrees(row, name, there)).flatten());
        named.insert(command);
    }
    let own = table.iter().filter(|(name, _)| !name.starts_with('_') && !named.contains(*name));
    let text = |name: &str| format!("`{name}` has no row in {PAGE}");
    findings.extend(own.map(|(name, (line, _))| Finding::new(COMMANDS, *line, text(name))));
    findings
}

fn module_keys(source: &Source, rows: &Rows) -> Vec<Finding> {
    let code = source.code();
    let keys = code.windows(6).filter(|it| {
        let is_key = it[2].kind == Kind::Text && it[4].kind == Kind::Text;
        it[0].kind == Kind::Word && it[1].text == "(" && it[3].text == "," && is_key
    });
    let keys = keys.map(|it| {
        let there = !["known", "unset"].contains(&it[0].text.as_str());
        (format!("[{}] {}", it[2].text, it[4].text), (it[2].line, there))
    });
    let is_new = |name: &String| {
        NEW_KEYS.contains(&name.as_str())
            || NEW_KEYS.iter().any(|new| new.ends_with(']') && name.starts_with(new))
    };
    compare(MODULE, "Keys of the module", keys.filter(|(name, _)| !is_new(name)).collect(), rows)
}

fn plugin_keys(source: &Source, rows: &Rows) -> Vec<Finding> {
    let code = source.code();
    let mut keys = BTreeMap::new();
    let mut sections: &[&str] = &[];
    for it in code.windows(3) {
        if it[0].kind == Kind::Word && it[1].text == "{" {
            let group = GROUPS.iter().find(|(name, _)| *name == it[0].text);
            sections = group.map_or(&[], |(_, sections)| sections);
        }
        let is_key = it[0].kind == Kind::Word && it[1].text == "(" && it[2].kind == Kind::Text;
        for section in sections.iter().filter(|_| is_key) {
            // "later" has no effect, or only a part of it.
            let there = it[0].text != "later" || it[2].text == "_gateway_interface_mode";
            if !NEW_PLUGIN_KEYS.contains(&it[2].text.as_str()) {
                keys.insert(format!("[{section}] {}", it[2].text), (it[2].line, there));
            }
        }
    }
    compare(PLUGIN, "Keys of a plugin", keys, rows)
}

/// Compares keys of a source (their lines, and whether they have an effect) with the rows of a part.
fn compare(
    path: &str,
    part: &str,
    keys: BTreeMap<String, (usize, bool)>,
    rows: &Rows,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if keys.is_empty() {
        findings.push(Finding::new(path, 1, format!("no key is found here for {PAGE}")));
    }
    let own = |name: &str| rows.get(&(part.to_string(), name.to_string()));
    for (name, (line, there)) in &keys {
        match own(name) {
            Some(row) => findings.extend(agrees(row, name, *there)),
            None => {
                let text = format!("`{name}` has no row in {PAGE}, and is not listed as new");
                findings.push(Finding::new(path, *line, text));
            }
        }
    }
    let is_key = |name: &str| GROUPS.iter().any(|(_, s)| s.iter().any(|s| in_section(name, s)));
    let gone = rows.iter().filter(|((of, name), _)| {
        let of_module = part == "Keys of the module";
        of == part && (of_module || is_key(name)) && !keys.contains_key(name)
    });
    let text = |name: &str| format!("`{name}` is no key of {path}");
    findings.extend(gone.map(|((_, name), row)| Finding::new(PAGE, row.line, text(name))));
    findings
}

fn in_section(name: &str, section: &str) -> bool {
    name.starts_with(&format!("[{section}] "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "## Commands\n| what | is | how |\n|---|---|---|\n| `a.start [X]` | works | as it was |\n\
        | `b`, `c NAME` | refused | why |\n\n## Keys of the module\n\n### [nginx]\n\n| what | is | how |\n|---|---|---|\n\
        | `port` | works | so |\n| `gone` | refused | why |\n\n## Keys of a plugin\n\n### [general]\n\n\
        | what | is | how |\n|---|---|---|\n| `_version` | works | so |\n";
    const WANTED: &str = "# head\n## Commands\na.start\nb\nc\n## Keys of the module\n[nginx] port\n\
        [nginx] gone\n## Keys of a plugin\n[general] _version\n";

    fn with(doc: &str, contract: &str, commands: &str) -> Vec<String> {
        let mut tree = Tree::default();
        let table = "keys! { A: B = port(\"nginx\", \"port\", X); _: () = known(\"nginx\", \"gone\", X);\n\
                     N: B = flag(\"front\", \"new\", X); }";
        let schema = "keys! { GENERAL { V: S = required(\"_version\", T); } }";
        for (path, text) in [(COMMANDS, commands), (MODULE, table), (PLUGIN, schema)] {
            tree.sources.push(Source::new(path, text));
        }
        tree.texts = vec![(PAGE.into(), doc.into()), (CONTRACT.into(), contract.into())];
        check(&tree).into_iter().map(|finding| finding.to_string()).collect()
    }

    const TABLE: &str = "[(\"a.start\", node::start), (\"b\", jobs::instead), (\"_x\", a::b)]";

    #[test]
    fn a_page_that_is_complete_and_true_is_no_finding() {
        assert_eq!(with(DOC, WANTED, TABLE), [] as [&str; 0]);
    }

    #[test]
    fn what_is_missing_empty_unknown_or_untrue_is_found() {
        for (from, to, found) in [
            ("works | as it was", "works | ", "the cells are a name"),
            ("refused | why |\n\n## K", "gone | why |\n\n## K", "the cells are a name"),
            ("| works | as it was", "| refused | as it was", "`a.start` is there"),
            ("| `b`, `c NAME` | refused", "| `b`, `c NAME` | works", "`b` is not there"),
            ("| `port` | works | so |\n", "", "`[nginx] port` has no row"),
            ("| `gone` | refused", "| `gone` | works", "`[nginx] gone` is not there"),
            ("`port`", "`prt`", "`[nginx] prt` is not in"),
            ("`_version`", "`_versio`", "`[general] _versio` is no key of"),
        ] {
            let changed = DOC.replacen(from, to, 1);
            assert_ne!(changed, DOC, "{from}");
            let findings = with(&changed, WANTED, TABLE);
            assert!(findings.iter().any(|it| it.contains(found)), "{found}: {findings:#?}");
        }
        let more = TABLE.replace("[(", "[(\"new.command\", x::y), (");
        assert!(with(DOC, WANTED, &more)[0].contains("`new.command` has no row"));
    }
}
