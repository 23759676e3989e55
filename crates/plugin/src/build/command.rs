//! `[build] cmd` of a plugin: a command that makes a part of what is packed. It runs again when a
//! source has changed since, or when what it has made is not as it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_core::plugin_spec::BuildSection;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};

use super::{BuildOptions, lock_file};
use crate::child::Run;
use crate::progress::Progress;
use crate::sources::Sources;

/// So many lines of its output are in the error of a command that fails: the last ones.
const LINES: usize = 40;

/// What the command of a plugin did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    /// Neither sources nor what it makes had changed: it did not run.
    pub unchanged: bool,
}

/// Says of what, and with which result, the command ran last. It is in the home, since the
/// directory is the developer's.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    inputs: String,
    made: String,
}

/// Runs the command of the plugin in `dir`, if there is a reason to, with the environment of its
/// programs. On an error the next build runs it again.
pub fn command(
    dir: &Path,
    section: &BuildSection,
    env: &BTreeMap<String, String>,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<CommandReport, Diagnostic> {
    let dir = fs::canonicalize(dir).map_err(|e| disk::failed("read", dir, e))?;
    let lock = lock_file(&options.home, &dir);
    let _lock = disk::Lock::take(&lock, &format!("the plugin directory {}", dir.display()))?;
    let build = Build { dir: &dir, section, mark: mark_file(options, &dir) };
    let inputs = build.inputs(env);
    if build.is_as_made_of(&inputs) {
        return Ok(CommandReport { unchanged: true });
    }
    // Also where it fails halfway, nobody takes what is there for whole.
    disk::remove(&build.mark)?;
    build.run(env, options, progress)?;
    let mark = Mark { format: 1, inputs, made: build.made()? };
    let text = serde_json::to_string(&mark).unwrap_or_default() + "\n";
    build.mark.parent().map_or(Ok(()), disk::create_dir)?;
    disk::write(&build.mark, text.as_bytes())?;
    Ok(CommandReport { unchanged: false })
}

fn mark_file(options: &BuildOptions, dir: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let name = disk::fingerprint([("dir", dir.as_os_str().as_bytes())]);
    options.home.root().join("var/built").join(format!("{}.json", &name[..16]))
}

struct Build<'a> {
    dir: &'a Path,
    section: &'a BuildSection,
    mark: PathBuf,
}

impl Build<'_> {
    /// What the command reads, as far as that is known: the sources, the line itself, and the programs
    /// that it finds.
    fn inputs(&self, env: &BTreeMap<String, String>) -> String {
        let sources = Sources::of_plugin(self.dir, &self.section.out).digest();
        let path = env.get("PATH").map_or("", String::as_str);
        let line = self.section.command.as_bytes();
        let parts = [("sources", sources.as_bytes()), ("cmd", line), ("path", path.as_bytes())];
        let out = self.section.out.iter().map(|out| ("out", out.as_bytes()));
        disk::fingerprint(parts.into_iter().chain(out))
    }

    fn is_as_made_of(&self, inputs: &str) -> bool {
        let text = fs::read(&self.mark).unwrap_or_default();
        let Ok(mark) = serde_json::from_slice::<Mark>(&text) else { return false };
        let is_there = self.section.out.iter().all(|out| self.dir.join(out).exists());
        let is_same = |made| mark == Mark { format: 1, inputs: inputs.into(), made };
        // What is not there any more is made again.
        is_there && self.made().is_ok_and(is_same)
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
                let (length, time) = (about.len(), (about.mtime(), about.mtime_nsec()));
                all.push(format!("{} {length} {time:?}", path.display()));
            }
            if all.len() == before {
                return Err(self.missing(out));
            }
        }
        all.sort();
        Ok(disk::fingerprint(all.iter().map(|line| ("made", line.as_bytes()))))
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
