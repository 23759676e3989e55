//! The logs of a node: its access log, and what programs send with mflog.
//!
//! Messages of mflog come by UDP. They are written to a file of bounded size first and shipped
//! from there, as any other file: what has come is not lost when the index is away.

use std::convert::Infallible;
use std::io;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::output::Rotation;
use mfserv_core::shipping::{Receiver, ShippingSettings};
use mfserv_logfile::{LogFile, Trouble};

use super::document::{Maker, Making};
use super::elasticsearch::{Elasticsearch, TEMPLATES, Template};
use super::followed::Begin;
use super::http::{Credentials, Nodes, Target};
use super::index::IndexPattern;
use super::loki::Loki;
use super::names::Pattern;
use super::records::Lines;
use super::report::{self, Reports, Said};
use super::shipper::{Options, Shipper};
use super::sink::Sink;
use super::transform::Transform;

/// How the file of received messages is rotated: at most 80 MB.
const RECEIVED: Rotation =
    Rotation { max_bytes: 16 << 20, max_age_s: 0, keep: 5, mode: Some(0o600) };
/// Bytes of datagrams that may wait.
const BURST: usize = 8 << 20;
/// The longest datagram.
const DATAGRAM: usize = 65_536;
/// The wait after something failed that nobody else tries again.
pub const WAIT: Duration = Duration::from_secs(5);
/// What vector adds to a message, and MFSERV removes.
const REMOVED: [&str; 6] = ["appname", "facility", "host", "severity", "source_ip", "source_type"];

/// Says something to the operator.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// What a node ships.
pub struct NodeLogs {
    /// Which logs, and where to.
    pub settings: ShippingSettings,
    /// The access log.
    pub access_log: PathBuf,
    /// A directory of its own: state, and received messages.
    pub state: PathBuf,
    /// The name of this machine, as documents have it.
    pub hostname: String,
    /// The version of this program.
    pub version: String,
}

/// One log on its way to one receiver.
#[derive(Clone)]
struct Flow {
    name: &'static str,
    file: PathBuf,
    state: PathBuf,
    server: Receiver,
    labels: Vec<&'static str>,
    /// The index, and its template where it is not a data stream; `None`: Loki, which has none.
    index: Option<(String, Option<Template>)>,
    time_field: &'static str,
    transforms: Vec<Transform>,
}

impl NodeLogs {
    /// Ships in threads of this process, for as long as it lives. Nothing that fails there ends
    /// the process.
    ///
    /// # Errors
    /// What the operating system says when there can be no more threads.
    pub fn start(self, notice: &Notice, reports: &Arc<Reports>) -> io::Result<()> {
        std::fs::create_dir_all(&self.state)?;
        if let Some(port) = self.settings.mflog_port {
            let (file, notice, reports) = (self.received(), notice.clone(), reports.clone());
            let receive = move || {
                let what = format!("[vector] mflog_port={port}");
                loop {
                    let Err(e) = mflog_socket(port).and_then(|socket| {
                        reports.troubles().over(&what);
                        receive(&socket, LogFile::new(&file, RECEIVED), &notice)
                    });
                    let why = format!("no messages of mflog can be received: {e}");
                    reports.troubles().say(&what, &why);
                    thread::sleep(WAIT);
                }
            };
            thread::Builder::new().name("mflog".into()).spawn(receive)?;
        }
        for flow in self.flows() {
            let reports = reports.clone();
            let ship = move || loop {
                if let Err(problem) = flow.ship(&reports) {
                    reports.say(&flow.title(), flow.kind(), Said::Trouble(&problem.to_string()));
                }
                thread::sleep(WAIT);
            };
            thread::Builder::new().name("ship".into()).spawn(ship)?;
        }
        Ok(())
    }

    fn received(&self) -> PathBuf {
        self.state.join("mflog.json")
    }

    fn flows(&self) -> Vec<Flow> {
        let [mflog, nginx] = TEMPLATES;
        let mut logs = Vec::new();
        if self.settings.mflog_port.is_some() {
            logs.push(("mflog", self.received(), mflog, vec!["level", "name"]));
        }
        if self.settings.access_log {
            logs.push(("nginx", self.access_log.clone(), nginx, vec!["method", "status"]));
        }
        let mut flows = Vec::new();
        for (name, file, template, own_labels) in logs {
            let common = ["hostname", "module", "plugin"];
            let labels: Vec<_> = own_labels.iter().copied().chain(common).collect();
            let flow = |server: &Receiver, kind: &str, index, time_field| Flow {
                name,
                file: file.clone(),
                state: self.state.join(kind),
                server: server.clone(),
                labels: labels.clone(),
                index,
                time_field,
                transforms: self.transforms(),
            };
            if let Some(to) = &self.settings.elasticsearch {
                let (index, time_field) = match name {
                    "mflog" => (&to.mflog_index, "timestamp"),
                    _ => (&to.nginx_index, "@timestamp"),
                };
                let time_field = if to.data_stream { "@timestamp" } else { time_field };
                let index = Some((index.clone(), (!to.data_stream).then_some(template)));
                flows.push(flow(&to.server, "elasticsearch", index, time_field));
            }
            if let Some(to) = &self.settings.loki {
                let time_field = if name == "mflog" { "timestamp" } else { "@timestamp" };
                flows.push(flow(to, "loki", None, time_field));
            }
        }
        flows
    }

    fn transforms(&self) -> Vec<Transform> {
        let set = |field: &str, value: &str| Transform::Set(field.into(), value.into());
        let mut transforms: Vec<Transform> =
            REMOVED.iter().map(|field| Transform::Remove(field.to_string())).collect();
        transforms.push(set("module", "MFSERV"));
        transforms.push(set("module_version", &self.version));
        transforms.push(set("hostname", &self.hostname));
        transforms
    }
}

impl Flow {
    fn kind(&self) -> report::Receiver {
        if self.index.is_none() { "loki" } else { "elasticsearch" }
    }

    fn title(&self) -> String {
        format!("{} to {}", self.name, self.server.urls.join(", "))
    }

    fn ship(&self, reports: &Reports) -> Result<(), Diagnostic> {
        let server = &self.server;
        let nodes = Nodes::new(Target {
            nodes: server.urls.clone(),
            credentials: match (&server.api_key, &server.user) {
                (Some(key), _) => Credentials::ApiKey(key.clone()),
                (None, Some(user)) => Credentials::Basic {
                    user: user.clone(),
                    password: server.password.clone().unwrap_or_default(),
                },
                (None, None) => Credentials::None,
            },
            authorities: server.ca.clone(),
            gzip: true,
        })?;
        let (index, sink) = match &self.index {
            None => ("none", Sink::Loki(Loki { nodes, source: self.name.into() })),
            Some((index, template)) => {
                let templates = template.iter().copied().collect();
                (index.as_str(), Sink::Elasticsearch(Elasticsearch { nodes, templates }))
            }
        };
        let pattern = Pattern::new(&self.file);
        let pattern = pattern.map_err(|e| mfserv_platform::disk::failed("find", &self.file, e))?;
        let options = Options {
            patterns: vec![pattern],
            state: Some(self.state.clone()),
            lines: Lines::Single,
            first: Begin::WithLive,
            later: Begin::WithLive,
            once: false,
            patience: None,
        };
        let maker = Maker {
            index: IndexPattern::new(index)?,
            transforms: self.transforms.clone(),
            labels: if self.index.is_none() { self.labels.clone() } else { Vec::new() },
            needs_time: true,
            time_field: self.time_field,
            names_file: false,
        };
        let title = self.title();
        let mut observer = |said: Said<'_>| reports.say(&title, self.kind(), said);
        let making = Making::Fields(maker);
        Shipper::new(options, making, sink, &mut observer)?.run().map(|_| ())
    }
}

/// Where programs send messages of mflog to.
fn mflog_socket(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", port))?;
    // A burst waits here while the file is written; the system may allow less.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BURST);
    Ok(socket)
}

/// Writes what comes to the file, a line for each datagram.
fn receive(socket: &UdpSocket, mut file: LogFile, notice: &Notice) -> io::Result<Infallible> {
    let mut datagram = vec![0; DATAGRAM];
    let (mut is_lost, mut is_whole) = (false, false);
    loop {
        let length = socket.recv(&mut datagram)?;
        let Some(line) = line_of(&datagram[..length]) else { continue };
        let result = append(&mut file, &line, &mut is_whole);
        if let (Err(trouble), false) = (&result, is_lost) {
            notice(&format!("messages of mflog are lost: {trouble}"));
        }
        is_lost = result.is_err();
    }
}

/// Appends a line, after the end of a piece that an error or a killed process has left.
/// `is_whole`: the last line is known to have its end.
fn append(file: &mut LogFile, line: &[u8], is_whole: &mut bool) -> Result<(), Trouble> {
    if !std::mem::take(is_whole) {
        file.end_line()?;
    }
    file.append(line)?;
    *is_whole = true;
    Ok(())
}

/// The line of a datagram: the text from the first `{` to the last `}`, as vector takes it; the
/// whole text if there is none.
fn line_of(datagram: &[u8]) -> Option<Vec<u8>> {
    let first = datagram.iter().position(|byte| *byte == b'{');
    let last = datagram.iter().rposition(|byte| *byte == b'}');
    let text = match (first, last) {
        (Some(first), Some(last)) if first < last => &datagram[first..=last],
        _ => datagram,
    };
    // A line of the file must be a line.
    let line = |byte: &u8| if *byte < b' ' { b' ' } else { *byte };
    let mut text: Vec<u8> = text.iter().map(line).collect();
    if text.trim_ascii().is_empty() {
        return None;
    }
    text.push(b'\n');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_becomes_one_line_with_the_object_in_it() {
        for (datagram, line) in [
            (&b"<14>{\"a\":{\"b\":1}}\0"[..], Some("{\"a\":{\"b\":1}}\n")),
            (b"<14>1 2026-01-31 host app {\"a\":\n1}", Some("{\"a\": 1}\n")),
            (b"no object\n", Some("no object \n")),
            (b"} {", Some("} {\n")),
            (b"\0\n", None),
            (b"", None),
        ] {
            let found = line_of(datagram).map(|line| String::from_utf8(line).unwrap());
            assert_eq!(found.as_deref(), line);
        }
    }

    #[test]
    fn a_piece_of_a_line_spoils_no_message_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mflog.json");
        std::fs::write(&path, "{\"half").unwrap();
        let (mut file, mut is_whole) = (LogFile::new(&path, RECEIVED), false);
        append(&mut file, b"{\"a\":1}\n", &mut is_whole).unwrap();
        append(&mut file, b"{\"b\":2}\n", &mut is_whole).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"half\n{\"a\":1}\n{\"b\":2}\n");
    }

    #[test]
    fn each_log_goes_to_each_receiver_with_the_labels_of_its_kind() {
        let of = |url: &str| Receiver { urls: vec![url.into()], ..Receiver::default() };
        let mut settings = ShippingSettings {
            elasticsearch: Some(mfserv_core::shipping::Elasticsearch {
                server: Receiver { urls: vec!["http://a".into(), "http://b".into()], ..of("") },
                nginx_index: "web-%Y".into(),
                mflog_index: "logs".into(),
                data_stream: false,
            }),
            loki: Some(of("http://c")),
            access_log: true,
            mflog_port: Some(3),
        };
        let flows_of = |settings: &ShippingSettings| {
            let logs = NodeLogs {
                settings: settings.clone(),
                access_log: "/log/nginx_access.log".into(),
                state: "/state".into(),
                hostname: "h".into(),
                version: "1".into(),
            };
            logs.flows()
        };
        let flows = flows_of(&settings);
        let titles: Vec<String> = flows.iter().map(Flow::title).collect();
        let expected = [
            "mflog to http://a, http://b",
            "mflog to http://c",
            "nginx to http://a, http://b",
            "nginx to http://c",
        ];
        assert_eq!(titles, expected);
        let index = |flow: &Flow| {
            flow.index.as_ref().map(|(name, template)| (name.clone(), template.map(|it| it.name)))
        };
        assert_eq!(index(&flows[0]), Some(("logs".into(), Some("template_mflog"))));
        assert_eq!((index(&flows[1]), flows[0].time_field), (None, "timestamp"));
        assert_eq!(index(&flows[2]), Some(("web-%Y".into(), Some("template_nginx"))));
        assert_eq!(flows[1].labels, ["level", "name", "hostname", "module", "plugin"]);
        assert_eq!(flows[3].labels, ["method", "status", "hostname", "module", "plugin"]);
        if let Some(to) = &mut settings.elasticsearch {
            to.data_stream = true;
        }
        let stream = &flows_of(&settings)[0];
        assert_eq!(index(stream), Some(("logs".into(), None)));
        assert_eq!(stream.time_field, "@timestamp");
    }
}
