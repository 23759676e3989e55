//! `tmp/config_auto/circus.ini`: the watchers of the plan as a configuration of Circus, for
//! people.

use std::fmt::Write;
use std::sync::Arc;

use mfserv_core::plan::Plan;
use mfserv_core::watcher::WatcherSpec;

use super::super::node::Node;
use super::watchers::shown;
use crate::render;

/// What the file shows.
#[derive(Default)]
pub struct Shown {
    plan: Option<Arc<Plan>>,
    text: String,
    is_written: bool,
}

impl Shown {
    /// Writes the file if the plan says something else than before, or the file has gone. What
    /// a full disk has not taken is written when this is called again.
    pub fn follow(&mut self, node: &Node, plan: &Arc<Plan>) {
        let file = node.parts.options.places.shown_circus();
        if !self.plan.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan)) {
            let text = render(plan);
            self.is_written &= text == self.text;
            (self.plan, self.text) = (Some(plan.clone()), text);
        }
        if self.is_written && file.exists() {
            return;
        }
        let text = header(plan.generation, node.parts.world.clock.now_ms()) + &self.text;
        // Variables are filled in: some may be passwords.
        self.is_written = node.parts.world.disk.replace(&file, 0o600, text.as_bytes()).is_ok();
    }
}

fn header(generation: u64, now_ms: u64) -> String {
    format!(
        "# What mfserv keeps running, made from plan {generation} at {}.\n\
         # It is for people: no circusd reads it, and it is made again when something of it\n\
         # changes. {{unix_socket_path}}, {{port}} and $(circus.wid) differ from worker to worker.\n\
         # It may hold passwords: only this user may read it.\n",
        render::time(now_ms)
    )
}

fn render(plan: &Plan) -> String {
    let mut text = String::from("\n[circus]\n");
    let endpoint = |endpoint: &Option<_>| endpoint.as_ref().map(ToString::to_string);
    let circus = &plan.circus;
    line(&mut text, "check_delay", &circus.check_delay_s.to_string());
    line(&mut text, "endpoint", &endpoint(&circus.endpoint).unwrap_or_default());
    line(&mut text, "pubsub_endpoint", &endpoint(&circus.pubsub).unwrap_or_default());
    for spec in plan.watchers.values() {
        watcher(&mut text, spec);
    }
    text
}

fn watcher(text: &mut String, spec: &WatcherSpec) {
    let name = shown(&spec.name);
    let _ = write!(text, "\n[watcher:{name}]\n");
    let (program, args) = spec.argv.split_first().map_or(("", &[][..]), |(p, args)| (p, args));
    line(text, "cmd", program);
    line(text, "args", &args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" "));
    line(text, "working_dir", &spec.cwd.to_string_lossy());
    line(text, "numprocesses", &spec.count.to_string());
    let seconds = |ms: u64| (ms as f64 / 1000.0).to_string();
    match spec.stop_timeout_ms {
        0 => *text += "# a worker that is asked to stop is never killed\n",
        stop_ms => line(text, "graceful_timeout", &seconds(spec.drain_timeout_ms + stop_ms)),
    }
    line(text, "stop_signal", &spec.stop_signal.to_string());
    line(text, "max_age", &spec.max_age_s.to_string());
    let limits = [
        ("rlimit_as", spec.rlimits.address_space),
        ("rlimit_nofile", spec.rlimits.open_files),
        ("rlimit_stack", spec.rlimits.stack),
        ("rlimit_fsize", spec.rlimits.file_size),
        ("memory_limit", spec.rlimits.memory.limit),
        ("memory_high", spec.rlimits.memory.high),
    ];
    for (key, limit) in limits.into_iter().filter(|(_, limit)| *limit > 0) {
        line(text, key, &limit.to_string());
    }
    line(text, "stdout_stream.filename", &spec.output.stdout.to_string_lossy());
    if let Some(stderr) = &spec.output.stderr {
        line(text, "stderr_stream.filename", &stderr.to_string_lossy());
    }
    if let Some(plugin) = spec.name.plugin() {
        line(text, "mfserv_plugin", plugin);
    }
    let _ = write!(text, "\n[env:{name}]\n");
    for (variable, value) in &spec.env {
        line(text, variable, value);
    }
}

/// `key = value`; the lines of a value after its first are indented.
fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {}", value.replace('\n', "\n    "));
}

/// A word as a shell would read it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@{}+%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_values_of_several_lines_stay_what_they_are() {
        for (word, text) in
            [("a.py", "a.py"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), (";", "';'")]
        {
            assert_eq!(quoted(word), text);
        }
        let mut text = String::new();
        line(&mut text, "KEY", "one\n[watcher:x]");
        assert_eq!(text, "KEY = one\n    [watcher:x]\n");
    }
}
