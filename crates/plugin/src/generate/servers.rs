//! Servers that a Procfile starts, and the options by which they listen on a unix socket.

/// Servers that listen on a unix socket when they are told so: the options that say where they
/// listen, and the one that takes the socket.
const SERVERS: &[(&str, &[&str], &str)] = &[
    ("gunicorn", &["-b", "--bind"], "--bind unix:\"$1\""),
    ("uvicorn", &["--host", "--port", "--uds"], "--uds \"$1\""),
    ("hypercorn", &["-b", "--bind"], "--bind unix:\"$1\""),
    ("daphne", &["-b", "--bind", "-p", "--port", "-u"], "-u \"$1\" --proxy-headers"),
    ("waitress-serve", &["--host", "--port", "--listen"], "--unix-socket=\"$1\""),
];

/// What has waitress believe the front who asks; its author may have said whom it believes.
const WAITRESS_TRUSTS: &str =
    " --trusted-proxy='*' --trusted-proxy-headers='x-forwarded-for x-forwarded-proto'";
/// Servers that ask a variable who may say in X-Forwarded-* for whom a request is.
const ASK_WHOM_TO_TRUST: &[&str] = &["gunicorn", "uvicorn"];

/// Whether the line of a server that listens on our socket is to trust the front: nobody else
/// reaches it there, and uvicorn takes a client without an address for a stranger.
pub(super) fn trusts_front(line: &str) -> bool {
    line.contains("\"$1\"")
        && named(line).is_some_and(|(name, ..)| ASK_WHOM_TO_TRUST.contains(name))
}

fn named(line: &str) -> Option<&'static (&'static str, &'static [&'static str], &'static str)> {
    let find = |word: &str| {
        let program = word.rsplit('/').next().unwrap_or(word);
        SERVERS.iter().find(|(name, ..)| *name == program)
    };
    line.split_whitespace().take(3).find_map(find)
}

/// The line of a known server, listening on the socket that its script is given.
pub(super) fn for_socket(line: &str) -> Option<String> {
    let (name, options, socket) = named(line).filter(|_| !line.contains(['&', '|', ';']))?;
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        if options.contains(&word) {
            words.next();
            continue;
        }
        let joined = |option: &&str| {
            let rest = word.strip_prefix(*option);
            rest.is_some_and(|rest| rest.starts_with('=') || !option.starts_with("--"))
        };
        if !options.iter().any(joined) {
            kept.push(word);
        }
    }
    kept.push(socket);
    let mut line = kept.join(" ");
    if *name == "waitress-serve" && !line.contains("--trusted-proxy") {
        line += WAITRESS_TRUSTS;
    }
    Some(line)
}
