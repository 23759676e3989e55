//! Resource limits of a plugin that break the server which it runs.

use super::schema::{
    COMMAND_LINE, Kind, MAX_BODY, MEMORY_HIGH, MEMORY_LIMIT, REQUESTS_PER_WORKER, RLIMIT_AS,
    RLIMIT_FSIZE, RLIMIT_STACK,
};
use super::{Resolver, Section};
use crate::keys::NGINX_UPLOAD_MAX_BODY_MB;
use crate::layers::Value;
use crate::memory::size_text;
use crate::route::room_for_bodies;

/// Servers with threads of their own, or an engine, need this address space, bytes: 40 threads
/// reserve 8 MiB of stack and up to 64 MiB of heap each; V8 reserves some GiB.
const ADDRESS_SPACE: u64 = 4_000_000_000;
/// The stack that Node.js and Python assume that they have, bytes.
const STACK: u64 = 1 << 20;
/// Programs that start threads or an engine by themselves.
const THREADED: &[&str] = &["uvicorn", "hypercorn", "daphne", "granian", "node", "nodejs", "npm"];

impl Resolver<'_> {
    /// Old plugins keep their limits; what these will break is said.
    pub(super) fn check_limits(&mut self, kind: Kind, values: &[&Value], section: &Section) {
        let Kind::App(_) = kind else { return };
        let argv = shlex::split(&section.get(COMMAND_LINE)).unwrap_or_default();
        if argv.is_empty() {
            return;
        }
        let upload_mb = self.env.get(UPLOAD).and_then(|text| text.parse().ok());
        let upload_mb: u64 = upload_mb.or_else(default_upload_mb).unwrap_or(0);
        let is_set = |limit: u64, enough: u64| limit > 0 && limit < enough;
        let threads = starts_threads(&argv);
        let of_node = if upload_mb == 0 { u64::MAX } else { upload_mb << 20 };
        let upload = section.get(MAX_BODY).unwrap_or(of_node);
        self.check_bodies(values, section, of_node);
        let fsize = "the server writes a large upload into a file first, and is killed by SIGXFSZ \
                     beyond this limit: up to [nginx] upload_max_body_size, or _max_body_size of the \
                     app, is let in";
        for (key, breaks, why, cure) in [
            (
                RLIMIT_AS.row.name,
                threads && is_set(section.get(RLIMIT_AS), ADDRESS_SPACE),
                "its server starts threads or an engine that reserve more address space than this: \
                 it cannot start, or fails with 40 requests at a time",
                "rlimit_as=0",
            ),
            (
                RLIMIT_FSIZE.row.name,
                is_set(section.get(RLIMIT_FSIZE), upload),
                fsize,
                "rlimit_fsize=0",
            ),
            (
                RLIMIT_STACK.row.name,
                is_set(section.get(RLIMIT_STACK), STACK),
                "Python and Node.js assume 1 MiB of stack, and crash where recursion needs it",
                "rlimit_stack=0",
            ),
        ] {
            let Some(value) = values.iter().find(|value| value.key == key && breaks) else {
                continue;
            };
            let what = format!("[{}] {key}={} is too small", value.section, value.value);
            let at = value.origin.location();
            self.warn(&what, Some(why), at, &format!("write {cure} (no limit) in this line"));
        }
    }
}

impl Resolver<'_> {
    /// Bodies that are let in and find no room get 503 after their client has sent gigabytes.
    fn check_bodies(&mut self, values: &[&Value], section: &Section, of_node: u64) {
        let (room, _) = room_for_bodies(of_node);
        let lets_in = section.get(MAX_BODY).unwrap_or(0);
        // Then they go straight to the worker.
        let is_streamed = section.get(REQUESTS_PER_WORKER) == Some(0);
        let value = values.iter().find(|value| value.key == MAX_BODY.row.name);
        let Some(value) = value.filter(|_| lets_in > room && !is_streamed) else { return };
        let (room, mib) = (size_text(room), room >> 20);
        let what = format!(
            "[{}] {}={} lets in larger bodies than there is room for",
            value.section, value.key, value.value
        );
        let why = format!(
            "where workers take a limited number of requests (_requests_per_worker), bodies are \
             received into files first; those of one app have {room} together, and requests beyond \
             get 503 (no_room)"
        );
        let help = format!(
            "write at most {room} ({mib}m), or have more room with [nginx] upload_max_body_size of the node"
        );
        self.warn(&what, Some(&why), value.origin.location(), &help);
    }

    /// A worker must be replaced before it is killed.
    pub(super) fn check_memory(&mut self, values: &[&Value], section: &Section) {
        let (limit, high) = (section.get(MEMORY_LIMIT), section.get(MEMORY_HIGH));
        let key = MEMORY_HIGH.row.name;
        let Some(value) = values.iter().find(|value| value.key == key) else { return };
        if limit == 0 || high < limit {
            return;
        }
        let reason = format!(
            "[{}] {key}: {} is not below memory_limit, {}: no worker would be replaced before it \
             is killed",
            value.section,
            size_text(high),
            size_text(limit)
        );
        let help = format!("write about {}", size_text(limit / 4 * 3));
        self.refuse(&reason, value.origin.location(), &help);
    }
}

/// What the module exports `[nginx] upload_max_body_size` as, MB.
const UPLOAD: &str = "MFSERV_NGINX_UPLOAD_MAX_BODY_SIZE";

fn default_upload_mb() -> Option<u64> {
    NGINX_UPLOAD_MAX_BODY_MB.row().default?.parse().ok()
}

fn starts_threads(argv: &[String]) -> bool {
    let named = |word: &String| THREADED.contains(&word.rsplit('/').next().unwrap_or_default());
    let option = |word: &String| {
        ["--asgi", "--threads", "--blocking-threads", "--worker-class=gthread"]
            .iter()
            .any(|option| word.starts_with(option))
    };
    argv.iter().any(|word| named(word) || option(word))
}

#[cfg(test)]
mod tests {
    use crate::plugin_config::tests::{accepted, refused, warned};

    #[test]
    fn memory_limits_are_read_in_units_and_a_high_that_is_not_below_the_limit_is_refused() {
        let text = "_cmd_and_args=a\nmemory_limit=512M\nmemory_high = 400 MiB\n";
        let job = "[job_j]\nschedule=@daily\n_cmd_and_args=a\nmemory_limit=1G\n";
        let spec = accepted(&format!("[app_main]\n{text}[extra_daemon_d]\n{text}{job}"));
        for command in [&spec.apps[0].command, &spec.extra_daemons[0].command] {
            let memory = command.rlimits.memory;
            assert_eq!((memory.limit, memory.high), (512 << 20, 400 << 20));
        }
        assert_eq!(spec.jobs[0].rlimits.memory.limit, 1 << 30);
        let app = |lines: &str| format!("[app_main]\n_cmd_and_args=a\n{lines}\n");
        assert!(accepted(&app("")).apps[0].command.rlimits.memory.is_none());
        accepted(&app("memory_high=400M"));
        accepted(&app("memory_limit=0\nmemory_high=400M"));
        for high in ["600M", "512M"] {
            let lines = format!("memory_limit=512M\nmemory_high={high}");
            refused(&app(&lines), 11, &["memory_high", "is not below memory_limit, 512 MiB"]);
        }
        refused(&app("memory_limit=512X"), 10, &["memory_limit", "not an amount of memory"]);
        refused(&app("memory_limit=10M"), 10, &["10 MiB is too small"]);
        refused(&app("memory_limt=1G"), 10, &["did you mean memory_limit?"]);
        let job = "[job_j]\nschedule=@daily\n_cmd_and_args=a\nmemory_high=1G\n";
        refused(job, 11, &["memory_high: unknown key"]);
    }

    #[test]
    fn bodies_that_find_no_room_are_warned_of_at_their_line_where_they_are_received_whole() {
        let app = |lines: &str| {
            format!("[app_main]\n_cmd_and_args=a {{unix_socket_path}}\nnumprocesses=1\n{lines}\n")
        };
        for limit in ["0", "5g"] {
            let line = format!("_max_body_size={limit}");
            warned(&app(&line), 11, &[&line, "4 GiB together", "no_room", "upload_max_body_size"]);
            accepted(&app(&format!("{line}\n_requests_per_worker=0")));
        }
        accepted(&app("_max_body_size=4g"));
        accepted(&app(""));
    }

    #[test]
    fn limits_that_break_the_server_are_warned_of_at_their_line_and_others_are_not() {
        let app = |command: &str, limit: &str| {
            format!("[app_main]\n_cmd_and_args={command}\nnumprocesses=1\n{limit}\n")
        };
        for (command, limit, part) in [
            ("uvicorn main:app --uds {unix_socket_path}", "rlimit_as=1000000000", "rlimit_as=0"),
            ("mfserv_worker --asgi m:a s", "rlimit_as=2000000000", "rlimit_as=0"),
            ("python3 -m uvicorn m:a", "rlimit_as=2000000000", "rlimit_as=0"),
            ("/usr/bin/node server.js {unix_socket_path}", "rlimit_as=3999999999", "rlimit_as=0"),
            ("gunicorn --threads=8 m:a", "rlimit_as=1000000000", "rlimit_as=0"),
            ("bjoern_wrapper.py m {unix_socket_path}", "rlimit_fsize=100000000", "SIGXFSZ"),
            ("node server.js", "rlimit_fsize=1", "upload_max_body_size"),
            ("bjoern_wrapper.py m {unix_socket_path}", "rlimit_stack=65536", "rlimit_stack=0"),
        ] {
            warned(&app(command, limit), 11, &[part, "too small"]);
        }
        for (command, limit) in [
            ("uvicorn main:app", "rlimit_as=0"),
            ("uvicorn main:app", "rlimit_as=4000000000"),
            ("bjoern_wrapper.py m {unix_socket_path}", "rlimit_as=1000000000"),
            ("node server.js", "rlimit_fsize=104857600"),
            ("node server.js", "rlimit_stack=10000000"),
        ] {
            accepted(&app(command, limit));
        }
    }
}
