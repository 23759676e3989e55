//! Jobs of a plugin: the lines of its `crontab`, with `{{VARIABLES}}`, and the schedules of its
//! sections `[job_NAME]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use mfserv_core::diagnostic::{Location, shown};
use mfserv_core::ini::MAX_BYTES;
use mfserv_core::layers::{substitute, used};
use mfserv_core::plan::{CrontabLine, PluginInput};
use mfserv_core::plugin_spec::{JobSection, PluginSpec};
use mfserv_core::secrets::Secrets;
use mfserv_core::{Diagnostic, Kind, plugin_config};
use mfserv_cron::{Crontab, Problem, Schedule, Severity};
use mfserv_plugin::Home;
use mfserv_plugin::user_crontab::Blocks;

use super::variables_set::Set;

/// The `crontab` of a plugin, and one byte more than is read of a configuration at most.
pub fn crontab(dir: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(dir.join("crontab")) {
        // cron(8) could not read it either.
        let _ = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut text);
    }
    text
}

/// The lines of a `crontab` that are no comments, as written, with their numbers.
pub fn of(crontab: &[u8]) -> Vec<(u32, String)> {
    let text = String::from_utf8_lossy(crontab);
    let lines = (1..).zip(text.lines().map(str::trim));
    // A line may begin with a variable; what is no line of its own is a statement or a comment.
    let is_template = |line: &str| line.starts_with("{%") || line.starts_with("{#");
    let active = |line: &str| !line.is_empty() && !line.starts_with('#') && !is_template(line);
    lines.filter(|(_, line)| active(line)).map(|(n, line)| (n, shown(line).into_owned())).collect()
}

/// Reads a `crontab` whose variables are those of `env`. A wrong line is reported and left out;
/// when the variables cannot be filled in, that is the whole file.
pub fn read(
    plugin: &str,
    file: &Path,
    crontab: &[u8],
    env: &BTreeMap<String, String>,
) -> (Vec<CrontabLine>, Vec<Diagnostic>) {
    if crontab.is_empty() {
        return Default::default();
    }
    let at = |line: u32| Location::new(file.to_string_lossy(), line);
    let whole = |why: String, line: u32, help: &str| {
        let problem = Diagnostic::warning(format!("the crontab of plugin {plugin} is not run"));
        // A check takes this kind for an error.
        let problem = problem.kind(Kind::Failed).because(why).at(at(line)).help(help);
        (Vec::new(), vec![problem])
    };
    if crontab.len() > MAX_BYTES {
        let why = format!("it is larger than {MAX_BYTES} bytes");
        return whole(why, 0, "put the commands into scripts");
    }
    let text = match without_comments(crontab) {
        Ok(text) => text,
        Err(line) => {
            return whole("a line is not UTF-8".into(), line, "convert the file with iconv");
        }
    };
    let text = match substitute(&text, env) {
        Ok(text) => text,
        Err(why) => {
            let help = "correct the {{…}} and {%…%} of the file; `mfserv env` shows the variables";
            return whole(why, 0, help);
        }
    };
    let parsed = Crontab::parse(&text);
    let problems = parsed.problems.iter().map(|problem| diagnostic(plugin, problem, at));
    let lines = parsed.entries.iter().map(|entry| CrontabLine {
        at: at(entry.line),
        schedule: entry.schedule.to_string(),
        command: entry.command.to_string(),
        input: entry.input.to_string(),
        env: {
            let set = parsed.environment(entry).into_iter();
            set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        },
    });
    (lines.collect(), problems.collect())
}

/// The lines of the `crontab` of a plugin in a directory, and what is wrong with it. `env` is the
/// environment of the plugin, without what is set and secret; `is_tried`: those are tried, and a line
/// that needs the value of one is an error.
pub(super) fn lines(
    home: &Home,
    (plugin, dir): (&str, &Path),
    crontab: &[u8],
    env: &BTreeMap<String, String>,
    Set { secrets, is_tried, .. }: &Set,
) -> (Vec<CrontabLine>, Vec<Diagnostic>) {
    let mut env = env.clone();
    if dir.starts_with(home.releases().canonicalize().unwrap_or_else(|_| home.releases())) {
        // The lines name the link: they are the same jobs after the next installation.
        let link = home.plugins().join(plugin).to_string_lossy().into_owned();
        env.insert("MFSERV_CURRENT_PLUGIN_DIR".into(), link);
    }
    let file = dir.join("crontab");
    let (crontab, mut hidden) = without_secrets((plugin, &file), crontab, &env, secrets);
    if *is_tried {
        let refused = format!("plugin {plugin} is refused");
        hidden.iter_mut().for_each(|problem| {
            problem.severity = mfserv_core::Severity::Error;
            problem.what.clone_from(&refused);
        });
    }
    let (lines, problems) = read(plugin, &file, &crontab, &env);
    (lines, [hidden, problems].concat())
}

/// Leaves out each line into which the value of a secret would be filled: a command that is read
/// from a template is shown. Where the secret decides about other lines, nothing of the file is
/// left. Returns what is wrong.
fn without_secrets<'a>(
    (plugin, file): (&str, &Path),
    crontab: &'a [u8],
    env: &BTreeMap<String, String>,
    secrets: &Secrets,
) -> (Cow<'a, [u8]>, Vec<Diagnostic>) {
    let is_read = !secrets.is_empty() && crontab.len() <= MAX_BYTES;
    let Some(text) = is_read.then(|| without_comments(crontab).ok()).flatten() else {
        return (crontab.into(), Vec::new());
    };
    let problem = |what: &str, name: &str, line: u32| {
        Diagnostic::warning(format!("{what} of plugin {plugin} is not run"))
            // A check takes this kind for an error.
            .kind(Kind::Failed)
            .because(format!("{name} is secret: its value is not filled into a template"))
            .at(Location::new(file.to_string_lossy(), line))
            .help(format!("write ${name}: the command has it in its environment"))
    };
    let mut problems = Vec::new();
    let mut left = String::with_capacity(text.len());
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        match used(line, env, secrets.names()) {
            Some(name) => {
                problems.push(problem("a line of the crontab", name, number));
                left.push('\n');
            }
            None => left.push_str(line),
        }
    }
    if let Some(name) = used(&left, env, secrets.names()) {
        problems.push(problem("the crontab", name, 0));
        left.clear();
    }
    (left.into_bytes().into(), problems)
}

/// What is wrong with a `crontab`, as far as its variables are known without the environment of
/// the plugin. The plugin is, or would be, in `dir`.
pub fn problems(
    spec: &PluginSpec,
    dir: &Path,
    crontab: &[u8],
    module: &BTreeMap<String, String>,
) -> Vec<Diagnostic> {
    let mut env = module.clone();
    env.extend(plugin_config::environment(spec).variables);
    env.insert("MFSERV_CURRENT_PLUGIN_NAME".into(), spec.name.clone());
    env.insert("MFSERV_CURRENT_PLUGIN_DIR".into(), dir.to_string_lossy().into_owned());
    read(&spec.name, &dir.join("crontab"), crontab, &env).1
}

/// The text with its comments emptied: what stands in them is no template. An error is the number
/// of the first other line that is no text.
fn without_comments(crontab: &[u8]) -> Result<String, u32> {
    let mut text = String::with_capacity(crontab.len());
    for (number, line) in (1_u32..).zip(crontab.split_inclusive(|byte| *byte == b'\n')) {
        if line.trim_ascii_start().starts_with(b"#") {
            text.push('\n');
        } else {
            text.push_str(std::str::from_utf8(line).map_err(|_| number)?);
        }
    }
    Ok(text)
}

/// Leaves the lines of plugins to cron(8) that MFSERV has written into the crontab of the user:
/// they would be run twice.
/// Returns what is to be said of the lines of MFSERV itself.
pub fn leave_to_cron(
    plugins: &mut [PluginInput],
    blocks: impl FnOnce() -> Blocks,
) -> Option<Diagnostic> {
    // crontab(1) is asked only where there is something that it could run twice.
    let has_lines = |plugin: &PluginInput| {
        plugin.loaded.as_ref().is_ok_and(|loaded| !loaded.crontab.is_empty())
    };
    if !plugins.iter().any(has_lines) {
        return None;
    }
    let blocks = blocks();
    for plugin in plugins.iter_mut().filter(|plugin| blocks.plugins.contains(&plugin.name)) {
        let Ok(loaded) = &mut plugin.loaded else { continue };
        let name = &plugin.name;
        if loaded.crontab.is_empty() {
            continue;
        }
        loaded.crontab.clear();
        loaded.warnings.push(
            Diagnostic::warning(format!("the crontab of plugin {name} is left to cron"))
                .because(format!(
                    "the crontab of the user has the lines that MFSERV wrote for it, between \
                     ##### BEGINNING OF METWORK MFSERV PLUGIN {name} CRONTAB ##### and its END"
                ))
                .help("remove these lines with crontab -e, then `mfserv reload`"),
        );
    }
    blocks.module.then(|| {
        Diagnostic::warning("cron still runs the jobs of MFSERV")
            .because(
                "the crontab of the user has the lines between ##### BEGINNING OF METWORK MFSERV \
                 MODULE CRONTAB ##### and its END: they start MFSERV again when it is down",
            )
            .help("remove these lines with crontab -e")
    })
}

fn diagnostic(plugin: &str, problem: &Problem, at: impl Fn(u32) -> Location) -> Diagnostic {
    let diagnostic = match problem.severity {
        Severity::Error => {
            Diagnostic::warning(format!("a line of the crontab of plugin {plugin} has no effect"))
                // A check takes this kind for an error.
                .kind(Kind::Failed)
        }
        Severity::Warning => {
            Diagnostic::warning(format!("a line of the crontab of plugin {plugin} is doubtful"))
        }
    };
    diagnostic
        .because(&problem.what)
        .because(&problem.why)
        .at(at(problem.line))
        .help(problem.help.clone())
}

/// Refuses sections `[job_NAME]` whose schedule is none. `Ok` has what is doubtful.
pub fn check_schedules(spec: &PluginSpec) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let mut found = Vec::new();
    for section in &spec.jobs {
        match Schedule::parse(&section.schedule) {
            Ok((_, doubts)) => {
                found.extend(doubts.iter().map(|doubt| of_schedule(&spec.name, section, doubt)));
            }
            Err(problem) => found.push(of_schedule(&spec.name, section, &problem)),
        }
    }
    match found.iter().any(Diagnostic::is_error) {
        true => Err(found),
        false => Ok(found),
    }
}

fn of_schedule(plugin: &str, section: &JobSection, problem: &Problem) -> Diagnostic {
    let key = format!("[job_{}] schedule: {}", section.name, problem.what);
    let diagnostic = match problem.severity {
        Severity::Error => Diagnostic::error(format!("plugin {plugin} is refused"))
            .kind(Kind::BadConfiguration)
            .because(key),
        Severity::Warning => Diagnostic::warning(format!("plugin {plugin}: {key}")),
    };
    diagnostic.because(&problem.why).at(section.at.clone()).help(problem.help.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &[u8]) -> (Vec<CrontabLine>, Vec<Diagnostic>) {
        let env = [("NAME", "shop"), ("EMPTY", ""), ("LOOP", "{% for x in %}")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        read("shop", Path::new("/p/crontab"), text, &env.into())
    }

    #[test]
    fn variables_are_filled_in_and_comments_are_no_templates() {
        let text =
            b"# {% broken {{ \xff\n\nA=1\n{% if NAME %}\n0 1 * * * run {{NAME}}\n{% endif %}\n\
                     B={{ EMPTY }}2\n@daily x%in%put\n";
        let (lines, problems) = read_text(text);
        assert!(problems.is_empty(), "{problems:?}");
        let seen: Vec<_> =
            lines.iter().map(|line| (line.at.line, &*line.schedule, &*line.command)).collect();
        assert_eq!(seen, [(5, "0 1 * * *", "run shop"), (8, "@daily", "x")]);
        assert_eq!(lines[1].input, "in\nput\n");
        let env = |line: usize| lines[line].env.clone().into_iter().collect::<Vec<_>>();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(env(0), [pair("A", "1")]);
        assert_eq!(env(1), [pair("A", "1"), pair("B", "2")]);
    }

    #[test]
    fn a_line_that_needs_the_value_of_a_secret_is_not_run_and_the_problem_names_it() {
        let home = Home::new("/nowhere");
        let secrets = || Secrets::from_iter([("DB".to_string(), "hush".to_string())]);
        let env = BTreeMap::from([("NAME".to_string(), "shop".to_string())]);
        let read = |text: &[u8], is_tried| {
            let set = Set { secrets: secrets(), is_tried, warnings: Vec::new() };
            lines(&home, ("shop", Path::new("/p")), text, &env, &set)
        };
        let text = b"0 1 * * * a $DB {{NAME}}\n# {{DB}}\n0 2 * * * b {{DB}}\n0 3 * * * c\n";
        let (found, problems) = read(text, false);
        let commands: Vec<_> = found.iter().map(|line| (line.at.line, &*line.command)).collect();
        assert_eq!(commands, [(1, "a $DB shop"), (4, "c")]);
        let said = problems[0].to_string();
        assert!(said.contains("DB is secret") && said.contains("write $DB"), "{said}");
        assert_eq!(problems[0].at.as_ref().map(|at| at.line), Some(3));
        assert!(problems.len() == 1 && !problems[0].is_error() && problems[0].kind == Kind::Failed);
        let (found, problems) = read(b"{% if DB %}\n0 1 * * * a\n{% endif %}\n", false);
        assert!(found.is_empty() && problems[0].to_string().contains("DB is secret"));
        // A change that would do so is not put in force.
        assert!(read(text, true).1[0].is_error());
        assert!(read(b"0 1 * * * a $DB\n", true).1.is_empty());
    }

    #[test]
    fn what_cannot_be_filled_in_is_not_run_at_all_and_a_wrong_line_alone_is_left_out() {
        for (text, why) in [
            (&b"0 1 * * * a\n0 2 * * * {{ b\n"[..], "syntax error"),
            (b"0 1 * * * a\n0 2 * * * \xff\n", "not UTF-8"),
            (&b"0 1 * * * aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n".repeat(30_000)[..], "larger than"),
        ] {
            let (lines, problems) = read_text(text);
            assert!(lines.is_empty());
            assert!(problems[0].to_string().contains(why), "{}", problems[0]);
            assert!(!problems[0].is_error() && problems[0].kind == Kind::Failed);
        }
        let (lines, problems) = read_text(b"0 1 * * * a\n0 25 * * * b\n0 3 * * * c\n");
        assert_eq!(lines.iter().map(|line| &*line.command).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].at.as_ref().map(|at| at.line), Some(2));
    }
}
