//! A plugin's configuration: its `config.ini` and the overrides become a
//! [`PluginSpec`], or the list of all that is wrong with them.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};
use crate::exit_code::Kind as Failure;
use crate::export::{Exported, export};
use crate::ini::{Document, keys_in_continuation};
use crate::layers::{Value, assignments, merge, split_variant, substitute_all};
use crate::plugin_spec::PluginSpec;
use crate::route::Route;
use crate::suggest::nearest;

mod affinity;
mod coerce;
mod count_text;
mod error_pages;
mod hosts;
mod identity;
mod legacy;
mod limits;
mod override_text;
mod schema;
mod sendfile;
mod size;
mod spec;
mod version;
mod words;

pub use count_text::{CountLine, count_line, with_count, without_count};
pub use identity::{Dependency, dependencies, format_version, label};
pub use legacy::of_before_1_0;
pub use override_text::override_text;

use coerce::{Read, coerce};
use schema::{COMMAND_LINE, EXTRA_ROUTES, Key, Kind, PROCESSES, Row, SCHEDULE, STRIP_PREFIX};

/// Resolves the configuration of the plugin `name`.
///
/// `own` is its `config.ini`; `overrides` are the other files, the weakest first
/// (the home's, then the site's); `env` is what `{{NAME}}` reads: the process
/// environment and the exported variables of the module, of which
/// `MFSERV_NGINX_TIMEOUT` is the timeout of apps that set none; `config_name`
/// chooses variants; `home_files` says whether a relative path is a regular file
/// of the plugin.
///
/// `Ok` has the warnings, `Err` every error and every warning.
pub fn resolve(
    name: &str,
    own: &Document,
    overrides: &[Document],
    env: &BTreeMap<String, String>,
    config_name: &str,
    home_files: &dyn Fn(&str) -> bool,
) -> Result<(PluginSpec, Vec<Diagnostic>), Vec<Diagnostic>> {
    let documents: Vec<&Document> = std::iter::once(own).chain(overrides).collect();
    let (diagnostics, unused) = (Vec::new(), Vec::new());
    let mut resolver = Resolver { name, env, home_files, diagnostics, unused };
    let mut values =
        merge(documents.iter().flat_map(|document| assignments(document)), config_name);
    values.retain(|value| !value.section.starts_with('_'));
    substitute_all(&mut values, env, &mut resolver.diagnostics);
    resolver.name_the_plugin();
    let mut sections = Vec::new();
    for (section, at) in section_names(&documents) {
        let values: Vec<&Value> = values.iter().filter(|v| v.section == section).collect();
        let count = values.iter().find(|value| value.key == PROCESSES.row.name);
        let count_at = count.map(|value| value.origin.location());
        let count_at = count_at.filter(|at| *at.file != *own.file);
        let schedule = values.iter().find(|value| value.key == SCHEDULE.row.name);
        let schedule_at = schedule.map(|value| value.origin.location());
        let read = resolver.section(section, &at, &values);
        sections.extend(read.map(|read| Section { count_at, schedule_at, ..read }));
    }
    if !sections.iter().any(|section| section.kind == Kind::General) {
        resolver.refuse("there is no section [general]", own.at(0), "add it with its _version");
    }
    resolver.say_unused_fragments();
    let diagnostics = resolver.diagnostics;
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => Err(diagnostics),
        false => Ok((spec::build(name, &sections), diagnostics)),
    }
}

/// The variables that a plugin's public keys are exported as, with `_IP` and
/// `_IPS` siblings for keys that name hosts.
pub fn environment(spec: &PluginSpec) -> Exported {
    let values = spec.exported.iter().map(|(section, key, value)| (&**section, &**key, &**value));
    export("MFSERV_CURRENT_PLUGIN", "_IPS", values)
}

/// Every section once, in the order of its first appearance, with its place.
fn section_names<'a>(documents: &[&'a Document]) -> Vec<(&'a str, Location)> {
    let mut names: Vec<(&str, Location)> = Vec::new();
    for document in documents {
        for section in &document.sections {
            // The first line of files of before 1.0; it never had a key.
            let legacy = section.name == "INCLUDE_config.ini" && section.entries.is_empty();
            let hidden = section.name.starts_with('_') || legacy;
            if !hidden && !names.iter().any(|(name, _)| *name == section.name) {
                names.push((&section.name, document.at(section.line)));
            }
        }
    }
    names
}

/// A section whose keys have been read.
struct Section<'a> {
    kind: Kind<'a>,
    read: BTreeMap<&'static str, Read>,
    exported: Vec<(String, String, String)>,
    /// Where an override file says how many processes there are.
    count_at: Option<Location>,
    /// Where it says when a job runs.
    schedule_at: Option<Location>,
}

struct Resolver<'a> {
    name: &'a str,
    env: &'a BTreeMap<String, String>,
    home_files: &'a dyn Fn(&str) -> bool,
    diagnostics: Vec<Diagnostic>,
    /// The files for nginx where another front is used, with the places of their keys.
    unused: Vec<(String, Location)>,
}

impl Resolver<'_> {
    fn section<'s>(
        &mut self,
        name: &'s str,
        at: &Location,
        values: &[&Value],
    ) -> Option<Section<'s>> {
        let Some(kind) = Kind::of(name) else {
            let help = legacy::unknown_section_help(name);
            self.refuse(&format!("unknown section [{name}]"), at.clone(), &help);
            return None;
        };
        self.check_name(kind, name, at);
        let mut section = Section {
            kind,
            read: BTreeMap::new(),
            exported: Vec::new(),
            count_at: None,
            schedule_at: None,
        };
        for value in values {
            self.check_indent(kind, value);
            if kind == Kind::Custom {
                if !value.key.starts_with('_') {
                    section.export(name, &value.key, &value.value);
                }
                continue;
            }
            match kind.keys().find(|key| key.name == value.key) {
                Some(_) if value.broken => {}
                Some(key) => self.written(name, key, value, &mut section),
                None => self.unknown_key(kind, value),
            }
        }
        // A key that stands there under its name of before 1.0 is said once, at its line.
        let stands = |key: &str, value: &Value| {
            value.key == key || legacy::renamed(kind, &value.key) == Some(key)
        };
        for key in kind.keys().filter(|key| !values.iter().any(|value| stands(key.name, value))) {
            self.left_out(name, key, at, &mut section);
        }
        self.check_command(kind, values, &mut section);
        self.check_prefix(kind, values, &section);
        self.check_pages(kind, values, &section);
        self.check_limits(kind, values, &section);
        self.check_memory(values, &section);
        Some(section)
    }

    /// The names of apps and daemons are parts of paths, of URLs and of variables.
    fn check_name(&mut self, kind: Kind, section: &str, at: &Location) {
        let (Kind::App(name) | Kind::Extra(name) | Kind::Job(name)) = kind else { return };
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 100 || !name.chars().all(allowed) {
            self.refuse(
                &format!("[{section}] has a bad name"),
                at.clone(),
                "a name is made of 1 to 100 letters, digits, _ and -",
            );
        }
    }

    /// A known key on an indented line is part of the value above it: say so.
    fn check_indent(&mut self, kind: Kind, value: &Value) {
        let is_known = |name: &&str| kind.keys().any(|key| key.name == split_variant(name).0);
        for name in keys_in_continuation(&value.raw).filter(is_known) {
            let what = format!("[{}] {name} is not set", value.section);
            let reason = format!("its line is indented: it continues the value of {}", value.key);
            let at = value.origin.location();
            self.warn(&what, Some(&reason), at, "remove the blanks before the key");
        }
    }

    /// A key that stands in a file.
    fn written(&mut self, name: &str, key: &Row, value: &Value, section: &mut Section) {
        let at = value.origin.location();
        let label = format!("[{name}] {}", value.written);
        let coerced = match self.coerce(key, &value.value) {
            Ok(coerced) => coerced,
            Err((reason, help)) => {
                return self.refuse(&format!("{label}: {reason}"), at, &help);
            }
        };
        if let Some((taken, help)) = &coerced.doubt {
            let what = format!("{label}={} is read as {taken}", value.value);
            self.warn(&what, None, at.clone(), help);
        }
        if let Some(reason) = key.later.filter(|_| self.changes(key, &coerced.read)) {
            let front = self.env.get("MFSERV_FRONT_KIND").map(String::as_str);
            match key.name.starts_with("_extra_nginx_") {
                true if front == Some("nginx") => {}
                true => self.unused.push((value.value.clone(), at)),
                false => {
                    let what = format!("{label} has no effect in this version");
                    self.warn(&what, Some(reason), at, "leave the key out to silence this");
                }
            }
        }
        section.put(name, key, coerced);
    }

    /// One line for all of them: they have one reason.
    fn say_unused_fragments(&mut self) {
        let Some((_, at)) = self.unused.first().cloned() else { return };
        let mut files: Vec<&str> = self.unused.iter().map(|(file, _)| file.as_str()).collect();
        files.sort_unstable();
        files.dedup();
        let has = if files.len() == 1 { "has" } else { "have" };
        let what = format!("{} {has} no effect here", files.join(", "));
        let help = "leave their keys (_extra_nginx_…) out to silence this";
        self.warn(&what, Some(schema::FRAGMENT), at, help);
    }

    /// A key that no file sets: its default.
    fn left_out(&mut self, name: &str, key: &Row, at: &Location, section: &mut Section) {
        let Some(default) = key.default else {
            let reason = format!("[{name}] {}: required key is missing", key.name);
            let help = format!("add {}=… to [{name}]", key.name);
            return self.refuse(&reason, at.clone(), &help);
        };
        if let Ok(coerced) = self.coerce(key, default) {
            section.put(name, key, coerced);
        }
    }

    fn unknown_key(&mut self, kind: Kind, value: &Value) {
        let known = kind.keys().map(|key| key.name);
        let elsewhere = || {
            let (key, section) = legacy::elsewhere(&value.key)?;
            Some(format!("{key} is a key of {section}: write it there, or remove it"))
        };
        let help = legacy::legacy_key(kind, &value.key)
            .or_else(elsewhere)
            .or_else(|| nearest(&value.key, known).map(|near| format!("did you mean {near}?")))
            .unwrap_or_else(|| "remove it; keys of your own belong into [custom]".into());
        let reason = format!("[{}] {}: unknown key", value.section, value.written);
        self.refuse(&reason, value.origin.location(), &help);
    }

    /// A command must be one, and nothing is started without one.
    /// A regular expression may take a part of a path that no app could be told as its prefix.
    fn check_prefix(&mut self, kind: Kind, values: &[&Value], section: &Section) {
        let Kind::App(_) = kind else { return };
        if section.get(STRIP_PREFIX) != Some(true) {
            return;
        }
        let routes = section.get(EXTRA_ROUTES);
        let Some(pattern) = routes.iter().find(|route| Route::is_pattern(route)) else { return };
        let place = values.iter().find(|value| value.key == EXTRA_ROUTES.row.name);
        let Some(value) = place else { return };
        let reason = format!(
            "[{}] _strip_prefix=1 with the extra route {pattern}, a regular expression, of which it \
             is not known what the app could take for its prefix",
            value.section
        );
        let help = "write the routes without regular expressions, or _strip_prefix=0";
        self.refuse(&reason, value.origin.location(), help);
    }

    fn check_command(&mut self, kind: Kind, values: &[&Value], section: &mut Section) {
        let (Kind::App(_) | Kind::Extra(_) | Kind::Job(_)) = kind else { return };
        let place = |key: &str| values.iter().find(|value| value.key == key);
        let command = section.get(COMMAND_LINE);
        if let Some(value) =
            place(COMMAND_LINE.row.name).filter(|_| shlex::split(&command).is_none())
        {
            let reason = format!("[{}] _cmd_and_args: a quote is not closed", value.section);
            let help = "the command is split as a shell does: close every quote";
            self.refuse(&reason, value.origin.location(), help);
        }
        if let Some(value) = place(PROCESSES.row.name).filter(|_| command.trim().is_empty()) {
            if section.get(PROCESSES) > 0 {
                let what = format!("[{}] starts nothing: it has no command", value.section);
                let help = "write _cmd_and_args, or numprocesses=0";
                self.warn(&what, None, value.origin.location(), help);
                section.read.insert(PROCESSES.row.name, Read::Number(0));
            }
        }
    }

    fn coerce(&self, key: &Row, text: &str) -> Result<coerce::Coerced, coerce::Refusal> {
        let module_timeout = self.env.get("MFSERV_NGINX_TIMEOUT").map_or_else(
            || crate::keys::NGINX_TIMEOUT_S.row().default.unwrap_or(""),
            String::as_str,
        );
        coerce(key.kind, text, module_timeout, self.home_files)
    }

    /// True when the value asks for something else than the default does.
    fn changes(&self, key: &Row, read: &Read) -> bool {
        let default = key.default.and_then(|text| self.coerce(key, text).ok());
        default.is_none_or(|default| default.read != *read)
    }

    /// Errors found so far become reasons to refuse this plugin.
    fn name_the_plugin(&mut self) {
        for diagnostic in &mut self.diagnostics {
            let what = format!("plugin {} is refused", self.name);
            diagnostic.because.insert(0, std::mem::replace(&mut diagnostic.what, what));
        }
    }

    fn refuse(&mut self, reason: &str, at: Location, help: &str) {
        self.diagnostics.push(
            Diagnostic::error(format!("plugin {} is refused", self.name))
                .kind(Failure::BadConfiguration)
                .because(reason)
                .at(at)
                .help(help),
        );
    }

    fn warn(&mut self, what: &str, because: Option<&str>, at: Location, help: &str) {
        let mut warning = Diagnostic::warning(format!("plugin {}: {what}", self.name));
        if let Some(reason) = because {
            warning = warning.because(reason);
        }
        self.diagnostics.push(warning.at(at).help(help));
    }
}

impl Section<'_> {
    fn export(&mut self, section: &str, key: &str, value: &str) {
        self.exported.push((section.into(), key.into(), value.into()));
    }

    fn put(&mut self, section: &str, key: &Row, coerced: coerce::Coerced) {
        // What a job is exported as would have workers replaced when only the job changes.
        // Variables of an unset limit would have all workers replaced when mfserv is upgraded.
        let is_told = key.kind != schema::Type::Size || coerced.read != Read::Nothing;
        if key.is_public() && is_told && !matches!(self.kind, Kind::Job(_)) {
            self.export(section, key.name, &coerced.exported);
        }
        if let Some(known) = self.kind.keys().find(|known| known.name == key.name) {
            self.read.insert(known.name, coerced.read);
        }
    }

    /// The value of a key; of one that the section does not have, what is read of nothing.
    fn get<T>(&self, key: Key<T>) -> T {
        (key.take)(self.read.get(key.row.name).unwrap_or(&Read::Nothing))
    }
}

#[cfg(test)]
mod tests;
