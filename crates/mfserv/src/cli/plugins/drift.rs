//! How the environment that a plugin runs with differs from the one that it would be started with.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::Diagnostic;
use mfserv_core::layers::parse_set;
use mfserv_core::plan::{Loaded, PROCESSES_VARIABLE, TIMEOUT_VARIABLE};
use mfserv_node::configure::{self, Module, Set};
use mfserv_node::control::client;
use mfserv_node::daemon;
use mfserv_node::places::Places;

use crate::cli::keeper::QUICK;

/// What a watcher adds to the environment of its plugin.
const OF_WATCHERS: [&str; 10] = [
    "MFSERV_STRIP_PREFIX",
    "MFSERV_CURRENT_APP_DEBUG",
    "MFLOG_MINIMAL_LEVEL",
    "MFSERV_LOG_MINIMAL_LEVEL",
    "HOTSWAP",
    "MFSERV_PYTHON_SERVER",
    "MFSERV_PYTHON_THREADS",
    "MFSERV_PYTHON_ASGI_SERVER",
    PROCESSES_VARIABLE,
    TIMEOUT_VARIABLE,
];

/// The configuration as the daemon that runs reads it: with its `--set` values, and with the PATH,
/// the language and the other variables that it passes on, whatever the shell has that we are
/// started from. Only the terminal is that of this command.
pub fn module(places: &Places) -> Result<Module, Diagnostic> {
    let Ok(status) = client::status(&places.control_socket(), QUICK) else {
        return configure::module(places, &[]);
    };
    let of_daemon = |file: &str| {
        let text = std::fs::read(format!("/proc/{}/{file}", status.daemon.pid)).unwrap_or_default();
        let words = text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
        words.map(String::from).collect::<Vec<String>>()
    };
    let words = of_daemon("cmdline");
    let values = words.windows(2).filter(|pair| pair[0] == "--set").map(|pair| &pair[1]);
    let sets: Vec<Set> = values.filter_map(|value| parse_set(value).ok()).collect();
    let texts = of_daemon("environ");
    let pairs = texts.iter().filter_map(|text| text.split_once('='));
    let mut variables: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if variables.is_empty() {
        // It is not said what a process of another user has.
        return configure::module(places, &sets);
    }
    for name in ["TERM", "COLORTERM"] {
        variables.remove(name);
        variables.extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
    }
    configure::module_passing(places, &sets, &variables)
}

/// Says how the environment of a plugin that runs differs from this one; `None` when it does not,
/// or nothing runs. Variables that every command inherits from its shell are not compared.
pub fn of(places: &Places, plugin: &str, now: &Loaded) -> Option<Diagnostic> {
    client::status(&places.control_socket(), QUICK).ok()?;
    let plan = daemon::plan_in_force(places)?;
    let runs = plan.watchers.iter().find(|(name, _)| name.plugin() == Some(plugin))?.1;
    let inherited = configure::base_environment(places);
    let mut differences = differences(&runs.env, &now.env, &inherited);
    let secrets = now.secrets.different(&runs.secrets);
    differences.extend(secrets.map(|name| format!("{name}, a secret, would be another one")));
    (!differences.is_empty()).then(|| {
        let what = format!("{plugin} runs with another environment than is configured now");
        let text = differences.join("; ");
        let help = format!("`mfserv restart {plugin}` applies it");
        Diagnostic::warning(what).because(text).help(help)
    })
}

fn differences(
    runs: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    inherited: &BTreeMap<String, String>,
) -> Vec<String> {
    let keys: BTreeSet<&String> = runs.keys().chain(now.keys()).collect();
    let own = |key: &&&String| {
        !OF_WATCHERS.contains(&key.as_str()) && !inherited.contains_key(key.as_str())
    };
    let shown = |value: Option<&String>| value.map_or("not set".into(), |it| format!("{it:?}"));
    let mut found = Vec::new();
    for key in keys.iter().filter(own) {
        let (before, after) = (runs.get(*key), now.get(*key));
        if before != after {
            found.push(format!("{key} is {}, would be {}", shown(before), shown(after)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn what_was_changed_added_and_removed_differs_and_what_a_shell_gives_does_not() {
        let runs = env(&[("A", "1"), ("B", "1"), ("HOTSWAP", "0"), ("LANG", "C"), ("SAME", "x")]);
        let now = env(&[("A", "2"), ("C", ""), ("LANG", "fr"), ("SAME", "x")]);
        assert_eq!(
            differences(&runs, &now, &env(&[("LANG", "fr")])),
            [
                "A is \"1\", would be \"2\"",
                "B is \"1\", would be not set",
                "C is not set, would be \"\""
            ]
        );
        assert!(differences(&runs, &runs, &BTreeMap::new()).is_empty());
    }
}
