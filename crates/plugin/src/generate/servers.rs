//! Servers that a Procfile starts, and the options by which they listen on a unix socket.

/// Servers that listen on a unix socket when they are told so: the options that say where they
/// listen, and the one that takes the socket.
const SERVERS: &[(&str, &[&str], &str)] = &[
    ("gunicorn", &["-b", "--bind"], "--bind unix:\"$1\""),
    ("uvicorn", &["--host", "--port", "--uds"], "--uds \"$1\""),
    ("hypercorn", &["-b", "--bind"], "--bind unix:\"$1\""),
    ("daphne", &["-b", "--bind", "-p", "--port", "-u"], "-u \"$1\""),
    ("waitress-serve", &["--host", "--port", "--listen"], "--unix-socket=\"$1\""),
];

/// The line of a known server, listening on the socket that its script is given.
pub(super) fn for_socket(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let program = |word: &str| word.rsplit('/').next().unwrap_or(word).to_string();
    let find = |word: &str| SERVERS.iter().find(|(name, ..)| *name == program(word));
    let named = words.iter().take(3).find_map(|word| find(word));
    let (_, options, socket) = named.filter(|_| !line.contains(['&', '|', ';']))?;
    let mut kept = Vec::new();
    let mut words = words.into_iter();
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
    Some(kept.join(" "))
}
