//! `jsonlog2elasticsearch` and `mflog2mfadmin`: the old names of `mfserv ship`.

use std::path::PathBuf;

use clap::Parser;
use mfserv_core::{Diagnostic, Kind};

use crate::cli::report::Outcome;
use crate::cli::ship::{Grouping, Receiver, Ship, TemplateName};

/// Functions of Python that are known: what they do is done here.
const NO_TRANSFORM: &str = "jsonlog2elasticsearch.no_transform";
const MFLOG_TRANSFORM: &str = "mflog2mfadmin.transform_func";

/// Daemon to send JSON logs read from a file to an Elasticsearch instance.
#[derive(Debug, Parser)]
#[command(name = "jsonlog2elasticsearch")]
struct JsonLog {
    /// Function that transforms each line.
    #[arg(long, default_value = NO_TRANSFORM)]
    transform_func: String,
    /// Accepted; there are no debug messages.
    #[arg(long)]
    debug: bool,
    /// Function that overrides ES_INDEX.
    #[arg(long, default_value = "no")]
    index_override_func: String,
    /// Host of Elasticsearch.
    #[arg(value_name = "ES_HOST")]
    host: String,
    /// Its port.
    #[arg(value_name = "ES_PORT")]
    port: u16,
    /// The index, with directives of strftime.
    #[arg(value_name = "ES_INDEX")]
    index: String,
    /// The JSON log file.
    #[arg(value_name = "LOG_PATH")]
    file: PathBuf,
}

/// Sends the messages of mflog in a JSON file to the monitoring server of the node.
#[derive(Debug, Parser)]
#[command(name = "mflog2mfadmin")]
struct Mflog {
    /// Accepted; there are no debug messages.
    #[arg(long)]
    debug: bool,
    /// The JSON file of mflog.
    #[arg(value_name = "LOG_PATH")]
    file: PathBuf,
}

pub fn jsonlog2elasticsearch() -> Result<Outcome, Diagnostic> {
    let JsonLog { transform_func, debug: _, index_override_func, host, port, index, file } =
        JsonLog::parse();
    let transform = match &*transform_func {
        NO_TRANSFORM => Vec::new(),
        MFLOG_TRANSFORM => mflog_transform(),
        other => return Err(python_refused("--transform-func", other)),
    };
    if index_override_func != "no" {
        return Err(python_refused("--index-override-func", &index_override_func));
    }
    ship(file, (host, port), index, transform, Vec::new()).run()
}

pub fn mflog2mfadmin() -> Result<Outcome, Diagnostic> {
    let Mflog { debug: _, file } = Mflog::parse();
    let variable = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty() && value != "null");
        value.ok_or_else(|| {
            Diagnostic::error(format!("{name} is not set"))
                .because("it says where the monitoring server is")
                .help("set [admin] hostname, and run this in mfserv_wrapper")
        })
    };
    let host = variable("MFSERV_ADMIN_HOSTNAME_IP")?;
    let port = variable("MFSERV_ADMIN_ELASTICSEARCH_HTTP_PORT")?;
    let bad = |e| Diagnostic::error(format!("the port {port:?} is none")).because(e);
    let port = port.parse().map_err(|e: std::num::ParseIntError| bad(e))?;
    let index = "mflog-%Y.%m.%d".to_string();
    ship(file, (host, port), index, mflog_transform(), vec![TemplateName::Mflog]).run()
}

/// What `mflog2mfadmin.transform_func` did.
fn mflog_transform() -> Vec<String> {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".into());
    vec![
        "drop:name=elasticsearch".into(),
        "drop:name=jsonlog2elasticsearch".into(),
        "default:module=MFSERV".into(),
        format!("default:hostname={}", variable("MFHOSTNAME")),
        format!("default:module_version={}", variable("MFMODULE_VERSION")),
        "default:plugin=#core#".into(),
    ]
}

fn ship(
    file: PathBuf,
    (host, port): (String, u16),
    index: String,
    transform: Vec<String>,
    template: Vec<TemplateName>,
) -> Ship {
    Ship {
        files: vec![file],
        to: vec![format!("http://{host}:{port}")],
        receiver: Receiver::Elasticsearch,
        index: Some(index),
        data_stream: false,
        template,
        transform,
        lines: Grouping::Single,
        source: String::new(),
        state: None,
        once: false,
        // As before; but a file that was followed goes on where it was.
        from_end: true,
        patience: None,
        user: None,
        password_file: None,
        api_key_file: None,
        ca: None,
        no_gzip: false,
    }
}

fn python_refused(option: &str, function: &str) -> Diagnostic {
    Diagnostic::error(format!("{option} {function} is not run"))
        .kind(Kind::Usage)
        .because("a process that speaks with the network runs no other program, so no Python")
        .help(
            "say what the function does with --transform of mfserv ship: set:FIELD=TEXT, \
             default:FIELD=TEXT, remove:FIELD, rename:FIELD=NEW, drop:FIELD=TEXT",
        )
}
