//! What is doubtful in several keys together: each of them alone is right.

mod tls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ModuleConfig;
use crate::diagnostic::Diagnostic;
use crate::exit_code::Kind;
use crate::keys::{
    ELASTICSEARCH_API_KEY, ELASTICSEARCH_DATA_STREAM, ELASTICSEARCH_MFLOG_INDEX,
    ELASTICSEARCH_NGINX_INDEX, ELASTICSEARCH_PASSWORD, ELASTICSEARCH_USER, FRONT_KIND,
    INFLUXDB_ORG, INFLUXDB_TOKEN, LOG_JSON_FILE, LOKI_PASSWORD, LOKI_USER, METRICS_PORT,
    TELEGRAF_STATSD_PORT,
};
use crate::layers::{Origin, Value};
use crate::log_outputs;
use crate::shipping::{Elasticsearch, Receiver, ShippingSettings};
use crate::telemetry::InfluxSettings;

/// Sections that look like some of mfserv and are none, and what to write instead.
const NO_SECTIONS: [(&str, &str); 9] = [
    ("alert", "an alert has a name: [alert_NAME]"),
    ("alerts", "an alert has a section of its own: [alert_NAME]"),
    ("grafana", "mfserv starts no Grafana: contrib/grafana has dashboards for it"),
    (
        "jsonlog2elasticsearch",
        "[elasticsearch] says where a node ships its logs; see mfserv ship too",
    ),
    ("kibana", "mfserv starts no Kibana: [elasticsearch] says where logs are shipped"),
    ("mflog2mfadmin", "[elasticsearch] and [loki] say where a node ships its logs"),
    ("opensearch", "[elasticsearch] is meant for OpenSearch too"),
    ("prometheus", "[metrics] port is where Prometheus reads metrics"),
    ("statsd", "[telegraf] statsd_port is the port of statsd"),
];

/// Keys about nginx as the front.
const OF_NGINX: [(&str, &str); 4] = [
    ("nginx", "workers"),
    ("front", "nginx_program"),
    ("front", "nginx_modules"),
    ("front", "fragments"),
];

/// What to write in place of a section that looks like one of mfserv.
pub(super) fn instead_of(section: &str) -> Option<&'static str> {
    NO_SECTIONS.iter().find(|(name, _)| *name == section).map(|(_, help)| *help)
}

/// Says what is doubtful.
pub(super) fn check(config: &ModuleConfig, values: &[Value], diagnostics: &mut Vec<Diagnostic>) {
    let all = Checks { config, values };
    let found = [
        all.ports(),
        all.without_receiver(),
        all.influxdb(),
        all.elasticsearch(),
        all.json_file(),
        all.of_nginx(),
        tls::check(&all),
    ];
    diagnostics.extend(found.into_iter().flatten());
}

struct Checks<'a> {
    config: &'a ModuleConfig,
    values: &'a [Value],
}

impl Checks<'_> {
    fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.values.iter().find(|value| (&*value.section, &*value.key) == (section, key))
    }

    /// Places a problem where a key is written.
    fn at(&self, problem: Diagnostic, section: &str, key: &str) -> Diagnostic {
        match self.value(section, key) {
            Some(value) => problem.at(value.origin.location()),
            None => problem,
        }
    }

    fn error(&self, (section, key): (&str, &str), what: String, why: &str) -> Diagnostic {
        let problem = Diagnostic::error(what).kind(Kind::BadConfiguration).because(why);
        self.at(problem, section, key)
    }

    /// A JSON file of mflog that is another one for each program.
    fn json_file(&self) -> Vec<Diagnostic> {
        let written = self.config.get(LOG_JSON_FILE);
        let file = log_outputs::json_file(&written).filter(|file| !file.starts_with('/'));
        let problem = file.map(|file| {
            let what = format!("[log] json_file={file} is not one file");
            let why = "it is relative: each plugin looks for it in its own directory";
            let problem = Diagnostic::warning(what).because(why).help("write an absolute path");
            self.at(problem, "log", "json_file")
        });
        problem.into_iter().collect()
    }

    /// Keys that only nginx obeys, where it is not the front.
    fn of_nginx(&self) -> Vec<Diagnostic> {
        if self.config.get(FRONT_KIND) == "nginx" {
            return Vec::new();
        }
        let written = OF_NGINX.iter().filter_map(|(section, key)| self.value(section, key));
        let said = written.filter(|value| is_set(value)).map(|value| {
            Diagnostic::warning(format!("[{}] {} has no effect", value.section, value.key))
                .because("it is about nginx, which is not the front of this node")
                .at(value.origin.location())
                .help("set [front] kind=nginx, or remove it ([front] threads is for the front that is built in)")
        });
        said.collect()
    }

    /// Two sockets on one port.
    fn ports(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let here = |address: IpAddr| {
            let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            address.is_unspecified() || local.contains(&address)
        };
        let all = self.config.listen_addresses();
        let front = all.into_iter().find(|address| here(address.ip()));
        if let (Some(front), Some(port)) = (front, self.config.get(METRICS_PORT)) {
            if front.port() == port {
                let what = format!("[metrics] port={port} is the port of the front too");
                let why = format!("the front listens on {front}: nobody could read /metrics");
                found.push(self.error(("metrics", "port"), what, &why).help("choose another port"));
            }
        }
        let mflog = ShippingSettings::new(self.config).and_then(|settings| settings.mflog_port);
        if let (Some(mflog), Some(port)) = (mflog, self.config.get(TELEGRAF_STATSD_PORT)) {
            if mflog == port {
                let what = format!("[telegraf] statsd_port={port} is that of [vector] mflog_port");
                let why = "points and messages would come to one socket";
                found.push(
                    self.error(("telegraf", "statsd_port"), what, why).help("choose another port"),
                );
            }
        }
        found
    }

    /// Keys of a server that there is none of.
    fn without_receiver(&self) -> Vec<Diagnostic> {
        // A wrong address is said already.
        let is_named = |section: &str| self.value(section, "url").is_some_and(is_set);
        let has_influxdb = is_named("influxdb") || InfluxSettings::new(self.config).is_some();
        let mut found = Vec::new();
        for (section, has_one) in [
            ("influxdb", has_influxdb),
            ("elasticsearch", Elasticsearch::new(self.config).is_some()),
            ("loki", Receiver::loki(self.config).is_some()),
        ] {
            let has_one = has_one || is_named(section);
            let set = |value: &&Value| value.section == section && is_set(value);
            for value in self.values.iter().filter(set).filter(|_| !has_one) {
                found.push(no_effect(value, &format!("[{section}] url or [admin] hostname")));
            }
        }
        let of_points =
            |value: &&Value| value.section == "telegraf" && is_set(value) && is_of_points(value);
        for value in self.values.iter().filter(of_points).filter(|_| !has_influxdb) {
            found.push(no_effect(value, "[influxdb] url or [admin] hostname"));
        }
        found
    }

    fn influxdb(&self) -> Vec<Diagnostic> {
        let (org, token) = (self.config.get(INFLUXDB_ORG), self.config.get(INFLUXDB_TOKEN));
        let mut found = Vec::new();
        if token.is_some() && org.is_none() {
            let why = "InfluxDB 2.x refuses points without an organisation";
            let what = "[influxdb] _token is set, and org is not".to_string();
            let problem = self.error(("influxdb", "_token"), what, why);
            found.push(problem.help("write org=NAME; for InfluxDB 1.x, username and _password"));
        }
        for key in ["org", "bucket"] {
            let value = self.value("influxdb", key).filter(|value| is_set(value));
            if let (Some(value), None) = (value, &token) {
                found.push(
                    Diagnostic::warning(format!("[influxdb] {key} has no effect without _token"))
                        .because("points are written as InfluxDB 1.x takes them: into `database`")
                        .at(value.origin.location())
                        .help("write _token=… for InfluxDB 2.x, or remove it"),
                );
            }
        }
        found
    }

    fn elasticsearch(&self) -> Vec<Diagnostic> {
        let config = self.config;
        let mut found = Vec::new();
        for (section, user, password) in [
            ("elasticsearch", config.get(ELASTICSEARCH_USER), config.get(ELASTICSEARCH_PASSWORD)),
            ("loki", config.get(LOKI_USER), config.get(LOKI_PASSWORD)),
        ] {
            let (key, missing) = match (user, password) {
                (Some(_), None) => ("user", "_password"),
                (None, Some(_)) => ("_password", "user"),
                _ => continue,
            };
            let what = format!("[{section}] {key} is set, and {missing} is not");
            let why = "basic authentication takes both";
            let problem = self.error((section, key), what, why);
            found.push(problem.help(format!("write {missing}=…, or remove {key}")));
        }
        let has_key = config.get(ELASTICSEARCH_API_KEY).is_some();
        if has_key && config.get(ELASTICSEARCH_USER).is_some() {
            let problem = Diagnostic::warning("[elasticsearch] user has no effect with _api_key");
            let problem = problem.because("a request has one of them").help("remove one of them");
            found.push(self.at(problem, "elasticsearch", "user"));
        }
        if config.get(ELASTICSEARCH_DATA_STREAM) {
            let names = [
                ("nginx_index", config.get(ELASTICSEARCH_NGINX_INDEX)),
                ("mflog_index", config.get(ELASTICSEARCH_MFLOG_INDEX)),
            ];
            for (key, name) in names.into_iter().filter(|(_, name)| name.contains('%')) {
                let what = format!("[elasticsearch] {key}={name} makes a data stream each day");
                let problem = self.error(
                    ("elasticsearch", "data_stream"),
                    what,
                    "a data stream begins new indices by itself: its name has no time",
                );
                found.push(problem.help(format!("write {key}=NAME without %, or data_stream=0")));
            }
        }
        found
    }
}

/// Somebody has written it, and it is not as good as nothing.
fn is_set(value: &Value) -> bool {
    let text = value.value.trim();
    value.origin != Origin::Default && !text.is_empty() && !text.eq_ignore_ascii_case("null")
}

/// A key of [telegraf] that is about points that are sent, set to something.
fn is_of_points(value: &Value) -> bool {
    match value.key.as_str() {
        "agent" => !value.value.eq_ignore_ascii_case("builtin"),
        "host" | "debug" => value.value == "1",
        _ => false,
    }
}

fn no_effect(value: &Value, missing: &str) -> Diagnostic {
    Diagnostic::warning(format!("[{}] {} has no effect", value.section, value.key))
        .because(format!(
            "there is no server that it is about: neither {}",
            missing.replace(" or ", " nor ")
        ))
        .at(value.origin.location())
        .help(format!("set {missing}, or remove it"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use crate::diagnostic::Severity;
    use crate::ini::{Dialect, parse};
    use crate::module_config::resolve;

    /// What is said of a file, without the place: errors with a `!`.
    pub(super) fn said(text: &str) -> Vec<String> {
        let document = parse(text, "config.ini", Dialect::Module).unwrap();
        let found = resolve(&[document], &[], &BTreeMap::new(), "GENERIC").diagnostics;
        let show = |problem: crate::Diagnostic| match problem.severity {
            Severity::Error => format!("!{}", problem.what),
            _ => problem.what,
        };
        found.into_iter().map(show).collect()
    }

    #[test]
    fn ports_that_two_sockets_would_have_are_refused() {
        for (text, expected) in [
            ("[metrics]\nport=18868", Some("![metrics] port=18868 is the port of the front too")),
            ("[front]\nhost=127.0.0.1\n[metrics]\nport=18868", Some("!")),
            ("[front]\nhost=192.0.2.1\n[metrics]\nport=18868", None),
            ("[nginx]\nflag=0\n[metrics]\nport=18868", None),
            ("[metrics]\nport=18869", None),
            ("[admin]\nhostname=h\n[vector]\nmflog_port=18127", Some("![telegraf] statsd_port")),
            ("[vector]\nmflog_port=18127", None),
        ] {
            let found = said(text);
            let is_expected = match expected {
                Some(start) => found.len() == 1 && found[0].starts_with(start),
                None => found.is_empty(),
            };
            assert!(is_expected, "{text}: {found:?}");
        }
    }

    #[test]
    fn keys_that_lack_others_are_said() {
        for (text, expected) in [
            ("[telegraf]\nagent=telegraf", "[telegraf] agent has no effect"),
            ("[nginx]\nworkers=3", "[nginx] workers has no effect"),
            ("[front]\nfragments=a", "[front] fragments has no effect"),
            ("[telegraf]\nhost=1", "[telegraf] host has no effect"),
            ("[influxdb]\nusername=u", "[influxdb] username has no effect"),
            ("[influxdb]\nurl=http://h\norg=o", "[influxdb] org has no effect without _token"),
            ("[influxdb]\nurl=http://h\n_token=t", "![influxdb] _token is set, and org is not"),
            ("[elasticsearch]\nca=/x", "[elasticsearch] ca has no effect"),
            (
                "[elasticsearch]\nurl=http://h\nindices_lifetime=5",
                "[elasticsearch] indices_lifetime",
            ),
            ("[elasticsearch]\nurl=http://h\nindex=x", "[elasticsearch] index is unknown"),
            (
                "[elasticsearch]\nurl=http://h\nuser=x",
                "![elasticsearch] user is set, and _password",
            ),
            ("[elasticsearch]\nurl=http://h,ftp://x", "![elasticsearch] url has a wrong value"),
            ("[elasticsearch]\nurl=http://h\nnginx_index=N-%Q", "![elasticsearch] nginx_index has"),
            ("[loki]\nurl=http://h\n_password=x", "![loki] _password is set, and user is not"),
            ("[log]\njson_file=all.json", "[log] json_file=all.json is not one file"),
            ("[alert]\ncondition=queue > 1", "[alert] is no section of mfserv"),
            ("[prometheus]\nport=1", "[prometheus] is no section of mfserv"),
        ] {
            let found = said(text);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
        }
        let all = "[elasticsearch]\nurl=http://h\nuser=u\n_password=p\n_api_key=k\ndata_stream=1";
        assert_eq!(said(all).len(), 3, "{:?}", said(all));
        for right in [
            "[influxdb]\nurl=http://h\norg=o\n_token=t\nbucket=b\n[telegraf]\nhost=1\nagent=telegraf",
            "[elasticsearch]\nurl=http://h\ndata_stream=1\nnginx_index=a\nmflog_index=b\n_api_key=k",
            "[loki]\nurl=https://h\nuser=u\n_password=p\nca=/x",
            "[telegraf]\nhost=0\nagent=builtin\n[mine]\nurl=x",
        ] {
            assert_eq!(said(right), [""; 0], "{right}");
        }
    }
}
