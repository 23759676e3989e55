//! How the front reaches the workers of an app: by a unix socket or by a port. This is decided here,
//! by the command, and nowhere else.

use crate::diagnostic::Diagnostic;
use crate::exit_code::Kind;
use crate::names::WatcherName;
use crate::plan::Count;
use crate::plan::command::{option, program_of};
use crate::plugin_spec::{AppSpec, PluginSpec, ReadyBy};
use crate::watcher::WatcherSpec;

const SOCKET: &str = "{unix_socket_path}";
const PORT: &str = "{port}";
const ACTIVATE: &str = "socket_activate";

/// How a worker gets its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// On a unix socket, `{unix_socket_path}`.
    Socket,
    /// On a port of 127.0.0.1: `{port}` in its command, or `PORT` in its environment.
    Port,
    /// Not at all.
    Nothing,
}

impl Transport {
    /// By the command of an app. An error says why it is not started, and what to do.
    pub fn of(
        plugin: &PluginSpec,
        app: &AppSpec,
        argv: &[String],
    ) -> Result<Self, (String, String)> {
        let has = |placeholder: &str| argv.iter().any(|word| word.contains(placeholder));
        if let Some(at) = activated(argv) {
            check_activation(app, argv, at)?;
        }
        match (has(SOCKET), has(PORT)) {
            (true, true) => Err((
                format!("has both {SOCKET} and {PORT}"),
                "a worker takes requests on a socket or on a port: remove one of them".into(),
            )),
            (true, false) => Ok(Self::Socket),
            (false, has_port) => {
                let is_served = has_port || is_routed(plugin, app);
                let takes_http = !app.fastcgi && !argv.is_empty();
                Ok(if is_served && takes_http { Self::Port } else { Self::Nothing })
            }
        }
    }
}

/// Where the words after `socket_activate` begin, if it is the command.
fn activated(argv: &[String]) -> Option<usize> {
    argv.iter().take(2).position(|word| word == ACTIVATE).map(|at| at + 1)
}

/// Why an activated program is not started, and what to do.
fn check_activation(app: &AppSpec, argv: &[String], at: usize) -> Result<(), (String, String)> {
    if argv.get(at).is_none_or(|word| word != SOCKET) {
        let why = format!("has {ACTIVATE} without the socket to listen on");
        return Err((why, format!("write `{ACTIVATE} {SOCKET} PROGRAM ARGUMENTS`")));
    }
    let by_connection = match app.command.ready {
        Some(ReadyBy::Connect) => "_ready=connect",
        Some(ReadyBy::Notify) => return Ok(()),
        _ if app.fastcgi => "_gateway_interface_mode=fastcgi",
        _ => return Ok(()),
    };
    let why = format!(
        "has {ACTIVATE} with {by_connection}: a connection is accepted before the program runs, so \
         it would be ready too early"
    );
    let other = if app.fastcgi { "_ready=notify" } else { "_ready=http or _ready=notify" };
    Err((why, format!("use {other}")))
}

/// An app on a port says that it listens there: in its command, its environment, or by a key.
pub(super) fn says_port(app: &AppSpec, watcher: &WatcherSpec) -> bool {
    let words = || watcher.argv.iter().chain(watcher.env.values());
    let has_key = matches!(app.command.ready, Some(ReadyBy::Http | ReadyBy::Connect));
    has_key
        || app.http_test.is_some()
        || words().any(|word| word.contains(PORT))
        || watcher.argv.iter().any(|word| word.contains("PORT"))
}

/// Requests have a way to it.
fn is_routed(plugin: &PluginSpec, app: &AppSpec) -> bool {
    let has_route = app.prefix_routing || app.virtual_domains || !app.hosts.is_empty();
    has_route && !plugin.routes_disabled
}

/// Apps that are routed, and whose workers no request can reach.
pub(super) fn unreachable(
    plugin: &PluginSpec,
    watchers: &[(WatcherSpec, Count)],
) -> Vec<Diagnostic> {
    let routed = plugin.apps.iter().filter(|app| is_routed(plugin, app));
    let lost = routed.filter_map(|app| {
        let name = WatcherName::app(&plugin.name, &app.command.name);
        let (watcher, _) = watchers.iter().find(|(watcher, _)| watcher.name == name)?;
        let (why, help) = reason(app, watcher).filter(|_| watcher.count > 0)?;
        Some(
            Diagnostic::warning(format!(
                "{}/{} never gets a request",
                plugin.name, app.command.name
            ))
            // A check takes this kind for an error.
            .kind(Kind::Failed)
            .because(why)
            .help(help)
            .about(&plugin.name),
        )
    });
    lost.collect()
}

/// Why no request can reach the workers of this command, and what to write.
fn reason(app: &AppSpec, watcher: &WatcherSpec) -> Option<(String, String)> {
    let argv = &watcher.argv;
    let learns = |placeholder: &str| argv.iter().any(|word| word.contains(placeholder));
    if learns(SOCKET) || learns(PORT) || argv.is_empty() {
        return None;
    }
    if app.fastcgi {
        return Some((
            format!("its _cmd_and_args has no {SOCKET}, and FastCGI is spoken on sockets alone"),
            format!("have the program listen on {SOCKET}"),
        ));
    }
    if let Some(word) = unexpanded(argv) {
        return Some((
            format!("its _cmd_and_args has `{word}`, and no shell replaces it"),
            format!("write {PORT}, or `sh -c 'exec …'`"),
        ));
    }
    let server = Server::of(argv)?;
    Some((
        format!(
            "its _cmd_and_args has neither {SOCKET} nor {PORT}, and {} does not listen on the PORT \
             of its environment then",
            server.name
        ),
        format!(
            "write `{}`; a program that serves no HTTP belongs into an [extra_daemon_…] section",
            server.write
        ),
    ))
}

/// A word with `$PORT`, which the program gets as it is written.
fn unexpanded(argv: &[String]) -> Option<&String> {
    const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "fish"];
    if argv.iter().any(|word| SHELLS.contains(&program_of(word))) {
        return None;
    }
    // Several words in one are a command for a program that has a shell of its own.
    let is_one = |word: &&String| !word.contains(char::is_whitespace);
    let names = |word: &&String| word.contains("$PORT") || word.contains("${PORT}");
    argv.iter().skip(1).filter(is_one).find(names)
}

/// The command without what only starts another program: `env A=B`, `npx`, `python3 -m`.
fn without_launchers(argv: &[String]) -> &[String] {
    let mut rest = argv;
    while let Some((first, after)) = rest.split_first() {
        let name = program_of(first);
        if !(matches!(name, "env" | "npx") || name.starts_with("python")) {
            break;
        }
        rest = after;
        while let Some((word, after)) = rest.split_first() {
            let has_value = matches!(word.as_str(), "-C" | "-u" | "-X" | "-W") && name != "npx";
            // `python3 -u` has none.
            let has_value = has_value && (word != "-u" || name == "env");
            let is_setting = name == "env" && word.contains('=');
            match has_value {
                true => rest = after.get(1..).unwrap_or_default(),
                false if word == "-m" => {
                    rest = after;
                    break;
                }
                false if word.starts_with('-') || is_setting => rest = after,
                false => break,
            }
        }
    }
    rest
}

/// A server that listens where its command line says, whatever `PORT` is.
struct Server {
    name: String,
    write: String,
}

/// By name: what is to be written. Of several words, all have to be there.
const BY_OPTION: &[(&str, &str)] = &[
    ("mfserv_worker", "mfserv_worker … {unix_socket_path}"),
    ("bjoern_wrapper.py", "bjoern_wrapper.py … {unix_socket_path}"),
    ("uvicorn", "uvicorn --uds {unix_socket_path} …"),
    ("hypercorn", "hypercorn --bind unix:{unix_socket_path} …"),
    ("daphne", "daphne -u {unix_socket_path} …"),
    ("waitress-serve", "waitress-serve --unix-socket={unix_socket_path} …"),
    ("granian", "granian --host {host} --port {port} …"),
    ("uwsgi", "uwsgi --http-socket {unix_socket_path} …"),
    ("http.server", "python3 -m http.server --bind {host} {port}"),
    ("streamlit run", "streamlit run … --server.address {host} --server.port {port}"),
    ("flask run", "flask … run --host {host} --port {port}"),
    ("php -S", "php -S {host}:{port} …"),
];

impl Server {
    fn of(argv: &[String]) -> Option<Self> {
        // A module, a file or an option may have the same name.
        let argv = without_launchers(argv);
        let program = program_of(argv.first()?);
        let has_all = |names: &str| match names.split_once(' ') {
            Some((name, word)) => program == name && argv.iter().any(|it| it == word),
            None => program == names,
        };
        if let Some((name, write)) = BY_OPTION.iter().find(|(name, _)| has_all(name)) {
            return Some(Self { name: (*name).into(), write: (*write).into() });
        }
        // It reads PORT, unless it is told otherwise.
        if program == "gunicorn" {
            option(argv, &["-b", "--bind"])?;
            let write = format!("gunicorn --bind unix:{SOCKET} …");
            return Some(Self { name: "gunicorn with --bind".into(), write });
        }
        let number = option(argv, &["--port"])?;
        number.parse::<u16>().ok()?;
        Some(Self {
            name: format!("{program} with --port {number}"),
            write: "--port {port}".into(),
        })
    }
}
