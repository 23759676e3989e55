//! The module's configuration: files, `--set` and built-in defaults become
//! typed settings, exported variables, and everything that is doubtful in them.

use std::collections::BTreeMap;

use crate::alerts;
use crate::diagnostic::Diagnostic;
use crate::exit_code::Kind;
use crate::export::{Unresolved, export, variable};
use crate::ini::{Document, keys_in_continuation};
use crate::keys::{self, FRONT_QUEUE_MAX, KEYS, Key, Read, Row, read};
use crate::layers::{Assignment, Origin, Value, assignments, merge, split_variant, substitute_all};
use crate::suggest::nearest;

mod checks;
mod settings;

pub use settings::ModuleConfig;

/// What a configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// The settings. Where a value is wrong, the default is here and `diagnostics` has an
    /// error.
    pub config: ModuleConfig,
    /// Every key with its value, its origin and what it won against.
    pub values: Vec<Value>,
    /// The variables `MFSERV_SECTION_KEY`.
    pub exported: BTreeMap<String, String>,
    /// Variables whose hosts the caller must resolve.
    pub unresolved: Vec<Unresolved>,
    /// Errors and warnings, in the order of the values.
    pub diagnostics: Vec<Diagnostic>,
}

impl Resolution {
    /// A value by its section and key.
    pub fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.values.iter().find(|value| value.section == section && value.key == key)
    }

    /// The value of a key as it was written, with its placeholders replaced; empty if it is
    /// not set.
    pub fn text<T>(&self, key: Key<T>) -> &str {
        let row = key.row();
        self.value(row.section, row.key).map_or("", |value| &value.value)
    }

    /// True when something is so wrong that the node must not start with it.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Resolves the module's configuration.
///
/// `documents` are the files, the weakest first (the home's `config.ini`, then
/// the site's); `sets` are (section, key, value) of `--set`; `env` is what
/// `{{NAME}}` reads (the process environment and the `MFHARDWARE_*`,
/// `MFHOSTNAME*` and `MFMODULE_*` variables); `config_name` chooses variants.
pub fn resolve(
    documents: &[Document],
    sets: &[(String, String, String)],
    env: &BTreeMap<String, String>,
    config_name: &str,
) -> Resolution {
    let mut diagnostics = Vec::new();
    let files = documents.iter().flat_map(assignments);
    let mut values = merge(defaults().chain(files).chain(set(sets)), config_name);
    values.retain(|value| !value.section.starts_with('_'));
    substitute_all(&mut values, env, &mut diagnostics);
    check_sections(documents, &mut diagnostics);
    let built_in = built_in(env);
    let alerts = alerts::read(&values, &mut diagnostics);
    let mut config = ModuleConfig::new(installed(&values), alerts);
    for value in &values {
        check_indent(value, &mut diagnostics);
        match keys::find(&value.section, &value.key) {
            Some(row) => config.insert(row, reading(row, value, &built_in, &mut diagnostics)),
            None => check_unknown(value, &mut diagnostics),
        }
    }
    let queue_max = config.get(FRONT_QUEUE_MAX);
    alerts::check_queues(&mut config.alerts, queue_max, &values, &mut diagnostics);
    checks::check(&config, &values, &mut diagnostics);
    let exported = export(
        "MFSERV",
        "_IP",
        // An address that alerts are sent to is often a secret.
        values
            .iter()
            .filter(|value| !alerts::is_section(&value.section))
            .map(|value| (&*value.section, &*value.key, &*value.value)),
    );
    Resolution {
        config,
        values,
        exported: exported.variables,
        unresolved: exported.unresolved,
        diagnostics,
    }
}

fn defaults() -> impl Iterator<Item = Assignment> {
    KEYS.iter().filter_map(|key| {
        Some(Assignment {
            section: key.section.into(),
            key: key.key.into(),
            raw: key.default?.into(),
            origin: Origin::Default,
        })
    })
}

fn set(sets: &[(String, String, String)]) -> impl Iterator<Item = Assignment> + '_ {
    sets.iter().map(|(section, key, value)| Assignment {
        section: section.to_lowercase(),
        key: key.to_lowercase(),
        raw: value.clone(),
        origin: Origin::Set,
    })
}

fn installed(values: &[Value]) -> Vec<String> {
    let wanted = |value: &&Value| value.section == "internal_plugins" && value.value == "1";
    let names = values.iter().filter(wanted).filter_map(|v| v.key.strip_prefix("install_"));
    names.filter(|name| !name.is_empty()).map(str::to_string).collect()
}

/// The built-in values with their placeholders replaced, to compare with.
fn built_in(env: &BTreeMap<String, String>) -> BTreeMap<(&'static str, &'static str), String> {
    let text = |key: &Row| {
        let raw = key.default.unwrap_or("");
        crate::layers::substitute(raw, env).unwrap_or_else(|_| raw.to_string())
    };
    KEYS.iter().map(|key| ((key.section, key.key), text(key))).collect()
}

/// Reads one value of a known key and says what is doubtful about it.
fn reading(
    key: &Row,
    value: &Value,
    built_in: &BTreeMap<(&'static str, &'static str), String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Read {
    let default = &built_in[&(key.section, key.key)];
    let by_default = || read(key.kind, default).unwrap_or(Read::Nothing);
    // The built-in value is right by definition, also when it is `null` or when
    // the environment has no number of processors.
    if value.broken || value.value == *default {
        return by_default();
    }
    let name = format!("[{}] {}", key.section, value.written);
    let result = match key.default {
        Some("null") if value.value.eq_ignore_ascii_case("null") => Ok(Read::Nothing),
        _ => read(key.kind, &value.value),
    };
    match result {
        Ok(Read::Doubtful(meant)) => {
            diagnostics.push(
                Diagnostic::warning(format!("{name}={} is read as 0", value.value))
                    .at(value.origin.location())
                    .help("write 1 for yes and 0 for no"),
            );
            warn_if_not_obeyed(key, value, diagnostics);
            Read::Flag(meant)
        }
        Ok(read) => {
            warn_if_not_obeyed(key, value, diagnostics);
            read
        }
        Err((reason, help)) => {
            diagnostics.push(
                Diagnostic::error(format!("{name} has a wrong value: {:?}", value.value))
                    .kind(Kind::BadConfiguration)
                    .because(reason)
                    .at(value.origin.location())
                    .help(help),
            );
            by_default()
        }
    }
}

fn warn_if_not_obeyed(key: &Row, value: &Value, diagnostics: &mut Vec<Diagnostic>) {
    if key.obeyed {
        return;
    }
    diagnostics.push(
        Diagnostic::warning(format!("[{}] {} has no effect in this version", key.section, key.key))
            .because(format!("it is known ({}) but not obeyed yet", key.meaning))
            .at(value.origin.location())
            .help("it is exported to plugins all the same; remove it to silence this"),
    );
}

/// A known key on an indented line is part of the value above it: say so.
fn check_indent(value: &Value, diagnostics: &mut Vec<Diagnostic>) {
    let is_known =
        |name: &&str| keys::find(&value.section, split_variant(&name.to_lowercase()).0).is_some();
    for name in keys_in_continuation(&value.raw).filter(is_known) {
        diagnostics.push(
            Diagnostic::warning(format!("[{}] {name} is not set", value.section))
                .because(format!("its line is indented: it continues the value of {}", value.key))
                .at(value.origin.location())
                .help("remove the blanks before the key"),
        );
    }
}

/// Unknown sections belong to whoever wrote them; unknown keys of known
/// sections are probably mistakes. Both are exported.
fn check_unknown(value: &Value, diagnostics: &mut Vec<Diagnostic>) {
    let name = format!("[{}] {}", value.section, value.written);
    let is_plugin = value.section == "internal_plugins" && value.key.starts_with("install_");
    if keys::sections().contains(&value.section.as_str()) && !is_plugin {
        let known = KEYS.iter().filter(|key| key.section == value.section).map(|key| key.key);
        let help = match nearest(&value.key, known) {
            Some(key) => format!("did you mean {key}?"),
            None => match KEYS.iter().find(|key| key.key == value.key) {
                Some(key) => format!("did you mean [{}] {}?", key.section, key.key),
                None => format!("mfserv config show lists the keys of [{}]", value.section),
            },
        };
        diagnostics.push(
            Diagnostic::warning(format!("{name} is unknown"))
                .because("it is exported to plugins, and nothing else reads it")
                .at(value.origin.location())
                .help(help),
        );
    }
    if !value.key.starts_with('_') && variable("MFSERV", &value.section, &value.key).is_none() {
        diagnostics.push(
            Diagnostic::warning(format!("{name} is not exported"))
                .because("no variable can have that name")
                .at(value.origin.location())
                .help("use letters, digits, _ and - in names of sections and keys"),
        );
    }
}

/// A section of its own is allowed; one that is nearly a known one is said.
fn check_sections(documents: &[Document], diagnostics: &mut Vec<Diagnostic>) {
    let known = keys::sections();
    for document in documents {
        for section in &document.sections {
            let is_known = known.contains(&section.name.as_str());
            if is_known || alerts::is_section(&section.name) || section.name.len() < 4 {
                continue;
            }
            if let Some(help) = checks::instead_of(&section.name) {
                diagnostics.push(
                    Diagnostic::warning(format!("[{}] is no section of mfserv", section.name))
                        .because("its keys are exported to plugins, and nothing else reads them")
                        .at(document.at(section.line))
                        .help(help),
                );
            } else if let Some(near) = nearest(&section.name, known.iter().copied()) {
                diagnostics.push(
                    Diagnostic::warning(format!("[{}] is a section of your own", section.name))
                        .because("its keys are exported to plugins, and nothing else reads them")
                        .at(document.at(section.line))
                        .help(format!("did you mean [{near}]?")),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
