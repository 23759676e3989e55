//! The stack of mfserv: one node with a plugin for each app, of which only those run that are
//! measured at the time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::status::{Status, WatcherStatus};

use super::contestant::{Contestant, Processes};
use super::row::{Kind, Row};
use crate::bench::nginx::Setup;
use crate::child;
use crate::node::Node;

/// The servers of one kind of app: the key of the node that chooses one, and the words of it.
const WSGI_SERVERS: (&str, [&str; 2]) = ("server", ["mfserv", "waitress"]);
const ASGI_SERVERS: (&str, [&str; 2]) = ("asgi_server", ["mfserv", "uvicorn"]);

/// The node.
pub struct Own {
    node: Node,
    plugins: Vec<Plugin>,
}

/// An app as a plugin.
struct Plugin {
    row: Row,
    name: String,
    /// How its stack is called in the report.
    title: String,
}

impl Own {
    /// Makes and builds the plugins of some rows, with the network.
    pub fn install(program: &Path, rows: &[Row]) -> Result<Self, Diagnostic> {
        let mut own = Self { node: Node::new(program)?, plugins: Vec::new() };
        for &row in rows {
            own.add(row, None)?;
            let (key, servers) = match row.kind() {
                Kind::Wsgi if !row.is_mixed() => WSGI_SERVERS,
                Kind::Asgi => ASGI_SERVERS,
                Kind::Wsgi | Kind::Node => continue,
            };
            // A version without this key has one server only.
            if let Some(default) = default_server(&own.node, key)? {
                for server in servers.into_iter().filter(|server| *server != default) {
                    own.add(row, Some((key, server)))?;
                }
            }
        }
        Ok(own)
    }

    /// A node of its own with nginx in front, which has one worker process as all fronts here, and
    /// the plugins of some rows with the default servers.
    pub fn behind_nginx(
        program: &Path,
        rows: &[Row],
        nginx: &Setup,
        title: &str,
    ) -> Result<Self, Diagnostic> {
        let mut own = Self { node: Node::new(program)?, plugins: Vec::new() };
        let script = own.node.path("nginx");
        write(script.clone(), &nginx.script())?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .map_err(|e| Diagnostic::error("cannot make a script of nginx").because(e))?;
        // Said now, and not as a node that does not start.
        child::run(Command::new(&script).arg("-v"), Duration::from_secs(30))?;
        let program = format!("front.nginx_program={}", script.display());
        for setting in ["front.kind=nginx", "nginx.workers=1", &program] {
            own.node.run(&["config", "set", setting])?;
        }
        for &row in rows {
            own.add(row, None)?;
        }
        own.plugins.iter_mut().for_each(|plugin| plugin.title = title.into());
        Ok(own)
    }

    /// Stops the node: nobody else is measured beside what it may do.
    pub fn stop(&self) -> Result<(), Diagnostic> {
        self.node.stop()
    }

    /// `server`: a key of `[python]` and its value, for this plugin alone.
    fn add(&mut self, row: Row, server: Option<(&str, &str)>) -> Result<(), Diagnostic> {
        let suffix = server.map_or(String::new(), |(_, server)| format!("_{server}"));
        let name = format!("{}{suffix}", row.plugin());
        let title = match server {
            Some((key, server)) => format!("mfserv, {key}={server}"),
            None => "mfserv".into(),
        };
        let (template, file, last) = match row.kind() {
            Kind::Wsgi => ("python3_raw_wsgi", "main/wsgi.py".into(), "\n\napplication = app\n"),
            Kind::Asgi => ("python3_raw_asgi", "main/application.py".into(), ""),
            Kind::Node => ("node", format!("{name}/server.js"), ""),
        };
        let dir = self.node.make(template, &name)?;
        write(dir.join(file), &format!("{}{last}", row.source()))?;
        if row.kind() != Kind::Node {
            let packages = row.packages().join("\n") + "\n";
            write(dir.join("python3_virtualenv_sources/requirements-to-freeze.txt"), &packages)?;
        }
        if let Some((key, server)) = server {
            let path = dir.join("config.ini");
            let key = format!("[app_main]\n_python_{key}={server}\n");
            let config = fs::read_to_string(&path).unwrap_or_default();
            write(path, &config.replacen("[app_main]\n", &key, 1))?;
        }
        self.plugins.push(Plugin { row, name, title });
        self.only(None, 0)?;
        self.node.link(&dir)
    }

    /// Lets only the plugins of a row have workers.
    fn only(&self, row: Option<Row>, workers: u32) -> Result<(), Diagnostic> {
        for plugin in &self.plugins {
            let count = if row == Some(plugin.row) { workers } else { 0 };
            let path = self.node.path("config/plugins").join(format!("{}.ini", plugin.name));
            write(path, &format!("[app_main]\nnumprocesses = {count}\n"))?;
        }
        Ok(())
    }

    /// Runs a row with so many workers. What is returned ends with the next call.
    pub fn run(&self, row: Row, workers: u32) -> Result<Vec<Contestant>, Diagnostic> {
        self.stop()?;
        self.only(Some(row), workers)?;
        self.node.start()?;
        let status = self.node.status()?;
        let plugins = self.plugins.iter().filter(|plugin| plugin.row == row);
        let contestants = plugins.map(|plugin| {
            let contestant = Contestant {
                name: plugin.title.clone(),
                address: self.node.address(),
                path: format!("/{}/", plugin.name),
                processes: processes(&status, &plugin.name, workers)?,
                life: Vec::new(),
            };
            contestant.wait_until_ready(row.length())?;
            Ok(contestant)
        });
        contestants.collect()
    }
}

/// The value of a key of `[python]`, if there is such a key.
fn default_server(node: &Node, key: &str) -> Result<Option<String>, Diagnostic> {
    let text = node.run(&["config", "show", "python", "--json"])?;
    let values: Vec<serde_json::Value> = serde_json::from_str(&text)
        .map_err(|e| Diagnostic::error("cannot read `mfserv config show --json`").because(e))?;
    let server = values.iter().find(|value| value["key"] == key);
    Ok(server.and_then(|value| value["value"].as_str()).map(Into::into))
}

/// The processes of a node while one app of it is asked.
fn processes(status: &Status, plugin: &str, workers: u32) -> Result<Processes, Diagnostic> {
    let pids = |watcher: &WatcherStatus| -> Vec<u32> {
        watcher.workers.iter().filter_map(|worker| worker.pid).collect()
    };
    let mut processes = Processes { rest: vec![status.daemon.pid], ..Processes::default() };
    processes.rest.extend(status.keeper.as_ref().map(|keeper| keeper.pid));
    let app = format!("app.{plugin}.main");
    for watcher in &status.watchers {
        match watcher.name.as_str() {
            // With nginx it is the parent of nginx and of the front behind that; all count.
            "front" => processes.front.extend(pids(watcher)),
            name if name == app && watcher.ready == workers => {
                processes.workers.extend(pids(watcher));
            }
            // The workers of the same app behind another server do nothing meanwhile.
            _ if watcher.plugin.is_none() => processes.rest.extend(pids(watcher)),
            _ => {}
        }
    }
    match processes.front.is_empty() || processes.workers.is_empty() {
        false => Ok(processes),
        true => {
            Err(Diagnostic::error(format!("{app} has not {workers} ready workers and a front"))
                .because(format!("the node is {:?}", status.state))
                .help("`mfserv logs` of such a plugin says why"))
        }
    }
}

fn write(path: PathBuf, text: &str) -> Result<(), Diagnostic> {
    let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
    parent
        .and_then(|()| fs::write(&path, text))
        .map_err(|e| Diagnostic::error(format!("cannot write {}", path.display())).because(e))
}
