//! The environment that build tools get.

use std::path::Path;
use std::process::Command;

/// What the names of the variables begin with that configure build tools.
const CONFIGURE: &[&str] = &[
    "pip_",
    "uv_",
    "npm_config_",
    "yarn_",
    "corepack_",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// A command with only the variables that a build tool needs.
pub(crate) fn clean(program: &Path) -> Command {
    const NAMES: &[&str] = &[
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CC",
        "CXX",
        "CFLAGS",
        "CXXFLAGS",
        "LDFLAGS",
        "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
    ];
    // these would change what is built and where
    const NEVER: &[&str] = &[
        "pip_prefix",
        "pip_target",
        "pip_user",
        "uv_python",
        "uv_project_environment",
        "npm_config_prefix",
        "npm_config_local_prefix",
    ];
    #[expect(clippy::disallowed_methods, reason = "builds run the interpreter and its tools")]
    let mut command = Command::new(program);
    command.env_clear();
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let lower = text.to_ascii_lowercase();
        let wanted = NAMES.contains(&text.as_ref())
            || CONFIGURE.iter().any(|prefix| lower.starts_with(prefix));
        if wanted && !NEVER.contains(&lower.as_str()) {
            command.env(name, value);
        }
    }
    command.env("NO_UPDATE_NOTIFIER", "1");
    // What a package depends on may be in a git repository: nobody is there to be asked, and
    // nothing is fetched unencrypted or by a program that an address names.
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "https:ssh");
    command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
    command
}
