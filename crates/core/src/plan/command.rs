//! The command line of an app: placeholders, splitting, and what it says about
//! how many requests a worker takes at a time.

use crate::route::Slots;

/// Splits a command as a POSIX shell would, without any expansion, and fills its
/// placeholders: `options` before the split, because they may be several words or
/// none; `values` after it, because a path with a blank is still one word.
/// `{unix_socket_path}` is left as it is: each worker has its own.
pub fn split_command(
    template: &str,
    options: &[(&str, &str)],
    values: &[(&str, &str)],
) -> Result<Vec<String>, String> {
    let fill = |text: &str, with: &[(&str, &str)]| {
        with.iter()
            .fold(text.to_string(), |text, (placeholder, value)| text.replace(placeholder, value))
    };
    let words = shlex::split(&fill(template, options))
        .ok_or("a quote is not closed, or it ends with a backslash")?;
    Ok(words.iter().map(|word| fill(word, values)).collect())
}

/// How many requests a worker of this command takes at a time, and whether its
/// connections may be kept, when the plugin does not say so itself.
///
/// A server that is not known is given a fresh connection for each request, which
/// every HTTP server understands.
pub fn slots_of(argv: &[String]) -> (Slots, bool) {
    let server = Server::of(argv);
    let finite = |n: u32| Slots::Finite { per_worker: n.max(1) };
    match server {
        Some(Server::Mfserv) => (finite(1), true),
        Some(Server::Unlimited) => (Slots::Unlimited, true),
        Some(Server::Gunicorn) => match option(argv, &["-k", "--worker-class"]) {
            Some(class) if !matches!(class, "sync" | "gthread") => (Slots::Unlimited, true),
            _ => {
                let workers = number(argv, &["-w", "--workers"]);
                (finite(workers * number(argv, &["--threads"])), true)
            }
        },
        Some(Server::Uwsgi) => {
            let workers = number(argv, &["-p", "--processes", "--workers"]);
            (finite(workers * number(argv, &["--threads"])), true)
        }
        Some(Server::Granian) => match option(argv, &["--interface"]) {
            Some("wsgi") => {
                let workers = number(argv, &["--workers"]);
                (finite(workers * number(argv, &["--blocking-threads", "--threads"])), true)
            }
            _ => (Slots::Unlimited, true),
        },
        None => (Slots::Unlimited, false),
    }
}

/// Whether it is the WSGI server of this program, unless the configuration names another one. With one
/// thread it can take requests by itself, from a queue; with several, each has a request at a time.
pub fn is_own_wsgi(argv: &[String]) -> bool {
    let other = option(argv, &["--server"]).is_some_and(|server| server != "mfserv");
    matches!(Server::of(argv), Some(Server::Mfserv)) && !other
}

/// How many threads this command names.
pub fn threads_of(argv: &[String]) -> Option<u32> {
    option(argv, &["--threads"])?.parse().ok().filter(|&threads| threads > 0)
}

/// Whether it is a server of this program, for WSGI or ASGI apps, which knows
/// [`STACK_SIGNAL`](crate::watcher::STACK_SIGNAL).
pub fn is_own(argv: &[String]) -> bool {
    let named = argv.iter().find_map(|word| Server::named(program_of(word)));
    matches!(named, Some(Server::Mfserv))
}

enum Server {
    /// The WSGI server of this program; its ASGI server takes any number of requests.
    Mfserv,
    Unlimited,
    Gunicorn,
    Uwsgi,
    Granian,
}

impl Server {
    fn of(argv: &[String]) -> Option<Server> {
        match argv.iter().find_map(|word| Server::named(program_of(word))) {
            Some(Server::Mfserv) if argv.iter().any(|word| word == "--asgi") => {
                Some(Server::Unlimited)
            }
            server => server,
        }
    }

    fn named(program: &str) -> Option<Server> {
        Some(match program {
            "bjoern_wrapper.py" | "mfserv_worker" => Server::Mfserv,
            "uvicorn" | "hypercorn" | "daphne" | "node" | "nodejs" => Server::Unlimited,
            // What they start is a server of Node.
            "npm" | "npx" | "yarn" | "pnpm" => Server::Unlimited,
            "gunicorn" => Server::Gunicorn,
            "uwsgi" | "pyuwsgi" => Server::Uwsgi,
            "granian" => Server::Granian,
            _ => return None,
        })
    }
}

/// The file name of a program.
pub(super) fn program_of(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The value of an option, in any of its spellings (`-w 4`, `-w4`, `--workers=4`).
pub(super) fn option<'a>(argv: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut words = argv.iter().map(String::as_str);
    while let Some(word) = words.next() {
        for name in names {
            match word.strip_prefix(name) {
                Some("") => return words.next(),
                Some(rest) if name.starts_with("--") => {
                    if let Some(value) = rest.strip_prefix('=') {
                        return Some(value);
                    }
                }
                Some(rest) => return Some(rest),
                None => {}
            }
        }
    }
    None
}

fn number(argv: &[String], names: &[&str]) -> u32 {
    option(argv, names).and_then(|value| value.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(command: &str) -> (Slots, bool) {
        slots_of(&shlex::split(command).unwrap())
    }

    #[test]
    fn a_command_is_split_as_a_shell_would_and_nothing_is_expanded() {
        let argv = split_command(
            r#"run {opts} --d={dir}/x "{unix_socket_path}" 'a ; b' $HOME"#,
            &[("{opts}", "--debug --more")],
            &[("{dir}", "/with a blank")],
        );
        let wanted = [
            "run",
            "--debug",
            "--more",
            "--d=/with a blank/x",
            "{unix_socket_path}",
            "a ; b",
            "$HOME",
        ];
        assert_eq!(argv.unwrap(), wanted);
        assert!(split_command("run 'open", &[], &[]).is_err());
        assert_eq!(split_command("", &[], &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_slots_of_known_servers_are_read_from_their_commands() {
        let finite = |n| (Slots::Finite { per_worker: n }, true);
        assert_eq!(slots("bjoern_wrapper.py --timeout=60 main.wsgi:app s"), finite(1));
        assert_eq!(slots("mfserv_worker --timeout=60 main.wsgi:app s"), finite(1));
        assert_eq!(slots("gunicorn -b unix:s main:app"), finite(1));
        assert_eq!(slots("gunicorn -w 2 --threads=4 main:app"), finite(8));
        assert_eq!(slots("/x/bin/gunicorn -w2 main:app"), finite(2));
        assert_eq!(slots("uwsgi --http-socket s -p 3"), finite(3));
        assert_eq!(slots("granian --interface wsgi --blocking-threads 2 m:a"), finite(2));
        let unlimited = (Slots::Unlimited, true);
        assert_eq!(slots("gunicorn -k uvicorn.workers.UvicornWorker m:a"), unlimited);
        assert_eq!(slots("granian --interface asgi m:a"), unlimited);
        assert_eq!(slots("uvicorn --uds s m:a"), unlimited);
        assert_eq!(slots("mfserv_worker --timeout=60 --asgi main.application:app s"), unlimited);
        assert_eq!(slots("node --inspect server.js s 60"), unlimited);
        assert_eq!(slots("env -C main npm --silent start"), unlimited);
        assert_eq!(slots("python -m uvicorn m:a"), unlimited);
    }

    #[test]
    fn an_unknown_server_gets_a_fresh_connection_for_each_request() {
        assert_eq!(slots("python application.py s 60"), (Slots::Unlimited, false));
    }
}
