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
use super::tls::Certificates;
use crate::embedded::{ErrorLog, LogWriter};

/// The fragments of a table that `nginx -t` refuses, a sentence each. `modules`: the directory of its
/// modules; `None`: its own. The error says why nginx cannot be asked.
pub fn examine(
    program: &Path,
    modules: Option<&Path>,
    mut table: RouteTable,
) -> Result<Vec<String>, Diagnostic> {
    let cannot =
        |why: &dyn std::fmt::Display| Diagnostic::error("nginx cannot be asked").because(why);
    let dir = std::env::temp_dir().join(format!("mfserv-nginx-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&dir).map_err(|why| cannot(&why))?;
    // Certificates are looked at elsewhere.
    table.server.tls = None;
    let mut wanted = Wanted::default();
    wanted.amend(1, Amendment::whole(table), true);
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|why| cannot(&why))
        .and_then(|runtime| runtime.block_on(ask(program, modules, &dir, &wanted)));
    let _ = fs::remove_dir_all(&dir);
    outcome
}

async fn ask(
    program: &Path,
    modules: Option<&Path>,
    dir: &Path,
    wanted: &Wanted,
) -> Result<Vec<String>, Diagnostic> {
    let program = Program { path: program.to_owned(), prefix: dir.to_owned() };
    let build = program.build(modules).await?;
    let log = LogWriter::start(dir.join("nginx_error.log"), Rotation::default());
    let log = log.map_err(|why| Diagnostic::error("nginx cannot be asked").because(why))?;
    let files = (dir.join("nginx.conf"), dir.join("shown.conf"), Certificates::new(dir));
    let mut nginx = Nginx::new((program, site(build, dir)), vec![], files, ErrorLog::new(log))?;
    nginx.refused_by_check(wanted).await
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
