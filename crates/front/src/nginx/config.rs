//! The configuration of nginx: a text, made of the table and of what the process knows.
//!
//! nginx passes every request on to the front behind it, which knows the routes. So it has
//! locations only where a plugin brings a fragment along, and for what else these could take
//! requests from; and a deploy, a crash or another number of workers does not change its
//! configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use mfserv_core::route::{Fragments, Section, ServerSettings};

use super::pieces::{Piece, PieceId, Place, of};
use super::program::Copies;
use super::text::{Text, quoted, quoted_path};
use crate::embedded::CopiedCertificates;

mod locations;
mod settings;
mod strangers;
mod tls;

/// What nginx sends in addition to a head, bytes and fields: the front behind it allows that.
pub const ADDED_BYTES: u32 = 512;
/// See [`ADDED_BYTES`].
pub const ADDED_FIELDS: u32 = 8;
/// The most bytes of a client's certificate, where nginx sends it: a longer one is refused.
pub const CERTIFICATE_BYTES: u32 = 16 * 1024;

/// With fewer connections nginx does not even have its listening sockets.
const CONNECTIONS_LEAST: u64 = 64;

/// What the process knows beside the table. Only the certificates change while it lives.
#[derive(Debug, Clone)]
pub struct Site {
    /// The addresses of the listening sockets in clear, as `listen` takes them.
    pub listen: Vec<String>,
    /// Those of the sockets for TLS.
    pub listen_tls: Vec<String>,
    /// The certificates for these.
    pub copied: CopiedCertificates,
    /// The socket of nginx for this process alone.
    pub own_socket: PathBuf,
    /// The socket of the front behind nginx.
    pub front_socket: PathBuf,
    /// What nginx says to that to be believed.
    pub key: String,
    /// The directory of the logs.
    pub log_dir: PathBuf,
    /// A directory for files that nginx needs for a time.
    pub temp_dir: PathBuf,
    /// The file with the process id.
    pub pid_file: PathBuf,
    /// Worker processes of nginx.
    pub workers: u32,
    /// The most connections of each of them for which there are descriptors.
    pub connections_max: u64,
    /// Modules to load, where a fragment may need them.
    pub modules: Vec<PathBuf>,
    /// One of these is Lua.
    pub has_lua: bool,
    /// nginx has the module realip.
    pub has_real_ip: bool,
    /// The compressed copies beside files that nginx can send.
    pub copies: Copies,
    /// This process is root's.
    pub is_root: bool,
    /// How long old processes may go on with their requests, seconds.
    pub grace_s: u64,
}

/// What nginx says on its own socket while it has a configuration.
const REVISION: &str = "location = /revision { return 200 \"0\"; }";

/// The text of a configuration, with a number that nginx says while it has it.
pub fn with_revision(text: &str, revision: u64) -> String {
    let said = REVISION.replace("\"0\"", &format!("\"{revision}\""));
    // A fragment may have such a line too, before this one.
    match text.rfind(REVISION) {
        Some(at) => format!("{}{said}{}", &text[..at], &text[at + REVISION.len()..]),
        None => text.to_string(),
    }
}

/// Writes the configuration. `left_out`: fragments that nginx refuses.
pub fn render(
    site: &Site,
    server: &ServerSettings,
    sections: &BTreeMap<String, Arc<Section>>,
    left_out: &BTreeSet<PieceId>,
) -> Text {
    let mut pieces = of(sections);
    pieces.retain(|piece| !left_out.contains(&piece.id));
    let all = Writer { site, server, sections, pieces };
    let mut text = Text::default();
    all.main(&mut text);
    text.block("events", |text| {
        // With more a worker would accept nobody when it has no descriptor left. So it ends
        // connections that are idle, and those for which there is none.
        let most = u64::from(server.max_connections).min(site.connections_max);
        text.line(format!("worker_connections {};", most.max(CONNECTIONS_LEAST)));
    });
    text.block("http", |text| all.http(text));
    text
}

struct Writer<'a> {
    site: &'a Site,
    server: &'a ServerSettings,
    sections: &'a BTreeMap<String, Arc<Section>>,
    pieces: Vec<Piece<'a>>,
}

impl Writer<'_> {
    fn main(&self, text: &mut Text) {
        let site = self.site;
        text.line(
            "# Made by mfserv: what is changed here is lost with the next change of the node.",
        );
        text.line("daemon off;");
        text.line(format!("worker_processes {};", site.workers));
        text.line(format!("pid {};", quoted_path(&site.pid_file)));
        let log = site.log_dir.join("nginx_error.log");
        text.line(format!("error_log {} error;", quoted_path(&log)));
        text.line(format!("worker_shutdown_timeout {}s;", site.grace_s));
        if site.is_root {
            // The sockets of the node are its user's alone.
            text.line("user root root;");
        }
        if !self.pieces.is_empty() {
            for module in &site.modules {
                text.line(format!("load_module {};", quoted_path(module)));
            }
        }
    }

    fn http(&self, text: &mut Text) {
        self.basics(text);
        self.proxying(text);
        self.tls_variables(text);
        self.variables(text);
        self.unknown_hosts(text);
        self.logs(text);
        self.schemes(text);
        self.answer_fields(text);
        self.lua(text);
        for piece in self.at(&Place::Http) {
            text.fragment(piece);
        }
        text.block("server", |text| {
            // Not the server of a plugin, which may come before this one.
            self.listens(text, " default_server");
            text.line("server_name localhost;");
            text.line("set $plugin \"#unknown#\";");
            text.line("set $extra_log_format \"\";");
            self.silent_end(text);
            if self.at(&Place::Server).next().is_some() {
                self.add_fields(text);
            }
            for piece in self.at(&Place::Server) {
                text.fragment(piece);
            }
            self.locations(text, None);
        });
        self.hosts(text);
        text.block("server", |text| {
            text.line(format!("listen unix:{};", self.site.own_socket.display()));
            text.line("access_log off;");
            text.line(REVISION);
            text.line("location / { return 404; }");
        });
    }

    /// A server for each host that routes name, where locations for other hosts would take its
    /// requests. As with MFSERV it has no fragment of the whole server.
    fn hosts(&self, text: &mut Text) {
        let routes = self.sections.values().flat_map(|one| &one.routes);
        let hosts: BTreeSet<&str> = routes.filter_map(|route| route.host.as_deref()).collect();
        if self.pieces.is_empty() {
            return;
        }
        if !hosts.is_empty() {
            // A name has up to 253 characters.
            text.line("server_names_hash_bucket_size 512;");
            text.line(format!("server_names_hash_max_size {};", hosts.len().max(256) * 2));
        }
        for host in hosts {
            text.block("server", |text| {
                self.listens(text, "");
                text.line(format!("server_name {};", quoted(host)));
                text.line("set $plugin \"#unknown#\";");
                text.line("set $extra_log_format \"\";");
                self.silent_end(text);
                self.locations(text, Some(host));
            });
        }
    }

    fn listens(&self, text: &mut Text, options: &str) {
        for address in &self.site.listen {
            text.line(format!("listen {address}{options};"));
        }
        for address in &self.site.listen_tls {
            text.line(format!("listen {address} ssl{options};"));
        }
        self.tls_server(text);
    }

    fn at<'s>(&'s self, place: &'s Place) -> impl Iterator<Item = &'s Piece<'s>> {
        self.pieces.iter().filter(move |piece| piece.id.place == *place)
    }

    fn lua(&self, text: &mut Text) {
        if self.pieces.is_empty() || !self.site.has_lua {
            return;
        }
        let mut dirs: Vec<String> = Vec::new();
        for (plugin, section) in self.sections {
            let Fragments { lua_dir, home, lua_base, .. } = &section.fragments;
            if let Some(home) = home {
                // nginx keeps the Lua that it has compiled: another release is to be a reload.
                text.line(format!("# {plugin}: {}", quoted(&home.display().to_string())));
            }
            let places = [lua_dir, lua_base].into_iter().flatten();
            dirs.extend(places.map(|dir| format!("{}/?.lua", dir.display())));
        }
        if !dirs.is_empty() {
            let mut seen = BTreeSet::new();
            dirs.retain(|dir| seen.insert(dir.clone()));
            text.line(format!("lua_package_path {};", quoted(&format!("{};;", dirs.join(";")))));
        }
        self.init_worker(text);
    }

    /// nginx has one such block. Each plugin's part is compiled and run by itself, so that a bad
    /// one stops no other.
    fn init_worker(&self, text: &mut Text) {
        let mut parts = self.at(&Place::InitWorker).peekable();
        if parts.peek().is_none() {
            return;
        }
        text.block("init_worker_by_lua_block", |text| {
            text.line("local function run(name, text)");
            text.line("    local code, why = loadstring(text, name)");
            text.line("    if code then");
            text.line("        local ok, failed = pcall(code)");
            text.line("        why = not ok and failed or nil");
            text.line("    end");
            text.line("    if why then ngx.log(ngx.ERR, name, \": \", why) end");
            text.line("end");
            for piece in parts {
                let mut equals = String::new();
                while piece.fragment.text.contains(&format!("]{equals}]")) {
                    equals.push('=');
                }
                let name = format!("@{} {}", piece.id.plugin, piece.fragment.file);
                text.line(format!("run({}, [{equals}[", quoted(&name)));
                text.verbatim(&piece.id, &piece.fragment.text);
                text.line(format!("]{equals}])"));
            }
        });
    }
}

#[cfg(test)]
mod tests;
