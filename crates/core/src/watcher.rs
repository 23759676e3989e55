//! What a watcher is to keep running: fully resolved, nothing left to choose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::memory::MemoryLimits;
use crate::names::{WatcherName, WorkerId};
use crate::output::Output;
use crate::secrets::Secrets;

/// Resource limits of a process; 0 = not set (as in the plugin format).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimits {
    /// RLIMIT_AS, bytes.
    pub address_space: u64,
    /// RLIMIT_NOFILE.
    pub open_files: u64,
    /// RLIMIT_STACK, bytes.
    pub stack: u64,
    /// RLIMIT_FSIZE, bytes.
    pub file_size: u64,
    /// Of all its processes together; no rlimit.
    #[serde(skip_serializing_if = "MemoryLimits::is_none")]
    pub memory: MemoryLimits,
    /// RLIMIT_CORE, KiB, as far as the hard limit allows; `None` = not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_kib: Option<u64>,
}

/// How it is observed that a worker is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Probe {
    /// Any HTTP answer of the worker to `HEAD path`.
    Http {
        /// The path asked for, beginning with `/`.
        path: String,
        /// The configuration names this path (`_http_test_endpoint`): it is asked for again
        /// while the worker serves, whatever its status.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        named: bool,
    },
    /// Any HTTP answer on a socket of its own, whose name is the same for each worker (of a role
    /// that others ask too).
    HttpAt {
        /// The socket.
        socket: PathBuf,
    },
    /// A connection to the worker is accepted.
    Connect,
    /// The worker says `READY=1` (sd_notify(3)) on `NOTIFY_SOCKET`.
    Notify,
    /// Somebody else says so (the front is ready when it has taken its route table).
    Told,
    /// Nothing can be asked: ready once it has lived this long, milliseconds.
    Alive {
        /// The time to live.
        for_ms: u64,
    },
}

impl Probe {
    /// The worker can be asked, also later.
    pub fn asks(&self) -> bool {
        matches!(self, Probe::Http { .. } | Probe::HttpAt { .. } | Probe::Connect)
    }
}

/// "Keep `count` of this command running, with these limits."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherSpec {
    /// Its name.
    pub name: WatcherName,
    /// How many workers are wanted.
    pub count: u32,
    /// The command. The texts `{unix_socket_path}` and `$(circus.wid)` in it (and
    /// in the values of `env`) are replaced for each worker when it is spawned.
    pub argv: Vec<String>,
    /// The whole environment; nothing else is inherited.
    pub env: BTreeMap<String, String>,
    /// More of it, whose values are shown nowhere.
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub secrets: Secrets,
    /// The working directory.
    pub cwd: PathBuf,
    /// Resource limits.
    pub rlimits: Rlimits,
    /// Where its output goes. When `output_per_worker` is set, `_workerN` is added
    /// to the file stems.
    pub output: Output,
    /// One log file per worker slot.
    pub output_per_worker: bool,
    /// Where its socket is: the path without its end; the worker N.K listens on
    /// `{socket_stem}_N.K.socket`. `None` when it serves nothing.
    pub socket_stem: Option<PathBuf>,
    /// The link that people know, to the admitted worker's socket:
    /// `{socket_link_stem}_N.socket`.
    pub socket_link_stem: Option<PathBuf>,
    /// Each worker listens on a port of 127.0.0.1, its own, instead of a socket: `{port}` and
    /// `{host}` in its command and environment are replaced too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_port: bool,
    /// Nothing in its configuration says that it listens on its port: where it lives and listens on
    /// nothing at all, it is taken for a program that serves nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub need_not_listen: bool,
    /// The upstream whose requests it serves, if any.
    pub upstream: Option<String>,
    /// How readiness is observed.
    pub probe: Probe,
    /// Longest wait for readiness, milliseconds.
    pub start_timeout_ms: u64,
    /// Longest wait for the requests it holds, milliseconds.
    pub drain_timeout_ms: u64,
    /// Longest wait for the answer to a request: the timeout of its upstream, milliseconds;
    /// 0 when it serves none. No worker is replaced when only this changes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answer_timeout_ms: u64,
    /// The signal on which it writes what it does to its log, if there is one: it gets it when it
    /// does not answer, before it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_signal: Option<i32>,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// From that signal to SIGKILL, milliseconds; 0 = wait for ever.
    pub stop_timeout_ms: u64,
    /// A replacement may run beside the old worker. When false, the old one is
    /// stopped first and its requests wait in the front.
    pub overlap: bool,
    /// Replace each worker after a life between once and twice this, seconds; 0 = never.
    pub max_age_s: u64,
    /// Names of the listening sockets it inherits (the front only).
    pub listeners: Vec<String>,
    /// The version of its plugin, which it is told; empty for a role.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// On this signal, `SIGRTMAX - 4`, the servers of this program for Python apps write what their
/// threads do to their log.
pub const STACK_SIGNAL: i32 = 60;

impl WatcherSpec {
    /// What a worker runs, as a number: equal for specs that differ only in their count or
    /// in `answer_timeout_ms` or `version`. (The counts of a plugin's apps are in its environment too; no worker
    /// is replaced for them.)
    pub fn fingerprint(&self) -> u64 {
        let (count, answer_timeout_ms, version) = (0, 0, String::new());
        let mut same = Self { count, answer_timeout_ms, version, ..self.clone() };
        same.env.retain(|key, _| !is_count(key) && !is_of_tls(key));
        let text = serde_json::to_vec(&same);
        crate::fingerprint::of(&text.unwrap_or_default())
    }

    /// The number of the release that its workers run, where they run below
    /// `releases/PLUGIN/NUMBER`; empty for a developer's directory and for roles.
    pub fn release(&self) -> &str {
        let Some(plugin) = self.name.plugin() else { return "" };
        release_in(&self.cwd, plugin)
    }

    /// How many workers are replaced at a time in a restart: a quarter, at least one.
    pub fn rolling_width(&self) -> usize {
        (self.count as usize / 4).max(1)
    }

    /// The age at which a worker is replaced, between once and twice `max_age_s`; `None`: it
    /// never is. Each worker has an age of its own, so that workers that were started together
    /// are not replaced together; it is the same for every daemon that asks.
    pub fn life_of(&self, worker: &WorkerId) -> Option<Duration> {
        let max_age = Duration::from_secs(self.max_age_s);
        // The high bits of FNV-1a hardly differ between names that differ at their end.
        let mixed = crate::fingerprint::of(worker.to_string().as_bytes())
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_right(32)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let fraction = mixed as f64 / u64::MAX as f64;
        (!max_age.is_zero()).then(|| max_age + max_age.mul_f64(fraction))
    }

    /// The socket that a worker listens on, if it serves something.
    pub fn socket_of(&self, worker: &WorkerId) -> Option<PathBuf> {
        self.socket_stem.as_deref().map(|stem| socket_path(stem, worker))
    }

    /// The link that people know, to the socket of the worker that serves the slot.
    pub fn socket_link_of(&self, worker: &WorkerId) -> Option<PathBuf> {
        let stem = self.socket_link_stem.as_deref()?;
        Some(with_end(stem, &format!("_{}.socket", worker.slot)))
    }
}

/// The number in `…/releases/PLUGIN/NUMBER/…`; empty if the directory is no release.
pub fn release_in<'a>(dir: &'a Path, plugin: &str) -> &'a str {
    let names: Vec<&str> = dir.iter().filter_map(|name| name.to_str()).collect();
    let numbered = names.windows(3).find(|names| names[..2] == ["releases", plugin]);
    numbered.map_or("", |names| names[2])
}

fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

/// `numprocesses` of an app or extra daemon, as it is exported.
fn is_count(variable: &str) -> bool {
    let rest = variable.strip_prefix("MFSERV_CURRENT_PLUGIN_").unwrap_or_default();
    rest.ends_with("_NUMPROCESSES")
        && (rest.starts_with("APP_") || rest.starts_with("EXTRA_DAEMON_"))
}

/// A key of the node about TLS with clients, as it is exported: it is a matter of the front alone.
fn is_of_tls(variable: &str) -> bool {
    let begins = ["MFSERV_NGINX_SSL_", "MFSERV_FRONT_TLS_", "MFSERV_FRONT_HSTS_"];
    begins.iter().any(|begin| variable.starts_with(begin))
        || ["MFSERV_NGINX_HTTPS_PORT", "MFSERV_FRONT_HTTPS_REDIRECT"].contains(&variable)
}

/// The socket of a worker below a [`WatcherSpec::socket_stem`]: `{stem}_N.K.socket`.
pub fn socket_path(stem: &Path, worker: &WorkerId) -> PathBuf {
    with_end(stem, &format!("_{}.{}.socket", worker.slot, worker.incarnation))
}

/// The [`WatcherSpec::socket_stem`] of the front, in the directory of sockets (`var/run`).
pub fn front_socket_stem(run_dir: &Path) -> PathBuf {
    run_dir.join("front")
}

fn with_end(stem: &Path, end: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(end);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Rotation;

    fn spec() -> WatcherSpec {
        WatcherSpec {
            name: WatcherName::app("p", "a"),
            count: 1,
            argv: Vec::new(),
            env: BTreeMap::new(),
            secrets: Secrets::default(),
            cwd: "/".into(),
            rlimits: Rlimits::default(),
            output: Output { stdout: "/log".into(), stderr: None, rotation: Rotation::default() },
            output_per_worker: false,
            socket_stem: Some("/run/a".into()),
            socket_link_stem: Some("/var/a".into()),
            on_port: false,
            need_not_listen: false,
            upstream: None,
            probe: Probe::Told,
            start_timeout_ms: 0,
            drain_timeout_ms: 0,
            answer_timeout_ms: 0,
            stack_signal: None,
            stop_signal: 15,
            stop_timeout_ms: 0,
            overlap: true,
            max_age_s: 0,
            listeners: Vec::new(),
            version: String::new(),
        }
    }

    fn worker(slot: u32, incarnation: u64) -> WorkerId {
        WorkerId::new(WatcherName::app("p", "a"), slot, incarnation)
    }

    #[test]
    fn specs_that_differ_in_counts_patience_or_version_run_the_same() {
        let with = |key: &str, count| {
            let env = BTreeMap::from([(format!("MFSERV_CURRENT_PLUGIN_{key}"), "2".into())]);
            WatcherSpec { env, count, ..spec() }.fingerprint()
        };
        assert_eq!(with("APP_MAIN_NUMPROCESSES", 3), spec().fingerprint());
        assert_eq!(with("EXTRA_DAEMON_A_NUMPROCESSES", 1), spec().fingerprint());
        let patient = WatcherSpec { answer_timeout_ms: 9, ..spec() };
        assert_eq!(patient.fingerprint(), spec().fingerprint());
        let renamed = WatcherSpec { version: "2".into(), ..spec() };
        assert_eq!(renamed.fingerprint(), spec().fingerprint());
        let tls = BTreeMap::from([
            ("MFSERV_NGINX_SSL_CERTIFICATE_KEY".into(), "/k".into()),
            ("MFSERV_NGINX_HTTPS_PORT".into(), "443".into()),
        ]);
        assert_eq!(WatcherSpec { env: tls, ..spec() }.fingerprint(), spec().fingerprint());
        for other in ["CUSTOM_NUMPROCESSES", "APP_MAIN_TIMEOUT", "NUMPROCESSES"] {
            assert_ne!(with(other, 1), spec().fingerprint(), "{other}");
        }
    }

    #[test]
    fn a_quarter_of_the_workers_is_replaced_at_a_time() {
        for (count, width) in [(0, 1), (1, 1), (7, 1), (8, 2), (21, 5)] {
            assert_eq!(WatcherSpec { count, ..spec() }.rolling_width(), width, "of {count}");
        }
    }

    #[test]
    fn workers_live_between_once_and_twice_their_maximum_age_and_not_equally_long() {
        assert_eq!(spec().life_of(&worker(1, 1)), None);
        let spec = WatcherSpec { max_age_s: 1000, ..spec() };
        let lives = (1..=1000).map(|n| spec.life_of(&worker(n, u64::from(n))).unwrap());
        let mut hundreds = [0; 10];
        for life in lives {
            let over = life.as_secs_f64() - 1000.0;
            assert!((0.0..=1000.0).contains(&over), "{life:?}");
            hundreds[(over / 100.0).min(9.0) as usize] += 1;
        }
        // 100 would be in each, if they were spread perfectly.
        assert!(hundreds.iter().all(|n| (60..=140).contains(n)), "{hundreds:?}");
    }

    #[test]
    fn a_socket_is_named_by_slot_and_incarnation_and_its_link_by_the_slot() {
        let (spec, worker) = (spec(), worker(2, 7));
        assert_eq!(spec.socket_of(&worker), Some("/run/a_2.7.socket".into()));
        assert_eq!(spec.socket_link_of(&worker), Some("/var/a_2.socket".into()));
        let front = socket_path(&front_socket_stem(Path::new("/run")), &worker);
        assert_eq!(front, Path::new("/run/front_2.7.socket"));
    }
}
