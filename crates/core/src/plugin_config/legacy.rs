//! Keys and sections that plugins do not have: those of MFSERV's first format, which had other names,
//! and those that stand in the wrong section.

use super::schema::Kind;
use crate::diagnostic::Location;
use crate::ini::Document;

/// The place of a key that says that this `config.ini` has the format of before 1.0, where the version
/// of a plugin was called `version`.
pub fn of_before_1_0(config: &Document) -> Option<Location> {
    let general = config.sections.iter().find(|section| section.name == "general")?;
    let of = |name: &str| general.entries.iter().find(|entry| entry.key == name);
    match of("_version") {
        None => of("version").or_else(|| of("type")).map(|entry| config.at(entry.line)),
        Some(_) => None,
    }
}

/// The key that has the place of a key of MFSERV's first format in the same section, if one has.
pub(super) fn renamed(kind: Kind, key: &str) -> Option<&'static str> {
    let now = match (kind, key) {
        (Kind::General, "packager") => "_maintainer",
        (Kind::App(_) | Kind::Extra(_), "workers") => "numprocesses",
        _ => "",
    };
    let is_it = |name: &&str| *name == now || name.strip_prefix('_') == Some(key);
    kind.keys().map(|known| known.name).find(is_it)
}

/// What to say of a key of MFSERV's first format, which had other
/// names; `None` when the key is simply unknown.
pub(super) fn legacy_key(kind: Kind, key: &str) -> Option<String> {
    let is_program = matches!(kind, Kind::App(_) | Kind::Extra(_));
    let now = match (key, renamed(kind, key)) {
        (_, Some(now)) if now.strip_prefix('_') == Some(key) => {
            format!("the key is now {now}, as all that only developers decide")
        }
        (_, Some(now)) => format!("the key is now {now}"),
        ("name", _) if kind == Kind::General => {
            "the name of a plugin is in .layerapi2_label".into()
        }
        ("type", _) if kind == Kind::General => "a plugin has no type any more: remove it".into(),
        ("redis_service", _) if kind == Kind::General => {
            "modules run no redis any more: remove it, and name yours in [custom]".into()
        }
        ("main_arg" | "type", _) if is_program => "write the whole _cmd_and_args".into(),
        _ if is_program && key.starts_with("gunicorn") => {
            "gunicorn is an ordinary program now: write the whole _cmd_and_args".into()
        }
        ("rlimit_core", _) if is_program => "there is no rlimit_core: remove it".into(),
        _ => {
            let (now, section) = elsewhere(&format!("_{key}"))?;
            format!("the key is now {now} of {section}")
        }
    };
    Some(format!("this is the format of before 1.0: {now}"))
}

/// A key of this name, and the kind of section that has it.
pub(super) fn elsewhere(key: &str) -> Option<(&'static str, &'static str)> {
    let sections = [
        (Kind::General, "[general]"),
        (Kind::App(""), "[app_NAME]"),
        (Kind::Extra(""), "[extra_daemon_NAME]"),
        (Kind::Job(""), "[job_NAME]"),
    ];
    sections.into_iter().find_map(|(kind, section)| {
        kind.keys().find(|known| known.name == key).map(|known| (known.name, section))
    })
}

/// What to write instead of a section that plugins do not have.
pub(super) fn unknown_section_help(section: &str) -> String {
    let known = "a plugin has [general], [app_NAME], [extra_daemon_NAME], [job_NAME] and [custom…]";
    match section {
        "app" => "write [app_NAME]".into(),
        "extra_daemon" => "write [extra_daemon_NAME]".into(),
        "job" => "write [job_NAME]".into(),
        _ if section.starts_with("redis_service") => {
            format!("this is the format of before 1.0, when modules ran redis; now {known}")
        }
        _ if section.starts_with("step_") => {
            format!("steps belong to plugins of mfdata; in mfserv {known}")
        }
        _ => {
            let (head, tail) = match section.rsplit_once('_') {
                Some((head, tail)) if !tail.is_empty() => (head, format!("_{tail}")),
                _ => (section, String::new()),
            };
            match crate::suggest::nearest(head, ["general", "app", "extra_daemon", "job", "custom"])
            {
                Some(near) => format!("did you mean [{near}{tail}]? {known}"),
                None => known.into(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of_before_1_0;
    use crate::ini::{Dialect, parse};
    use crate::plugin_config::tests::{GENERAL, refused, resolved_as};

    #[test]
    fn the_format_of_before_1_0_is_refused_with_what_is_written_now() {
        refused("version=1\n", 8, &["before 1.0", "the key is now _version"]);
        refused("name=foo\n", 8, &["before 1.0", ".layerapi2_label"]);
        refused("extra_nginx_http_conf_filename=x\n", 8, &["_extra_nginx_http_conf_filename"]);
        refused("[app_main]\nworkers=2\n", 9, &["the key is now numprocesses"]);
        refused("[app_main]\nmain_arg=x\n", 9, &["write the whole _cmd_and_args"]);
        refused(
            "[app_main]\ngunicorn_arg=x\n",
            9,
            &["before 1.0", "write the whole _cmd_and_args"],
        );
        refused("redis_service=0\n", 8, &["before 1.0", "no redis any more"]);
        let moved = ["before 1.0", "_extra_nginx_conf_filename of [app_NAME]"];
        refused("extra_nginx_conf_filename=null\n", 8, &moved);
        let moved = ["before 1.0", "_add_plugin_dir_to_python_path of [general]"];
        refused("[app_main]\nadd_plugin_dir_to_python_path=1\n", 9, &moved);
        let elsewhere = ["_add_plugin_dir_to_python_path is a key of [general]"];
        refused("[app_main]\n_add_plugin_dir_to_python_path=1\n", 9, &elsewhere);
        refused("[app_main]\nrlimit_core=0\n", 9, &["there is no rlimit_core"]);
        refused("[redis_service]\n", 8, &["before 1.0"]);
        refused("[step_main]\n", 8, &["mfdata"]);
    }

    #[test]
    fn a_key_of_before_1_0_that_has_another_name_now_is_not_also_said_to_be_missing() {
        let old = GENERAL.replace("\n_", "\n").replace("maintainer=", "packager=");
        let errors = resolved_as("GENERIC", &old, &[]).unwrap_err();
        let lines: Vec<u32> = errors.iter().map(|error| error.at.as_ref().unwrap().line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7], "{errors:#?}");
        let document = |text: &str| parse(text, "config.ini", Dialect::Plugin).unwrap();
        assert_eq!(of_before_1_0(&document(&old)).map(|at| at.line), Some(2));
        assert_eq!(of_before_1_0(&document(GENERAL)), None);
    }
}
