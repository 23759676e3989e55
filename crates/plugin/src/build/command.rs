//! `[build] cmd` of a plugin: a command that makes a part of what is packed. It runs again when a
//! source has changed since, or when what it has made is not as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_core::plugin_spec::BuildSection;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};

use super::held::short_name;
use super::{BuildOptions, Held, node, python};
use crate::child::Run;
use crate::environment::PROXY;
use crate::progress::Progress;
use crate::sources::{Sources, stamp_line};

/// So many lines of its output are in the error of a command that fails: the last ones.
const LINES: usize = 40;
/// Variables that say how output is shown: what is made does not depend on them.
const OF_TERMINAL: [&str; 2] = ["TERM", "COLORTERM"];

/// The format of what is kept of the last run.
const FORMAT: u32 = 2;

/// What the command of a plugin did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    /// Neither sources nor what it makes had changed: it did not run.
    pub unchanged: bool,
}

/// Says of what, and with which result, the command ran last. It is in the home, since the
/// directory is the developer's.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    command: String,
    /// Empty after a run that has failed: it runs again.
    inputs: String,
    /// What the command has left; empty if that is not known.
    made: String,
}

/// Runs the command of the plugin in a directory that is held, if there is a reason to, with the
/// environment of its programs. On an error the next build runs it again.
pub fn command(
    held: &Held,
    section: &BuildSection,
    env: &BTreeMap<String, String>,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<CommandReport, Diagnostic> {
    let dir = held.dir();
    let build = Build { dir, section, mark: mark_file(options, dir) };
    let inputs = build.inputs(env);
    let last = build.last();
    if !options.is_fresh && build.is_as_made_of(&inputs, &last) {
        return Ok(CommandReport { unchanged: true });
    }
    // Also where it fails halfway, nobody takes what is there for whole.
    build.note(String::new(), last.made.clone())?;
    let before = build.made().unwrap_or_default();
    let run = build.run(env, options, progress);
    let made = build.made();
    if let Err(problem) = run {
        // A tool that builds only what has changed may find that part done the next time.
        let made = made.ok().filter(|made| *made != before || *made == last.made);
        build.note(String::new(), made.unwrap_or_default())?;
        return Err(problem);
    }
    let made = made?;
    if !section.out.is_empty() && made == before && made != last.made {
        return Err(build.untouched());
    }
    build.note(inputs, made)?;
    Ok(CommandReport { unchanged: false })
}

fn mark_file(options: &BuildOptions, dir: &Path) -> PathBuf {
    options.home.root().join("var/built").join(format!("{}.json", short_name(dir)))
}

struct Build<'a> {
    dir: &'a Path,
    section: &'a BuildSection,
    mark: PathBuf,
}

impl Build<'_> {
    /// What the command reads, as far as that is known: the sources, the line itself, its variables,
    /// and the packages that it finds.
    fn inputs(&self, env: &BTreeMap<String, String>) -> String {
        let sources = Sources::of_plugin(self.dir, &self.section.out).digest();
        let (python, node) = (python::identity(self.dir), node::identity(self.dir));
        let parts = [
            ("sources", sources.as_bytes()),
            ("cmd", self.section.command.as_bytes()),
            ("python", python.as_slice()),
            ("node", node.as_slice()),
        ];
        let out = self.section.out.iter().map(|out| ("out", out.as_bytes()));
        let env = env.iter().filter(|(name, _)| !OF_TERMINAL.contains(&name.as_str()));
        let env = env.map(|(name, value)| (name.as_str(), value.as_bytes()));
        disk::fingerprint(parts.into_iter().chain(out).chain(env))
    }

    /// The last run of this line.
    fn last(&self) -> Mark {
        let text = fs::read(&self.mark).unwrap_or_default();
        let mark = serde_json::from_slice::<Mark>(&text).ok();
        let is_it = |mark: &Mark| mark.format == FORMAT && mark.command == self.section.command;
        mark.filter(is_it).unwrap_or_default()
    }

    fn note(&self, inputs: String, made: String) -> Result<(), Diagnostic> {
        let command = self.section.command.clone();
        let mark = Mark { format: FORMAT, command, inputs, made };
        let text = serde_json::to_string(&mark).unwrap_or_default() + "\n";
        self.mark.parent().map_or(Ok(()), disk::create_dir)?;
        disk::write(&self.mark, text.as_bytes())
    }

    fn is_as_made_of(&self, inputs: &str, last: &Mark) -> bool {
        // Of a command that does not say what it makes nobody knows whether that is still there.
        // What is not there any more is made again.
        !self.section.out.is_empty()
            && last.inputs == inputs
            && self.made().is_ok_and(|made| made == last.made)
    }

    fn run(
        &self,
        env: &BTreeMap<String, String>,
        options: &BuildOptions,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let line = &self.section.command;
        progress.step(&format!("running the build command: {line}"));
        #[expect(clippy::disallowed_methods, reason = "a build runs the command of its plugin")]
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).env_clear().envs(env).current_dir(self.dir);
        command.envs(PROXY.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        let what = format!("the build command ({line})");
        let run = Run { what: &what, limit: options.limit, cancel: &options.cancel };
        run.run(command, progress).map(drop).map_err(|failed| {
            let because = failed.because.iter().map(|text| last_lines(text)).collect();
            let help = "correct [build] cmd in config.ini, or what it builds; what was built before \
                        is not packed";
            let known = failed.help.clone();
            Diagnostic { because, ..failed }.help(known.unwrap_or_else(|| help.into()))
        })
    }

    /// What it makes, as it is now: a sum of names, lengths and times.
    fn made(&self) -> Result<String, Diagnostic> {
        let mut all = Vec::new();
        for out in &self.section.out {
            let before = all.len();
            let mut todo = vec![self.dir.join(out)];
            while let Some(path) = todo.pop() {
                let about = fs::symlink_metadata(&path).map_err(|_| self.missing(out))?;
                if about.is_dir() {
                    let entries =
                        fs::read_dir(&path).map_err(|e| disk::failed("read", &path, e))?;
                    todo.extend(entries.flatten().map(|entry| entry.path()));
                    continue;
                }
                all.push(stamp_line(&path, &about));
            }
            if all.len() == before {
                return Err(self.missing(out));
            }
        }
        all.sort();
        Ok(disk::fingerprint(all.iter().map(|line| ("made", line.as_bytes()))))
    }

    fn untouched(&self) -> Diagnostic {
        let out = self.section.out.join(", ");
        Diagnostic::error(format!("the build command has made nothing in {out}"))
            .kind(Kind::BadConfiguration)
            .because(format!(
                "all files there are from before this run, and of something else than: {}",
                self.section.command
            ))
            .help(format!("correct [build] cmd or out in config.ini; or remove {out}, if the command makes only what is not there"))
    }

    fn missing(&self, out: &str) -> Diagnostic {
        Diagnostic::error(format!("the build command has made no {out}"))
            .kind(Kind::BadConfiguration)
            .because(format!(
                "there is no file in {} after: {}",
                self.dir.join(out).display(),
                self.section.command
            ))
            .help("correct [build] out in config.ini, or have the command write there")
    }
}

/// The end of an output.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let left_out = lines.len().saturating_sub(LINES);
    let mut end = lines[left_out..].join("\n");
    if left_out > 0 {
        end = format!("({left_out} lines before)\n{end}");
    }
    end
}
