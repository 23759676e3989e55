//! The rows of the table: apps, and who serves each beside mfserv.

use clap::ValueEnum;

use super::peers::Peer;

/// An app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// A WSGI function.
    Raw,
    /// Flask.
    Flask,
    /// Django with two middlewares.
    Django,
    /// An ASGI function.
    Asgi,
    /// Starlette.
    Starlette,
    /// FastAPI.
    Fastapi,
    /// A server of `node:http`.
    Node,
    /// Express.
    Express,
    /// WSGI, 4 workers: 95 % of the requests take 2 ms, 5 % take 200 ms on another path.
    Mixed,
    /// The same, all on one path.
    MixedOnePath,
}

/// What all of one kind have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Called by a server, one request at a time.
    Wsgi,
    /// Called by a server, many requests at a time.
    Asgi,
    /// A server by itself.
    Node,
}

/// All but the last, which only says what the one before it owes to its two paths.
pub const DEFAULT: &str = "raw,flask,django,asgi,starlette,fastapi,node,express,mixed";

impl Row {
    /// How it is called in the report and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Row::Raw => "raw",
            Row::Flask => "flask",
            Row::Django => "django",
            Row::Asgi => "asgi",
            Row::Starlette => "starlette",
            Row::Fastapi => "fastapi",
            Row::Node => "node",
            Row::Express => "express",
            Row::Mixed => "mixed",
            Row::MixedOnePath => "mixed-one-path",
        }
    }

    /// What kind of app it is.
    pub fn kind(self) -> Kind {
        match self {
            Row::Raw | Row::Flask | Row::Django | Row::Mixed | Row::MixedOnePath => Kind::Wsgi,
            Row::Asgi | Row::Starlette | Row::Fastapi => Kind::Asgi,
            Row::Node | Row::Express => Kind::Node,
        }
    }

    /// Its load is mixed.
    pub fn is_mixed(self) -> bool {
        matches!(self, Row::Mixed | Row::MixedOnePath)
    }

    /// The program.
    pub fn source(self) -> &'static str {
        match self {
            Row::Raw => include_str!("../programs/wsgi.py"),
            Row::Flask => include_str!("../programs/flask_app.py"),
            Row::Django => include_str!("../programs/stack/django_app.py"),
            Row::Asgi => include_str!("../programs/stack/asgi_app.py"),
            Row::Starlette => include_str!("../programs/stack/starlette_app.py"),
            Row::Fastapi => include_str!("../programs/stack/fastapi_app.py"),
            Row::Node => include_str!("../programs/stack/server.js"),
            Row::Express => include_str!("../programs/stack/express.js"),
            Row::Mixed | Row::MixedOnePath => include_str!("../programs/stack/sleeping_app.py"),
        }
    }

    /// The plugin that has it in mfserv.
    pub fn plugin(self) -> String {
        format!("stack_{}", self.name().replace('-', "_"))
    }

    /// What clients ask for: the longer path of a plugin is more work for an app, so all stacks are
    /// asked for one.
    pub fn path(self) -> String {
        format!("/{}/", self.plugin())
    }

    /// The length of its answer, bytes.
    pub fn length(self) -> u64 {
        match self {
            Row::Fastapi => r#"{"page":1}"#.len() as u64,
            _ => "ok\n".len() as u64,
        }
    }

    /// The packages of Python that it needs, in the versions that all stacks have.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Row::Flask => &["flask==3.1.3"],
            Row::Django => &["django==5.2.19"],
            Row::Asgi => UVICORN,
            Row::Starlette => STARLETTE,
            Row::Fastapi => FASTAPI,
            Row::Raw | Row::Node | Row::Express | Row::Mixed | Row::MixedOnePath => &[],
        }
    }

    /// Who serves it beside mfserv.
    pub fn peers(self) -> &'static [Peer] {
        match self.kind() {
            _ if self.is_mixed() => &[Peer::Bjoern, Peer::Imitated],
            Kind::Wsgi => &[Peer::Imitated, Peer::Bjoern, Peer::Gunicorn, Peer::Uwsgi],
            Kind::Asgi => &[Peer::Uvicorn, Peer::Granian],
            Kind::Node => &[Peer::Node, Peer::Pm2],
        }
    }
}

const UVICORN: &[&str] = &[SERVER[0], SERVER[1], SERVER[2]];
const STARLETTE: &[&str] = &["starlette==1.10.0", SERVER[0], SERVER[1], SERVER[2]];
const FASTAPI: &[&str] = &["fastapi==0.165.0", SERVER[0], SERVER[1], SERVER[2]];
/// uvicorn takes the other two when it finds them.
const SERVER: [&str; 3] = ["uvicorn==0.54.0", "httptools==0.9.0", "uvloop==0.23.0"];
