//! Python programs (standard library only): workers that behave, and workers that do not.
//! Those that serve are given the path of their unix socket as their argument.

/// Serves HTTP/1.1, a thread per connection. `/NAME/pid`, `/NAME/env` and
/// `/NAME/head` (JSON: the environment, the head of the request), `/NAME/slow?MS`,
/// `/NAME/fail` (500), anything else says hello. Prints a line for each request that carries an `X-Load-Id`, and `booted PID
/// MILLISECONDS` when it listens. Starts in a few dozen milliseconds. Sends each answer in one
/// piece.
pub const SERVES: &str = include_str!("../programs/serves.py");

/// Serves HTTP/1.1 on one connection at a time, until that is closed: a second
/// connection waits for as long as the first one is kept.
pub const ONE_AT_A_TIME: &str = include_str!("../programs/one_at_a_time.py");

/// Says why, and exits with code 3.
pub const EXITS_AT_ONCE: &str = include_str!("../programs/exits_at_once.py");

/// Never listens.
pub const NEVER_LISTENS: &str = include_str!("../programs/never_listens.py");

/// Listens and takes connections, and never answers.
pub const NEVER_ANSWERS: &str = include_str!("../programs/never_answers.py");

/// Serves, and ignores SIGTERM and SIGINT.
pub const DEAF: &str = include_str!("../programs/deaf.py");

/// Starts a daemon that leaves its session and closes its descriptors, writes the
/// daemon's pid to `daemon.pid` beside the program, and dies.
pub const LEAVES_A_DAEMON: &str = include_str!("../programs/leaves_a_daemon.py");

/// Serves, and writes 50 MB of lines to its output each second.
pub const WRITES_MUCH: &str = include_str!("../programs/writes_much.py");

/// Serves, sends the head of each answer at once and its body half a second later, and
/// says `head sent by PID` between the two.
pub const HALVES: &str = include_str!("../programs/halves.py");
