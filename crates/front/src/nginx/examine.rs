//! What nginx refuses of fragments, before they are installed: `nginx -t` on them, in a directory of
//! its own. Nothing is started, and the node is not touched.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_core::output::Rotation;
use mfserv_core::route::{Amendment, RouteTable};
use tokio::runtime::LocalOptions;

use super::config::Site;
use super::edge::Wanted;
use super::master::Nginx;
use super::program::{Build, Program};
use super::search::Refused;
use super::tls::Certificates;
use crate::embedded::{ErrorLog, LogWriter};
use crate::process::{clients_within, descriptors};

/// A fragment that `nginx -t` refuses.
#[derive(Debug, Clone)]
pub struct RefusedFragment {
    /// Its file and its place.
    pub place: String,
    /// Why, with its line.
    pub why: String,
    /// The check has not ended in time, which says little about the fragment.
    pub is_slow: bool,
}

/// The fragments of a table that `nginx -t` refuses, a sentence each. `modules`: the directory of its
/// modules; `None`: its own. The error says why nginx cannot be asked.
pub fn examine(
    program: &Path,
    modules: Option<&Path>,
    table: RouteTable,
) -> Result<Vec<String>, Diagnostic> {
    let wanted = wanted(table);
    with_nginx(program, modules, async |nginx| nginx.refused_by_check(&wanted).await)
}

/// The fragments that `nginx -t` refuses because of what this plugin has, by a table with all
/// plugins; else as [`examine`].
pub fn examine_plugin(
    program: &Path,
    modules: Option<&Path>,
    plugin: &str,
    table: RouteTable,
) -> Result<Vec<RefusedFragment>, Diagnostic> {
    let mut others = table.clone();
    others.fragments.remove(plugin);
    let (others, wanted) = (wanted(others), wanted(table));
    let refused = with_nginx(program, modules, async |nginx| {
        nginx.newly_refused_by_check(&others, &wanted).await
    })?;
    let of = |(_, Refused { place, why, is_slow, .. })| RefusedFragment { place, why, is_slow };
    Ok(refused.into_iter().map(of).collect())
}

/// Says why this program cannot be the front; nothing is started but the question.
pub fn examine_program(program: &Path, modules: Option<&Path>) -> Result<(), Diagnostic> {
    let program = Program { path: program.to_owned(), prefix: std::env::temp_dir() };
    in_a_runtime(async || program.build(modules).await.map(drop))
}

fn wanted(mut table: RouteTable) -> Wanted {
    // Certificates are looked at elsewhere.
    table.server.tls = None;
    let mut wanted = Wanted::default();
    wanted.amend(1, Amendment::whole(table), true);
    wanted
}

/// Asks an nginx that is not started, in a directory of its own.
fn with_nginx<T>(
    program: &Path,
    modules: Option<&Path>,
    ask: impl AsyncFnOnce(&mut Nginx) -> Result<T, Diagnostic>,
) -> Result<T, Diagnostic> {
    let cannot =
        |why: &dyn std::fmt::Display| Diagnostic::error("nginx cannot be asked").because(why);
    let dir = std::env::temp_dir().join(format!("mfserv-nginx-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&dir).map_err(|why| cannot(&why))?;
    let outcome = in_a_runtime(async || {
        let mut nginx = not_started(program, modules, &dir).await?;
        ask(&mut nginx).await
    });
    let _ = fs::remove_dir_all(&dir);
    outcome
}

fn in_a_runtime<T>(ask: impl AsyncFnOnce() -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|why| Diagnostic::error("nginx cannot be asked").because(why))
        .and_then(|runtime| runtime.block_on(ask()))
}

async fn not_started(
    program: &Path,
    modules: Option<&Path>,
    dir: &Path,
) -> Result<Nginx, Diagnostic> {
    let program = Program { path: program.to_owned(), prefix: dir.to_owned() };
    let build = program.build(modules).await?;
    let log = LogWriter::start(dir.join("nginx_error.log"), Rotation::default());
    let log = log.map_err(|why| Diagnostic::error("nginx cannot be asked").because(why))?;
    let files = (dir.join("nginx.conf"), dir.join("shown.conf"), Certificates::new(dir));
    Nginx::new((program, site(build, dir)), vec![], files, ErrorLog::new(log))
}

fn site(build: Build, dir: &Path) -> Site {
    Site {
        listen: vec![format!("unix:{}", dir.join("clients").display())],
        listen_tls: Vec::new(),
        copied: Default::default(),
        own_socket: dir.join("own"),
        front_socket: dir.join("front"),
        key: "key".into(),
        log_dir: dir.to_owned(),
        temp_dir: dir.to_owned(),
        pid_file: dir.join("pid"),
        workers: 1,
        connections_max: clients_within(descriptors()),
        has_lua: build.has_lua,
        modules: build.modules,
        has_real_ip: build.has_real_ip,
        copies: build.copies,
        is_root: rustix::process::geteuid().is_root(),
        grace_s: 1,
    }
}
