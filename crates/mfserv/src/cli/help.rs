//! What `--help` says beside the flags: commands in groups, and an example of each.

mod examples;

use clap::{Command, CommandFactory};

use super::Cli;
use super::status::columns;
use examples::{EXAMPLES, FIRST};

/// The commands by what somebody wants to do, in the order in which he needs them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Write an app", &["dev", "new", "init", "build", "check"]),
    (
        "Deploy it",
        &[
            "deploy",
            "release",
            "install",
            "hotswap",
            "releases",
            "rollback",
            "repackage",
            "uninstall",
            "list",
            "info",
        ],
    ),
    (
        "Work with one app",
        &["open", "shell", "exec", "env", "restart", "scale", "maintenance", "jobs"],
    ),
    ("Look", &["status", "ps", "top", "logs", "metrics", "history", "alerts", "events"]),
    (
        "Run the node",
        &[
            "start",
            "stop",
            "run",
            "reload",
            "plan",
            "config",
            "upgrade",
            "operations",
            "wait",
            "setup",
        ],
    ),
    ("And", &["ship", "completions", "man", "help"]),
];
/// The usage, then the groups, which clap does not know.
const TEMPLATE: &str =
    "{about-with-newline}\n{usage-heading} {usage}{after-help}\n\nOptions:\n{options}\n";
/// The widest help.
const WIDEST: usize = 100;
/// The columns of a small terminal.
const NARROW: usize = 79;
/// Where the description of a command begins.
const INDENT: usize = 15;

/// The command line, with the whole help.
pub fn command() -> Command {
    let command = with_examples();
    let short = format!(
        "{}\n\n{}\n\n`mfserv --help` says what each does, `mfserv COMMAND --help` has examples.",
        names(),
        shown(FIRST)
    );
    let width = columns().min(WIDEST);
    let long = format!("{}\n{}", described(&command, width), shown(FIRST));
    command.help_template(TEMPLATE).after_help(short).after_long_help(long)
}

/// The command line, with an example of each command.
pub fn with_examples() -> Command {
    EXAMPLES.iter().fold(Cli::command(), |command, (name, examples)| {
        command.mut_subcommand(name, |one| one.after_help(shown(examples)))
    })
}

/// Lines of a command line and what they do, below each other.
fn shown(examples: &[(&str, &str)]) -> String {
    let widest = examples.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> =
        examples.iter().map(|(line, does)| format!("  {line:<widest$}  {does}")).collect();
    let title = if lines.len() == 1 { "Example" } else { "Examples" };
    format!("{title}:\n{}", lines.join("\n"))
}

/// The names of the commands by group.
fn names() -> String {
    let widest = GROUPS.iter().map(|(title, _)| title.len()).max().unwrap_or(0) + 3;
    let group = |(title, names): &(&str, &[&str])| {
        let (title, names) = (format!("{title}:"), names.join(" "));
        format!("{title:<widest$}{}", wrapped(&names, NARROW - widest, widest))
    };
    GROUPS.iter().map(group).collect::<Vec<_>>().join("\n")
}

/// The commands with what they do, a paragraph for each group.
fn described(command: &Command, width: usize) -> String {
    let mut out = String::new();
    for (title, names) in GROUPS {
        out += &format!("{title}:\n");
        for name in *names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map_or_else(|| "Describe a command".into(), ToString::to_string);
            let words = wrapped(&about, width.saturating_sub(INDENT).max(20), INDENT);
            out += &format!("  {name:<0$}{1}\n", INDENT - 2, words);
        }
        out.push('\n');
    }
    out
}

/// A text in lines of so many characters, all but the first one indented.
fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for word in text.split_whitespace() {
        let more = word.chars().count();
        if length > 0 && length + 1 + more > width {
            out += &format!("\n{}", " ".repeat(indent));
            length = 0;
        } else if length > 0 {
            out.push(' ');
            length += 1;
        }
        out += word;
        length += more;
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_command_is_in_one_group_and_has_an_example_that_is_a_good_command_line() {
        let command = command();
        let all: BTreeSet<&str> = command
            .get_subcommands()
            .filter(|one| !one.is_hide_set())
            .map(Command::get_name)
            .collect();
        let listed: Vec<&str> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let listed_once: BTreeSet<&str> =
            listed.iter().copied().filter(|one| *one != "help").collect();
        assert_eq!(listed.len(), listed_once.len() + 1, "one is listed twice: {listed:?}");
        assert_eq!(listed_once, all);
        let described: BTreeSet<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(described, all);
        for (name, examples) in EXAMPLES {
            for (line, does) in *examples {
                let line = line.split(" | ").next().unwrap();
                let words = mfserv_core::plan::split_command(line, &[], &[]).unwrap();
                let parsed = command.clone().try_get_matches_from(&words);
                let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(parsed.subcommand_name(), Some(*name), "{line}");
                assert!(!does.is_empty() && line.len() + does.len() < 110, "{line}: {does}");
            }
        }
    }

    #[test]
    fn the_short_help_fits_a_small_terminal_and_the_long_one_any_width() {
        let mut command = command();
        let short = command.render_help().to_string();
        assert!(short.lines().count() <= 29, "{short}");
        let groups = short.lines().skip(1).take_while(|line| *line != "Options:");
        assert!(groups.into_iter().all(|line| line.chars().count() <= NARROW), "{short}");
        assert!(short.contains("Deploy it:") && short.contains("mfserv dev shop"), "{short}");
        for width in [40, 60, 100] {
            let text = described(&command, width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert!(text.contains("  dev          Run an app"), "{text}");
        }
    }
}
