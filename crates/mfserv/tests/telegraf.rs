//! `[telegraf] agent=telegraf`: the real Telegraf does what the built-in agent does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use mfserv_testkit::{Node, Plugin, programs, servers, until};

use crate::influxdb::{Influx, free_port};
use crate::{PATIENCE, Turn, node};

/// What of Telegraf is built.
const TAGS: &[&str] = &[
    "custom",
    "inputs.statsd",
    "inputs.socket_listener",
    "inputs.cpu",
    "inputs.mem",
    "inputs.swap",
    "inputs.disk",
    "inputs.diskio",
    "inputs.net",
    "inputs.system",
    "inputs.processes",
    "inputs.kernel",
    "outputs.influxdb",
    "outputs.influxdb_v2",
    "outputs.file",
    "aggregators.basicstats",
    "processors.override",
    "parsers.influx",
    "serializers.influx",
];

/// What both agents get.
const STATSD: &[&str] = &[
    "orders,kind=book,shop=a:3|c\norders,shop=a,kind=book:4|c",
    "orders,kind=pen:10|c|@0.5",
    "level.of.tank:5|g\nlevel.of.tank:+2|g\nlevel.of.tank:-3|g",
    "visitors:ann|s\nvisitors:bob|s\nvisitors:ann|s",
    "load.time,app=x:10|ms:20|ms\nload.time,app=x:30|ms|@0.5",
    "sizes:7|h\nbroken\nalso:broken|z\nworse:x|c",
];
const LINES: &str = "stock,row=a\\ b level=7.5,count=3i,open=true,name=\"x, y\"\n\
    stock,row=a\\ b level=1.5\nstock,row=c,resolution=mine level=2\nno line\n\
    old,row=a level=1 1000000000000000000\n\
    raw,bypassbasicstats=1 n=1i,t=\"a b\"\nraw2,bypassbasicstats=yes,resolution=medres n=2i\n";
/// Measurements whose values follow from what was sent.
const SENT: &[&str] = &["orders", "level_of_tank", "visitors", "load_time", "sizes", "stock"];

fn telegraf(target: &Path) -> Option<PathBuf> {
    servers::of_go(target, "github.com/influxdata/telegraf/cmd/telegraf", "1.37.2", TAGS)
}

/// A node that sends points to this database, and where it receives statsd.
fn monitored(influx: &Influx, database: &str) -> (Node, u16) {
    let (node, statsd) = (node(), free_port());
    node.add(&Plugin::python("shop", programs::SERVES));
    node.set("influxdb.url", &format!("http://{}", influx.address()));
    node.set("influxdb.database", database);
    node.set("telegraf.statsd_port", &statsd.to_string());
    node.set("telegraf.host", "1");
    (node, statsd)
}

fn seconds_of_window() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 10
}

#[test]
fn telegraf_and_the_builtin_agent_give_the_same_points_for_the_same_input() {
    let _turn = Turn::heavy();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(program) = telegraf(target) else { return };
    let Some(influxd) = servers::of_debian(target, "influxdb", "usr/bin/influxd") else { return };
    let dir = tempfile::tempdir().unwrap();
    let influx = Influx::start(&influxd, dir.path(), free_port());
    let nodes = ["own", "theirs"].map(|database| {
        influx.create(database);
        monitored(&influx, database)
    });
    let (own, theirs) = (&nodes[0].0, &nodes[1].0);
    theirs.set("telegraf.agent", "telegraf");
    theirs.set("telegraf.program", program.to_str().unwrap());
    for (node, _) in &nodes {
        node.start();
        node.settled("app.shop.main");
        let socket = node.path("var/telegraf.socket");
        until("lines are received", PATIENCE, || UnixStream::connect(&socket).is_ok());
    }
    theirs.settled("telegraf");
    another_one_takes_the_place_of_one_that_is_killed(theirs);
    let config = std::fs::metadata(theirs.path("tmp/config_auto/telegraf.conf")).unwrap();
    assert_eq!(config.permissions().mode() & 0o777, 0o600, "it has passwords");

    feed(&nodes);
    for database in ["own", "theirs"] {
        until("what was sent is in the database", PATIENCE, || {
            let all = measurements(&influx, database, "fullres");
            let expected = SENT.iter().chain(&["request_timer", "raw", "cpu", "nginx"]);
            expected.into_iter().all(|name| all.contains(*name))
        });
    }
    own.stop();
    theirs.stop();

    for resolution in ["fullres", "medres", "lowres"] {
        for measurement in SENT {
            let [own, theirs] = ["own", "theirs"]
                .map(|database| series(&influx, database, resolution, measurement));
            assert!(!own.is_empty(), "{resolution}.{measurement}");
            assert_eq!(own, theirs, "{resolution}.{measurement}");
        }
    }
    for (resolution, measurement) in [("fullres", "raw"), ("medres", "raw2")] {
        let [own, theirs] =
            ["own", "theirs"].map(|it| series(&influx, it, resolution, measurement));
        assert_eq!((own.len(), own), (1, theirs), "{measurement}");
    }
    the_same_names(&influx);
    the_same_of_the_node(&influx);
}

/// Requests that were counted, and the states that the node had.
fn the_same_of_the_node(influx: &Influx) {
    let counted = "SELECT sum(value_sum) FROM fullres.request_counter WHERE plugin='shop'";
    for database in ["own", "theirs"] {
        let answer = influx.query_of(database, counted);
        assert!(answer.contains(",5]"), "{database}: {answer}");
        // Also the last words of a node: Telegraf ends after those who have something to say.
        let states = influx.query_of(database, "SELECT status FROM fullres.metwork_version");
        for state in ["running", "stopping", "stopped"] {
            assert!(states.contains(&format!("\"{state}\"")), "{database} {state}: {states}");
        }
        let last = "SELECT last(status) FROM fullres.metwork_version";
        let last = influx.query_of(database, last);
        assert!(last.contains("\"stopped\""), "{database}: {last}");
    }
}

/// The socket that it leaves behind does not stop the next one.
fn another_one_takes_the_place_of_one_that_is_killed(node: &Node) {
    let pids = || -> Vec<u32> {
        let watchers = node.status().watchers.into_iter();
        let workers = watchers.filter(|it| it.name.as_str() == "telegraf");
        workers.flat_map(|it| it.workers).filter_map(|it| it.pid).collect()
    };
    let killed = pids()[0];
    node.kill(killed);
    let socket = node.path("var/telegraf.socket");
    until("another one has its place", PATIENCE, || {
        let now = pids();
        !now.is_empty() && !now.contains(&killed) && UnixStream::connect(&socket).is_ok()
    });
}

/// Gives both agents the same, all of it in one window of the clock.
fn feed(nodes: &[(Node, u16)]) {
    until("a window has begun", PATIENCE, || (1..6).contains(&seconds_of_window()));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (node, statsd) in nodes {
        for datagram in STATSD {
            udp.send_to(datagram.as_bytes(), ("127.0.0.1", *statsd)).unwrap();
        }
        let mut stream = UnixStream::connect(node.path("var/telegraf.socket")).unwrap();
        stream.write_all(LINES.as_bytes()).unwrap();
        for _ in 0..5 {
            assert_eq!(node.get("/shop/x").status, 200);
        }
    }
}

/// Every measurement of both databases has the same fields and tags.
fn the_same_names(influx: &Influx) {
    let [own, theirs] = ["own", "theirs"].map(|it| measurements(influx, it, "fullres"));
    assert_eq!(own, theirs);
    assert!(!own.contains("old"), "a point of 2001 is of no window: {own:?}");
    for measurement in own {
        for what in ["FIELD", "TAG"] {
            let query = format!("SHOW {what} KEYS FROM fullres.{measurement}");
            let [own, theirs] =
                ["own", "theirs"].map(|database| column(&influx.query_of(database, &query), 0));
            assert_eq!(own, theirs, "{query}");
        }
    }
}

/// The measurements that have points in a retention policy.
fn measurements(influx: &Influx, database: &str, resolution: &str) -> BTreeSet<String> {
    let answer = influx.query_of(database, &format!("SELECT * FROM {resolution}./.*/ LIMIT 1"));
    let json: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let all = json["results"][0]["series"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|one| Some(one["name"].as_str()?.to_string())).collect()
}

/// The series of a measurement: its tags, and what it has in each field, without the time and
/// without the host.
fn series(
    influx: &Influx,
    database: &str,
    resolution: &str,
    measurement: &str,
) -> BTreeMap<String, Vec<String>> {
    let query = format!("SELECT * FROM {resolution}.{measurement} GROUP BY *");
    let json: serde_json::Value =
        serde_json::from_str(&influx.query_of(database, &query)).unwrap_or_default();
    let all = json["results"][0]["series"].as_array().cloned().unwrap_or_default();
    let one = |it: &serde_json::Value| {
        let columns = it["columns"].as_array().cloned().unwrap_or_default();
        let rows = it["values"].as_array().cloned().unwrap_or_default();
        let row = |row: &serde_json::Value| {
            let fields = columns.iter().enumerate().skip(1);
            fields.map(|(at, name)| format!("{name}={} ", rounded(&row[at]))).collect::<String>()
        };
        (it["tags"].to_string(), rows.iter().map(row).collect())
    };
    all.iter().map(one).collect()
}

/// Sums of floating point numbers depend on their order in the last digits.
fn rounded(value: &serde_json::Value) -> String {
    value.as_f64().map_or_else(|| value.to_string(), |number| format!("{number:.9}"))
}

fn column(answer: &str, at: usize) -> BTreeSet<String> {
    let json: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let rows = json["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| Some(row[at].as_str()?.to_string())).collect()
}

#[test]
fn a_telegraf_that_is_not_there_is_a_problem_and_everything_else_serves() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    node.set("influxdb.url", "http://127.0.0.1:1");
    node.set("telegraf.agent", "telegraf");
    node.set("telegraf.program", "no-such-telegraf");
    let checked = node.mfserv(&["check"]).code(4);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    for part in ["the program no-such-telegraf is not there", "[telegraf] agent=builtin"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    node.start();
    node.settled("app.shop.main");
    assert_eq!(node.get("/shop/x").status, 200);
    let status = node.mfserv(&["status"]).code(1);
    assert!(status.stderr.contains("no-such-telegraf"), "{}", status.stderr);

    // One that ends at once is tried again and again, and said.
    node.set("telegraf.program", "/bin/false");
    node.mfserv(&["reload", "--no-wait"]);
    until("status says so", PATIENCE, || {
        node.mfserv(&["status"]).stdout.contains("Telegraf is down")
    });
    assert_eq!(node.get("/shop/x").status, 200);
    node.set("telegraf.agent", "builtin");
    node.mfserv(&["reload"]).code(0);
    node.mfserv(&["status"]).code(0);
    node.stop();
}
