//! Points reach a real InfluxDB under the names that MFSERV gave them.

use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mfserv_testkit::{Node, Plugin, get, post, programs, servers, until};

use crate::contrib::{Dashboard, encoded};
use crate::{PATIENCE, Turn, node};

/// An InfluxDB 1.6; killed when dropped.
pub(crate) struct Influx {
    child: Child,
    port: u16,
}

impl Drop for Influx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Influx {
    pub(crate) fn start(program: &Path, dir: &Path, port: u16) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let config = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{}\"\n[meta]\ndir = \"{}\"\n\
             [data]\ndir = \"{}\"\nwal-dir = \"{}\"\n[http]\nbind-address = \"127.0.0.1:{port}\"\n",
            free_port(),
            dir.join("meta").display(),
            dir.join("data").display(),
            dir.join("wal").display(),
        );
        let file = dir.join("influxdb.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.args(["run", "-config"]).arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let influx = Self { child: command.spawn().unwrap(), port };
        until("InfluxDB answers", PATIENCE, || {
            get(influx.address(), "/ping").is_ok_and(|answer| answer.status == 204)
        });
        influx
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn query(&self, query: &str) -> String {
        self.query_of("metrics", query)
    }

    pub(crate) fn query_of(&self, database: &str, query: &str) -> String {
        let path = format!("/query?db={database}&q={}", encoded(query));
        let answer = post(self.address(), &path, b"");
        answer.map_or(String::new(), |answer| answer.text())
    }

    /// A database with the three retention policies.
    pub(crate) fn create(&self, database: &str) {
        self.query(&format!("CREATE DATABASE {database} WITH DURATION 24h NAME fullres"));
        for policy in ["medres", "lowres"] {
            let of = format!("{policy} ON {database} DURATION 52w REPLICATION 1");
            self.query(&format!("CREATE RETENTION POLICY {of}"));
        }
    }

    /// The names that a query gives, one a row.
    fn names(&self, query: &str) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_str(&self.query(query)).unwrap_or_default();
        let rows = json["results"][0]["series"][0]["values"].as_array().cloned();
        rows.unwrap_or_default().iter().filter_map(|row| Some(row[0].as_str()?.into())).collect()
    }
}

/// Measurements, their fields before aggregation, and their tags: the contract.
const CONTRACT: &[(&str, &[&str], &[&str])] = &[
    (
        "nginx",
        &["accepts", "active", "handled", "reading", "requests", "waiting", "writing"],
        &["port", "server"],
    ),
    ("request_counter", &["value"], &["plugin", "app", "type", "status_code", "metric_type"]),
    (
        "request_timer",
        &["lower", "mean", "upper", "stddev", "sum", "count", "90_percentile"],
        &["plugin", "app", "type", "status_code", "metric_type"],
    ),
    ("metwork_module", &["mem_percent", "num_threads", "cpu_percent", "num_fds"], &["plugin"]),
];

/// The same for what is sent as it came.
const AS_THEY_CAME: &[(&str, &[&str], &[&str])] = &[
    (
        "metwork_version",
        &["version", "status", "os_name", "status_code"],
        &["modname", "bypassbasicstats"],
    ),
    ("metwork_plugin", &["version", "release"], &["plugin_name", "bypassbasicstats"]),
];

/// Some of those of the machine: what every machine has.
const OF_THE_MACHINE: &[(&str, &[&str], &[&str])] = &[
    ("swap", &["total", "used", "free", "used_percent", "in", "out"], &[]),
    (
        "disk",
        &[
            "total",
            "free",
            "used",
            "used_percent",
            "inodes_total",
            "inodes_free",
            "inodes_used",
            "inodes_used_percent",
        ],
        &["path", "device", "fstype", "mode"],
    ),
];

#[test]
fn the_measurements_of_mfserv_are_found_by_influxql_also_those_of_an_outage() {
    let _turn = Turn::heavy();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(influxd) = servers::of_debian(target, "influxdb", "usr/bin/influxd") else { return };
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    let (port, statsd) = (free_port(), free_port());
    node.set("admin.hostname", "127.0.0.1");
    node.set("telegraf.host", "1");
    node.set("admin.influxdb_http_port", &port.to_string());
    node.set("telegraf.statsd_port", &statsd.to_string());
    node.start();
    node.settled("app.shop.main");
    for _ in 0..5 {
        assert_eq!(node.get("/shop/x").status, 200);
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"orders,kind=book:3|c\norders,kind=book:4|c", ("127.0.0.1", statsd)).unwrap();
    until("lines are received", PATIENCE, || {
        UnixStream::connect(node.path("var/telegraf.socket")).is_ok_and(|mut stream| {
            stream
                .write_all(b"stock,row=a\\ b level=7.5\nno line\nraw,bypassbasicstats=1 n=1i\n")
                .is_ok()
        })
    });
    // Nobody listens yet: the first window goes to the disk.
    let spool = node.path("var/telemetry/points");
    until("points are kept", PATIENCE, || {
        std::fs::read_dir(&spool).is_ok_and(|entries| entries.flatten().count() > 0)
    });
    let dir = tempfile::tempdir().unwrap();
    let influx = Influx::start(&influxd, dir.path(), port);
    influx.create("metrics");
    until("what was kept is sent", PATIENCE, || {
        influx.query("SELECT sum(value_sum) FROM fullres.orders WHERE kind='book'").contains(",7]")
    });
    let level = "SELECT level_max FROM fullres.stock WHERE row='a b'";
    for (query, value) in [(level, "7.5"), ("SELECT n FROM fullres.raw", ",1]")] {
        until(&format!("{query} has {value}"), PATIENCE, || influx.query(query).contains(value));
    }
    let counted = "SELECT sum(value_sum) FROM fullres.request_counter WHERE plugin='shop' AND \
                   app='main' AND type='dynamic' AND status_code='200'";
    until("five requests are counted", PATIENCE, || influx.query(counted).contains(",5]"));

    the_dashboard_shows_everything(&influx);

    stop_until_all_is_sent(&node, &spool);
    for resolution in ["fullres", "medres", "lowres"] {
        the_contract_holds(&influx, resolution, CONTRACT, &["min", "max", "mean", "sum"]);
    }
    the_contract_holds(&influx, "fullres", AS_THEY_CAME, &[]);
    the_contract_holds(&influx, "fullres", OF_THE_MACHINE, &["min", "max", "mean", "sum"]);
    let idle = "SELECT max(usage_idle_max) FROM fullres.cpu WHERE cpu='cpu-total'";
    assert!(influx.query(idle).contains("\"values\""), "{}", influx.query(idle));
    assert!(influx.query("SELECT status_code FROM fullres.metwork_version").contains(",2]"));
    let states = influx.query("SELECT status FROM fullres.metwork_version");
    for state in ["starting", "running", "stopping", "stopped"] {
        assert!(states.contains(&format!("\"{state}\"")), "{state}: {states}");
    }
}

/// Stops the node, which then gives the longer windows what they have. What the database does not
/// take in time is kept, and sent after the next start.
fn stop_until_all_is_sent(node: &Node, spool: &Path) {
    let is_empty = || std::fs::read_dir(spool).unwrap().count() == 0;
    node.stop();
    for _ in 0..3 {
        if is_empty() {
            return;
        }
        node.start();
        until("what was kept is sent", PATIENCE, is_empty);
        node.stop();
    }
    assert!(is_empty(), "everything was sent");
}

fn the_dashboard_shows_everything(influx: &Influx) {
    // A rate is known after the second window.
    let dashboard = Dashboard::read("mfserv-influxdb.json");
    for (what, query) in [dashboard.queries("query"), dashboard.variables()].concat() {
        until(&format!("{what} shows something: {query}"), PATIENCE, || {
            let answer: serde_json::Value = serde_json::from_str(&influx.query(&query)).unwrap();
            let row = &answer["results"][0]["series"][0]["values"][0];
            row[1].is_number() || row[1].is_string()
        });
    }
}

/// The measurements of a retention policy have these fields and tags.
fn the_contract_holds(
    influx: &Influx,
    resolution: &str,
    contract: &[(&str, &[&str], &[&str])],
    ends: &[&str],
) {
    for (measurement, fields, tags) in contract {
        let found = influx.names(&format!("SHOW FIELD KEYS FROM {resolution}.{measurement}"));
        let mut expected = Vec::new();
        for field in *fields {
            expected.extend(ends.iter().map(|end| format!("{field}_{end}")));
            expected.extend(ends.is_empty().then(|| field.to_string()));
        }
        expected.sort();
        assert_eq!(found, expected, "the fields of {resolution}.{measurement}");
        let query = format!("SELECT * FROM {resolution}.{measurement} LIMIT 1");
        let json: serde_json::Value = serde_json::from_str(&influx.query(&query)).unwrap();
        let columns = json["results"][0]["series"][0]["columns"].as_array().cloned();
        let columns = columns.unwrap_or_default();
        for tag in tags.iter().chain(&["host", "module", "resolution"]) {
            assert!(columns.iter().any(|column| column == tag), "{measurement} {tag}: {columns:?}");
        }
    }
}
