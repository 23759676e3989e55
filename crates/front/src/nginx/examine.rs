//! What nginx refuses of fragments, before they are installed: `nginx -t` on them, in a directory
//! that the caller has made for it. Nothing is started, and the node is not touched.

use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_core::output::Rotation;
use mfserv_core::route::{Amendment, RouteTable};
use tokio::runtime::LocalOptions;

use super::config::Site;
use super::edge::Wanted;
use super::master::Nginx;
use super::pieces::PieceId;
use super::program::{Build, Program};
use super::search::Refused;
use super::tls::Certificates;
use crate::embedded::{ErrorLog, LogWriter};

/// A fragment that `nginx -t` refuses.
#[derive(Debug, Clone)]
pub struct RefusedFragment {
    /// The plugin that has it.
    pub plugin: String,
    /// Its file and its place.
    pub place: String,
    /// Why, with its line.
    pub why: String,
    /// The check has not ended in time, which says little about the fragment.
    pub is_slow: bool,
}

/// The program that is asked, and where.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// nginx.
    pub program: &'a Path,
    /// The directory of its modules; `None`: its own.
    pub modules: Option<&'a Path>,
    /// An empty directory, which nobody else can open.
    pub dir: &'a Path,
}

/// The fragments of a table that `nginx -t` refuses, a sentence each. The error says why nginx cannot
/// be asked.
pub fn examine(asked: Asked<'_>, table: RouteTable) -> Result<Vec<String>, Diagnostic> {
    let wanted = wanted(table);
    with_nginx(asked, async |nginx| nginx.refused_by_check(&wanted).await)
}

/// The fragments that `nginx -t` refuses because of what this plugin has: those of the plugin, and
/// those of others that are not refused by `current`, the table in force; else as [`examine`].
pub fn examine_plugin(
    asked: Asked<'_>,
    plugin: &str,
    current: RouteTable,
    table: RouteTable,
) -> Result<Vec<RefusedFragment>, Diagnostic> {
    let (current, wanted) = (wanted(current), wanted(table));
    let refused = with_nginx(asked, async |nginx| {
        nginx.newly_refused_by_check(plugin, &current, &wanted).await
    })?;
    let of = |(id, Refused { place, why, is_slow, .. }): (PieceId, Refused)| RefusedFragment {
        plugin: id.plugin,
        place,
        why,
        is_slow,
    };
    Ok(refused.into_iter().map(of).collect())
}

fn wanted(mut table: RouteTable) -> Wanted {
    // Certificates are looked at elsewhere.
    table.server.tls = None;
    let mut wanted = Wanted::default();
    wanted.amend(1, Amendment::whole(table), true);
    wanted
}

/// Asks an nginx that is not started.
fn with_nginx<T>(
    asked: Asked<'_>,
    ask: impl AsyncFnOnce(&mut Nginx) -> Result<T, Diagnostic>,
) -> Result<T, Diagnostic> {
    let cannot =
        |why: &dyn std::fmt::Display| Diagnostic::error("nginx cannot be asked").because(why);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|why| cannot(&why))?;
    runtime.block_on(async {
        let mut nginx = not_started(asked.program, asked.modules, asked.dir).await?;
        ask(&mut nginx).await
    })
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
        has_lua: build.has_lua,
        modules: build.modules,
        has_real_ip: build.has_real_ip,
        is_root: rustix::process::geteuid().is_root(),
        grace_s: 1,
    }
}
