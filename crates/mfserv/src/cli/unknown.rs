//! Commands that people know from elsewhere, and what they are called here.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use mfserv_core::{Diagnostic, Kind};

use super::{Cli, help, report};

/// Words of other tools, and what does the same here.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["create", "generate", "scaffold"],
        "`mfserv dev DIR` serves an app that is there, `mfserv new NAME` makes a plugin from a \
         template; `mfserv start` makes and starts a node",
    ),
    (
        &["push", "publish"],
        "`mfserv deploy DIR` deploys here; `mfserv release DIR` packs a plugin for a server, and \
         `mfserv install FILE.plugin` deploys it there",
    ),
    (
        &["update", "redeploy"],
        "`mfserv deploy DIR` and `mfserv install FILE.plugin` replace the release that serves",
    ),
    (
        &["bash", "sh", "ssh", "console", "repl"],
        "`mfserv shell APP`; `mfserv run APP -- COMMAND` runs one",
    ),
    (&["browse", "url"], "`mfserv open APP`"),
    (&["remove", "rm", "delete", "destroy"], "`mfserv uninstall PLUGIN`"),
    (&["serve", "up", "launch"], "`mfserv start` starts the node, `mfserv dev DIR` one plugin"),
    (&["down", "halt", "shutdown"], "`mfserv stop`"),
    (&["monit", "htop", "dashboard"], "`mfserv top`"),
    (&["processes"], "`mfserv ps`, `mfserv status`"),
    (&["log", "tail"], "`mfserv logs -f PLUGIN`"),
    (&["undo", "revert"], "`mfserv rollback PLUGIN`"),
    (&["validate", "lint", "doctor", "test"], "`mfserv check`"),
    (&["package", "pack"], "`mfserv release DIR`"),
    (&["ls", "plugins", "apps"], "`mfserv list`"),
];

/// Parses the command line. What is wrong with it is said as clap says it, except for commands
/// that are called otherwise elsewhere.
pub fn parse() -> Result<Cli, Diagnostic> {
    let parse = |command: clap::Command| -> Result<Cli, clap::Error> {
        let matches = command.try_get_matches()?;
        if is_json(&matches) {
            report::wants_json();
        }
        Cli::from_arg_matches(&matches)
    };
    let parsed = parse(Cli::command()).or_else(|error| match error.kind() {
        // The whole help is made for who asks for it.
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            parse(help::command())
        }
        _ => Err(error),
    });
    parsed.map_err(|error| {
        let words = std::env::args_os().skip(1);
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        if let Some(meant) = meant(after_home(&words)) {
            return meant;
        }
        let word = match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(word)) if error.kind() == ErrorKind::InvalidSubcommand => {
                word.as_str()
            }
            _ => error.exit(),
        };
        let Some(here) = here(word) else { error.exit() };
        Diagnostic::error(format!("mfserv has no command {word}")).kind(Kind::Usage).help(here)
    })
}

/// The command has `--json`.
fn is_json(matches: &ArgMatches) -> bool {
    let json = matches.try_get_one::<bool>("json");
    json.is_ok_and(|json| json.is_some_and(|json| *json))
        || matches.subcommand().is_some_and(|(_, command)| is_json(command))
}

/// The words without `--home DIR`, which may come first.
fn after_home(words: &[String]) -> &[String] {
    match words {
        [home, _, rest @ ..] if home == "--home" => rest,
        [home, rest @ ..] if home.starts_with("--home=") => rest,
        _ => words,
    }
}

/// `env PLUGIN KEY=VALUE`, as other tools set variables.
fn meant(words: &[String]) -> Option<Diagnostic> {
    let (command, rest) = words.split_first()?;
    let (plugin, set) = rest.split_first()?;
    let is_name = |word: &str| !["set", "unset", "list"].contains(&word) && !word.starts_with('-');
    let is_set = |word: &String| !word.starts_with('-') && word.contains('=');
    if command != "env" || !is_name(plugin) || set.is_empty() || !set.iter().all(is_set) {
        return None;
    }
    let names: Vec<&str> = set.iter().filter_map(|word| word.split('=').next()).collect();
    let help = format!("`mfserv env set {plugin} {}=VALUE`", names.join("=VALUE "));
    let what = "mfserv env PLUGIN prints variables, and sets none";
    Some(Diagnostic::error(what).kind(Kind::Usage).help(help))
}

fn here(word: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(words, _)| words.contains(&word)).map(|(_, here)| *here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_that_is_advised_is_there_and_no_word_from_elsewhere_is_one() {
        let command = Cli::command();
        let names: Vec<&str> = command.get_subcommands().map(|one| one.get_name()).collect();
        for (words, here) in ELSEWHERE {
            for advised in here.split("`mfserv ").skip(1) {
                let name = advised.split([' ', '`']).next().unwrap();
                assert!(names.contains(&name), "{name} of {here}");
            }
            for word in *words {
                assert!(!names.contains(word), "{word}");
            }
        }
        assert!(here("create").unwrap().contains("mfserv new"));
        assert_eq!(here("nonsense"), None);
    }

    #[test]
    fn variables_that_are_set_as_elsewhere_are_understood_wherever_the_home_is_named() {
        for line in ["env a B=c", "--home /h env a B=c", "--home=/h env a B=c D=e"] {
            let words: Vec<String> = line.split(' ').map(str::to_string).collect();
            let problem = meant(after_home(&words)).unwrap();
            assert!(problem.to_string().contains("`mfserv env set a B=VALUE"), "{line}");
        }
        let words = ["--home", "/h", "env", "set", "a", "B=c"].map(str::to_string);
        assert_eq!(meant(after_home(&words)), None);
    }
}
