//! The names that a variable may have.

use mfserv_core::{Diagnostic, Kind};

/// Names that mfserv sets, and why nobody else does.
const RESERVED: &[(&str, &str)] = &[
    ("PORT", "mfserv says there where the app listens"),
    ("HOST", "mfserv says there where an app on a port listens"),
    ("HOTSWAP", "mfserv sets it for each worker"),
    ("NOTIFY_SOCKET", "mfserv sets it for each worker"),
    ("TMPDIR", "mfserv gives each plugin a directory of its own"),
    ("PYTHON", "mfserv sets it to the interpreter of the plugin (`_python` in its config.ini)"),
    ("PYTHON_SHORT_VERSION", "mfserv sets it to the interpreter of the plugin"),
    ("PATH", SEARCH),
    ("PYTHONPATH", SEARCH),
    ("NODE_PATH", SEARCH),
    ("LD_LIBRARY_PATH", SEARCH),
    ("PKG_CONFIG_PATH", SEARCH),
];
const SEARCH: &str =
    "mfserv makes it of the plugin's packages; a line of .layerapi2_extra_env adds to it";
/// What the names begin with that belong to the node.
const RESERVED_STARTS: &[&str] = &[
    "MFSERV_",
    "MFMODULE",
    "MFHARDWARE_",
    "MFHOSTNAME",
    "MFCONFIG",
    "MFLOG_",
    "METWORK_",
    "LISTEN_",
];

/// The longest string of an environment, `NAME=VALUE` with its end, bytes (execve(2),
/// `MAX_ARG_STRLEN` with pages of 4 KiB).
const LONGEST: usize = 128 * 1024;

/// Why no process can have this value; `None` if it can.
pub fn value_problem(name: &str, value: &str) -> Option<&'static str> {
    match name.len() + value.len() + 2 > LONGEST || value.contains('\0') {
        true => Some("it is longer than 128 KiB, or has a NUL byte"),
        false => None,
    }
}

/// Refuses a name that no variable may have here.
pub fn check_name(name: &str) -> Result<(), Diagnostic> {
    let refused = |because: String, help: &str| {
        Err(Diagnostic::error(format!("{name} cannot be set"))
            .kind(Kind::Usage)
            .because(because)
            .help(help))
    };
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty()
        || !name.chars().all(is_letter)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return refused("it is no name of a variable".into(), "letters, digits and _ make a name");
    }
    let help = "give it another name; config.ini has what the app may choose of it";
    if let Some((_, why)) = RESERVED.iter().find(|(known, _)| *known == name) {
        return refused((*why).into(), help);
    }
    match RESERVED_STARTS.iter().find(|start| name.starts_with(**start)) {
        Some(start) => refused(format!("names that begin with {start} are mfserv's own"), help),
        None => Ok(()),
    }
}
