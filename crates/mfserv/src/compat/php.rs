//! `php_wrapper`: becomes php-fpm with a configuration for one worker of an app.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use mfserv_core::plan::{PROCESSES_VARIABLE, TIMEOUT_VARIABLE};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;

use super::places;
use crate::cli::plugins::env::become_command;
use crate::cli::report::Outcome;

/// Where Debian and others put it, which is not in the PATH of everybody.
const MORE_PLACES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// How many processes php-fpm has where the front does not count requests.
const DEFAULT_PROCESSES: u32 = 32;

/// Becomes php-fpm, which listens on a socket for an app.
#[derive(Debug, Parser)]
#[command(name = "php_wrapper")]
struct PhpWrapper {
    /// The plugin.
    plugin: String,
    /// The app.
    app: String,
    /// The socket to listen on.
    #[arg(value_name = "UNIX_SOCKET")]
    socket: PathBuf,
}

pub fn php_wrapper() -> Result<Outcome, Diagnostic> {
    let is_name = |word: &OsString| Path::new(word).file_name() == Some("php_wrapper".as_ref());
    let args = PhpWrapper::parse_from(std::env::args_os().skip_while(|word| !is_name(word)));
    let program = find().ok_or_else(|| {
        Diagnostic::error("php-fpm is not there")
            .kind(Kind::Failed)
            .because(format!("no php-fpm or php-fpmX.Y in PATH, {}", MORE_PLACES.join(", ")))
            .help("install it, on Debian with `apt-get install php-fpm`")
    })?;
    let plugin_dir = std::env::current_dir()
        .map_err(|error| Diagnostic::error("the directory is unknown").because(error))?;
    let name = format!("php-fpm.{}.conf", place_of(&args.socket));
    let file = places()?.tmp().join("config_auto").join(name);
    let shows_errors = std::env::var("MFSERV_CURRENT_APP_DEBUG").is_ok_and(|flag| flag == "1");
    let (numbers, own) = (Numbers::of_environment(), own_text(&plugin_dir)?);
    disk::write(&file, &configuration(&args.socket, numbers, shows_errors, &own))?;
    let mut words = vec![program.display().to_string(), "--nodaemonize".into()];
    if rustix::process::geteuid().is_root() {
        words.push("--allow-to-run-as-root".into());
    }
    words.extend(["--fpm-config".into(), file.display().to_string()]);
    let own = plugin_dir.join("php.ini");
    if own.is_file() {
        words.extend(["--php-ini".into(), own.display().to_string()]);
    }
    let env = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    Ok(become_command(&words, &env.collect::<BTreeMap<_, _>>(), None))
}

/// The php-fpm of this machine: `php-fpm`, else the one with the highest version in its name.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = MORE_PLACES.iter().map(PathBuf::from);
    let dirs: Vec<_> = std::env::split_paths(&path).chain(more).collect();
    let plain = dirs.iter().map(|dir| dir.join("php-fpm")).find(|file| file.is_file());
    let versioned = || {
        let entries = dirs.iter().filter_map(|dir| dir.read_dir().ok()).flatten().flatten();
        let versions = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (major, minor) = name.strip_prefix("php-fpm")?.split_once('.')?;
            let version: (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
            entry.path().is_file().then(|| (version, entry.path()))
        });
        versions.max().map(|(_, file)| file)
    };
    plain.or_else(versioned)
}

/// The part of a socket's name that a worker has in common with its successor: two workers that may
/// start together, of any apps, each have a file of their own.
fn place_of(socket: &Path) -> String {
    let stem = socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match stem.rsplit_once('.') {
        Some((place, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => place.into(),
        _ => stem,
    }
}

/// The numbers that the configuration of the node and of the plugin decide.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    /// How many requests are handled at a time, if the front counts them.
    processes: Option<u32>,
    /// How long the front waits for an answer, and between two parts of it, seconds.
    timeout_s: Option<u64>,
}

/// php-fpm ends a script after so many times the timeout of the app, and not before so long. It counts
/// from the beginning of the request: an answer that flows (events, an export) may take long.
const NET: (u64, u64) = (10, 600);

impl Numbers {
    fn of_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let processes = number(PROCESSES_VARIABLE).and_then(|count| count.try_into().ok());
        Self {
            processes: processes.filter(|count| *count > 0),
            timeout_s: number(TIMEOUT_VARIABLE),
        }
    }
}

/// The configuration: ours, then the text of the plugin, then what the front relies on.
fn configuration(socket: &Path, numbers: Numbers, shows_errors: bool, own: &[u8]) -> Vec<u8> {
    let processes = numbers.processes.unwrap_or(DEFAULT_PROCESSES);
    let spare = processes.div_ceil(4).max(2).min(processes);
    let shows_errors = if shows_errors { "on" } else { "off" };
    let mut text = format!(
        "; Generated by php_wrapper at each start of a worker. A file php-fpm.conf in the directory of \
         the\n; plugin is a part of this, a file php.ini there is read in place of that of the \
         machine.\n\
         [global]\nerror_log = /proc/self/fd/2\n\
         ; What scripts do after their answer is waited for; the node ends it in the end.\n\
         process_control_timeout = 1d\n\n[www]\nlisten = \"{}\"\nlisten.mode = 0600\n\
         pm = dynamic\npm.max_children = {processes}\npm.start_servers = {}\n\
         pm.min_spare_servers = 1\npm.max_spare_servers = {spare}\nclear_env = no\n\
         catch_workers_output = yes\ndecorate_workers_output = no\n\
         security.limit_extensions = .php\n\
         php_flag[log_errors] = on\nphp_value[error_log] = /proc/self/fd/2\n\
         php_flag[display_errors] = {shows_errors}\n",
        socket.display(),
        processes.min(2),
    );
    if let Some(seconds) = numbers.timeout_s.filter(|seconds| *seconds > 0) {
        let (times, least) = NET;
        let _ = writeln!(
            text,
            "; For scripts for whose answer the front does not wait any more: they hold a process.\n\
             request_terminate_timeout = {}",
            seconds.saturating_mul(times).max(least)
        );
    }
    if rustix::process::geteuid().is_root() {
        text.push_str("user = root\ngroup = root\n");
    }
    let mut text = text.into_bytes();
    if !own.is_empty() {
        text.extend([b"\n; php-fpm.conf of the plugin:\n", own, b"\n"].concat());
    }
    if let Some(processes) = numbers.processes {
        let last = format!(
            "\n; The front gives no more requests at a time (_requests_per_worker).\n[www]\n\
             pm.max_children = {processes}\n"
        );
        text.extend(last.into_bytes());
    }
    text
}

/// The `php-fpm.conf` of the plugin; empty if it has none. Its text is copied: php-fpm takes the name of
/// a file to include for a pattern, which may match files of others. It may be in any encoding.
fn own_text(plugin_dir: &Path) -> Result<Vec<u8>, Diagnostic> {
    let own = plugin_dir.join("php-fpm.conf");
    match std::fs::read(&own) {
        Ok(text) => Ok(text),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(disk::failed("read", &own, why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_of_a_worker_has_a_file() {
        for (socket, place) in [
            ("/v/app_p_main_1.3.socket", "app_p_main_1"),
            ("/v/app_p_main_12.3.socket", "app_p_main_12"),
            ("/v/s", "s"),
            ("/v/a_b.c.socket", "a_b.c"),
        ] {
            assert_eq!(place_of(Path::new(socket)), place, "{socket}");
        }
    }

    #[test]
    fn the_text_of_the_plugin_is_copied_and_the_number_of_requests_has_the_last_word() {
        let text = |processes, timeout_s, own: &[u8]| {
            let text = configuration(Path::new("/s"), Numbers { processes, timeout_s }, false, own);
            String::from_utf8_lossy(&text).into_owned()
        };
        let of_one = text(Some(1), Some(7), b"pm.max_children = 3\n[x]\na = b");
        for line in ["pm.start_servers = 1", "a = b"] {
            assert!(of_one.lines().any(|own| own == line), "{line}: {of_one}");
        }
        assert!(!of_one.contains("include"), "{of_one}");
        assert!(of_one.ends_with("[www]\npm.max_children = 1\n"), "{of_one}");
        let of_many = text(None, None, b"pm.max_children = 3");
        assert!(of_many.ends_with("pm.max_children = 3\n"), "{of_many}");
        // An answer that flows may take longer than the front waits for each part of it.
        for (timeout_s, net) in [(7, Some("600")), (61, Some("610")), (0, None)] {
            let text = text(None, Some(timeout_s), b"");
            let mut lines = text.lines();
            let found = lines.find_map(|line| line.strip_prefix("request_terminate_timeout = "));
            assert_eq!(found, net, "{timeout_s}");
        }
    }

    #[test]
    fn the_text_of_the_plugin_may_be_in_any_encoding() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(own_text(dir.path()).unwrap(), b"");
        let latin = b"; d\xe9j\xe0 vu\npm.max_requests = 5";
        std::fs::write(dir.path().join("php-fpm.conf"), latin).unwrap();
        let own = own_text(dir.path()).unwrap();
        let numbers = Numbers { processes: None, timeout_s: None };
        let text = configuration(Path::new("/s"), numbers, false, &own);
        assert!(text.windows(latin.len()).any(|part| part == latin));
    }
}
