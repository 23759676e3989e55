//! `mfserv ship`: the lines of files to Elasticsearch and others, each exactly once. It needs no
//! node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk::failed;
use mfserv_telemetry::ship::{
    Begin, Counts, Credentials, Elasticsearch, IndexPattern, Json, Lines, Loki, Maker, Making,
    Nodes, Options, Pattern, Said, Shipper, Sink, TEMPLATES, Target, Template, Transform,
};

use super::report::Outcome;
use super::{complain, print};

/// Ship the lines of files to Elasticsearch, OpenSearch, Loki or a receiver of JSON.
///
/// Each complete line arrives exactly once in an index, whatever happens to this command, to the
/// machine and to the receiver. Passwords and keys are read from files, or from the variables
/// MFSERV_SHIP_PASSWORD and MFSERV_SHIP_API_KEY.
#[derive(Debug, Args)]
pub struct Ship {
    /// Files to follow through their rotations, and quoted patterns with * ? [...].
    #[arg(required = true, value_name = "FILE|GLOB")]
    pub files: Vec<PathBuf>,
    /// Where to: http://HOST:PORT or https://HOST:PORT; repeated: further nodes of the same
    /// cluster.
    #[arg(long, required = true, value_name = "URL")]
    pub to: Vec<String>,
    /// What is there.
    #[arg(long = "as", value_enum, default_value_t = Receiver::Elasticsearch)]
    pub receiver: Receiver,
    /// The index or data stream, with directives of strftime in UTC: mflog-%Y.%m.%d.
    #[arg(long, value_name = "PATTERN")]
    pub index: Option<String>,
    /// The index is a data stream: each document gets @timestamp.
    #[arg(long)]
    pub data_stream: bool,
    /// Install this index template if it is not there.
    #[arg(long, value_enum, value_name = "NAME")]
    pub template: Vec<TemplateName>,
    /// Change each document: set:FIELD=TEXT, default:FIELD=TEXT, remove:FIELD,
    /// rename:FIELD=NEW, drop:FIELD=TEXT (not sent). Repeated: in this order.
    #[arg(long, value_name = "TRANSFORM")]
    pub transform: Vec<String>,
    /// How lines become documents.
    #[arg(long, value_enum, default_value_t = Grouping::Grouped)]
    pub lines: Grouping,
    /// The value of the label `source` (Loki).
    #[arg(long, value_name = "TEXT", default_value = "mfserv")]
    pub source: String,
    /// Where the state is kept (else beside each file: .NAME.ship).
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// End when everything that is there has arrived.
    #[arg(long)]
    pub once: bool,
    /// Leave out what a file has when it is followed for the first time.
    #[arg(long)]
    pub from_end: bool,
    /// Give up when nothing has arrived for so long, seconds (with --once: 300).
    #[arg(long, value_name = "SECONDS")]
    pub patience: Option<u64>,
    /// The user of basic authentication.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A file with the password.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// A file with an API key, as Elasticsearch encodes it.
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates to trust instead of those of the system (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Send without compression.
    #[arg(long)]
    pub no_gzip: bool,
}

/// What receives documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Receiver {
    /// Elasticsearch or OpenSearch
    Elasticsearch,
    /// Loki
    Loki,
    /// A JSON array by POST to the URL
    Json,
}

/// An index template that mfserv knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TemplateName {
    /// template_mflog, for mflog-*
    Mflog,
    /// template_nginx, for nginx-*
    Nginx,
}

/// How lines become documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Grouping {
    /// A JSON object is a document; other lines take the indented lines and the traceback that follow
    Grouped,
    /// Each line is a document
    Single,
}

/// The longest time without progress, with `--once`.
const PATIENCE_S: u64 = 300;

impl Ship {
    pub fn run(self) -> Result<Outcome, Diagnostic> {
        let patterns: Vec<Pattern> = self
            .files
            .iter()
            .map(|file| Pattern::new(file).map_err(|e| failed("find", file, e)))
            .collect::<Result<_, _>>()?;
        // Without --once, a file that does not exist yet is waited for.
        let named = patterns.iter().filter_map(Pattern::file);
        named.filter(|file| self.once || file.exists()).try_for_each(is_there)?;
        if self.once {
            patterns.iter().zip(&self.files).try_for_each(has_files)?;
        }
        let options = Options {
            patterns,
            state: self.state.clone(),
            lines: match self.lines {
                Grouping::Grouped => Lines::Grouped,
                Grouping::Single => Lines::Single,
            },
            first: if self.from_end { Begin::AtEnd } else { Begin::WithLive },
            later: Begin::WithLive,
            once: self.once,
            patience: self.patience.or(self.once.then_some(PATIENCE_S)).map(Duration::from_secs),
        };
        let (maker, sink) = (self.maker()?, self.sink()?);
        let mut observer = |said: Said<'_>| {
            if !matches!(said, Said::At(_)) {
                complain(&said.to_string());
            }
        };
        let counts = Shipper::new(options, Making::Fields(maker), sink, &mut observer)?.run()?;
        print(&summary(counts));
        Ok(if counts.refused > 0 { Outcome::NotWell } else { Outcome::Done })
    }

    fn maker(&self) -> Result<Maker, Diagnostic> {
        let index = match (&self.index, self.receiver) {
            (Some(index), _) => index,
            (None, Receiver::Elasticsearch) => {
                return Err(Diagnostic::error("the index is missing")
                    .kind(Kind::Usage)
                    .help("name it: --index app-%Y.%m.%d"));
            }
            // They have none.
            (None, Receiver::Loki | Receiver::Json) => "none",
        };
        let transforms = self.transform.iter().map(|text| Transform::parse(text));
        Ok(Maker {
            index: IndexPattern::new(index)?,
            transforms: transforms.collect::<Result<_, _>>()?,
            labels: match self.receiver {
                Receiver::Loki => vec!["level", "name", "hostname", "module", "plugin"],
                _ => Vec::new(),
            },
            needs_time: self.data_stream,
            time_field: "@timestamp",
            names_file: true,
        })
    }

    fn sink(&self) -> Result<Sink, Diagnostic> {
        let nodes = Nodes::new(Target {
            nodes: self.to.clone(),
            credentials: self.credentials()?,
            authorities: self.ca.clone(),
            gzip: !self.no_gzip,
        })?;
        let known = |name: &TemplateName| -> Template {
            let [mflog, nginx] = TEMPLATES;
            if *name == TemplateName::Mflog { mflog } else { nginx }
        };
        Ok(match self.receiver {
            Receiver::Elasticsearch => Sink::Elasticsearch(Elasticsearch {
                nodes,
                templates: self.template.iter().map(known).collect(),
            }),
            Receiver::Loki => Sink::Loki(Loki { nodes, source: self.source.clone() }),
            Receiver::Json => Sink::Json(Json { nodes }),
        })
    }

    fn credentials(&self) -> Result<Credentials, Diagnostic> {
        if let Some(user) = self.user.clone() {
            let password = secret(self.password_file.as_deref(), "MFSERV_SHIP_PASSWORD")?;
            let Some(password) = password else {
                return Err(Diagnostic::error(format!("the password of {user} is missing"))
                    .kind(Kind::Usage)
                    .help("set MFSERV_SHIP_PASSWORD, or name a file: --password-file FILE"));
            };
            return Ok(Credentials::Basic { user, password });
        }
        let key = secret(self.api_key_file.as_deref(), "MFSERV_SHIP_API_KEY")?;
        Ok(key.map_or(Credentials::None, Credentials::ApiKey))
    }
}

fn is_there(file: &Path) -> Result<(), Diagnostic> {
    match std::fs::metadata(file) {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(_) => Err(failed("ship", file, "it is no file")),
        Err(e) => Err(failed("ship", file, e)),
    }
}

/// A pattern matches files, or did so before: what remains of those is shipped too.
fn has_files((pattern, written): (&Pattern, &PathBuf)) -> Result<(), Diagnostic> {
    let is_empty = || pattern.expand().is_empty() && pattern.with_state().is_empty();
    if pattern.file().is_some() || !is_empty() {
        return Ok(());
    }
    Err(Diagnostic::error(format!("no file matches {}", written.display()))
        .because("files with rotated and compressed names, and those that begin with a dot, do not count")
        .help("without --once, files that match later are waited for"))
}

/// The text of a file, or of a variable.
fn secret(file: Option<&Path>, variable: &str) -> Result<Option<String>, Diagnostic> {
    let text = match file {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|e| failed("read", file, e))?),
        None => std::env::var(variable).ok(),
    };
    let text = text.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
    match (file, &text) {
        (Some(file), None) => Err(failed("use", file, "it is empty")),
        _ => Ok(text),
    }
}

fn summary(counts: Counts) -> String {
    let Counts { sent, known, refused, incomplete } = counts;
    let mut text =
        format!("{sent} documents sent, {known} were there already, {refused} refused\n");
    if incomplete > 0 {
        text.push_str(&format!("{incomplete} bytes of last lines without an end are not sent\n"));
    }
    text
}
