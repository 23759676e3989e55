//! Building a plugin directory: its Python environment in `local/`, its
//! `node_modules/`, what its own command makes. What has not changed is not built again.

mod clean;
mod command;
mod direct;
mod foreign;
mod frozen;
mod git;
mod gyp;
mod held;
mod lock;
mod node;
mod origin;
mod project;
mod python;
mod requirements;
mod resolve;
mod sources;
mod wheels;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use serde::{Deserialize, Serialize};

use crate::home::Home;
use crate::label;
use crate::progress::{Cancel, Progress};

pub use clean::{clean, clean_packages};
pub use command::{CommandReport, command};
pub use frozen::{Frozen, frozen_requirements};
pub use held::Held;
pub(crate) use lock::FILES as PYTHON_LISTS;
pub use node::{
    KEPT_MODULES, NodeProject, build_words, node_variables, node_version, refuse_member,
    tool as node_tool, workspace,
};
pub(crate) use python::environment_from_wheels;
pub use python::{WHEELS_MARK, check_wheels};

/// Where a plugin has its lists of Python packages, below its directory: for Python 3, for 2.
pub const PYTHON_SOURCES: [&str; 2] = ["python3_virtualenv_sources", "python2_virtualenv_sources"];

/// How a plugin is built.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The runtime home, for the tools kept in `var/base`.
    pub home: Home,
    /// The Python interpreter (`_python` in `[general]`); `None` = the host's python3.
    pub python: Option<String>,
    /// How long each program that the build runs may take.
    pub limit: Duration,
    /// Stops the build.
    pub cancel: Cancel,
    /// Build scripts and commands run also if nothing has changed since: they may read more than files.
    pub is_fresh: bool,
}

impl BuildOptions {
    /// The usual: the host's python3, half an hour for each program.
    pub fn new(home: Home) -> Self {
        let limit = Duration::from_secs(1800);
        Self { home, python: None, limit, cancel: Cancel::default(), is_fresh: false }
    }
}

/// The files that the environment of the plugin in `dir` is made of, whether they are there or
/// not: when one of them changes, a build has something to do.
pub fn sources(dir: &Path) -> Vec<PathBuf> {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mut files = python::inputs(&dir);
    files.extend(node::inputs(&dir).iter().map(|name| dir.join(name)));
    files
}

/// What a build did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildReport {
    /// The plugin.
    pub plugin: String,
    /// Its Python part, if it has one.
    pub python: Option<Part>,
    /// Its Node part, if it has one.
    pub node: Option<Part>,
    /// Its command (`[build]`), if it has one and that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandReport>,
    /// How long it took, milliseconds.
    pub elapsed_ms: u64,
}

impl BuildReport {
    /// Whether nothing was built: all is as an earlier build has left it.
    pub fn is_unchanged(&self) -> bool {
        let parts = [&self.python, &self.node];
        let of_command = self.command.as_ref().is_none_or(|command| command.unchanged);
        of_command && parts.into_iter().flatten().all(|part| part.unchanged)
    }
}

/// What was done for one language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Nothing had changed: nothing was done.
    pub unchanged: bool,
    /// The interpreter: `Python 3.11.7`, `Node v20.20.2`.
    pub interpreter: String,
    /// The tool: `uv`, `pip`, `npm`, `pnpm 10.0.0`.
    pub tool: String,
    /// How many packages the environment has.
    pub packages: usize,
}

/// Builds the plugin in `dir`. On any error, what was there before is still
/// there, whole. The text of pip, uv or npm is in the error.
pub fn build(
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<BuildReport, Diagnostic> {
    let plugin = label::read_name(dir)?;
    build_held(&Held::take(&options.home, dir)?, plugin, options, progress)
}

/// The same for the plugin of that name in a directory that is held already.
pub fn build_held(
    held: &Held,
    plugin: String,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<BuildReport, Diagnostic> {
    let begin = Instant::now();
    let dir = held.dir();
    foreign::ignored(dir, &sources(dir)).into_iter().for_each(|notice| progress.notice(notice));
    let python = python::build(dir, options, progress)?;
    let node = node::build(dir, options, progress)?;
    let elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(BuildReport { plugin, python, node, command: None, elapsed_ms })
}
