//! What was counted can be read, by people, by promtool and by Prometheus.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mfserv_testkit::{Load, Node, Plugin, get, post, programs, servers, until};
use serde_json::Value;

use crate::contrib::{self, Dashboard, encoded};
use crate::{PATIENCE, Turn, node};

fn metrics(node: &Node, format: &str) -> String {
    node.mfserv(&["metrics", "--format", format]).code(0).stdout
}

/// The value of a sample, 0 if it is not there.
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.split(' ').next().unwrap().parse().unwrap())
}

fn of_debian(package: &str, program: &str) -> Option<PathBuf> {
    servers::of_debian(Path::new(env!("CARGO_TARGET_TMPDIR")), package, program)
}

/// A program that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const RESTARTED: &str = r#"mfserv_operations_total{operation="restart",outcome="ok"}"#;
const OF_SHOP: &str = "mfserv_http_requests_total{plugin=\"shop\",app=\"main\",type=\"dynamic\"";

/// What panels of the dashboard show besides requests: a receiver that is away, an alert.
fn set_what_else_is_shown(node: &Node) {
    for (key, value) in [
        ("elasticsearch.url", "http://127.0.0.1:1"),
        ("vector.mflog_port", "0"),
        ("alert_queue.condition", "queue > 100"),
    ] {
        node.set(key, value);
    }
}

#[test]
fn what_a_node_counts_is_read_by_people_promtool_and_prometheus() {
    let _turn = Turn::heavy();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    let busy = Plugin::python("busy", programs::SERVES).key("job_sweep", "_cmd_and_args", "true");
    node.add(&busy.key("job_sweep", "schedule", "0 0 1 1 *"));
    let port = free_port();
    set_what_else_is_shown(&node);
    node.set("metrics.port", &port.to_string());
    node.start();
    node.settled("app.shop.main");
    node.settled("app.busy.main");
    for _ in 0..5 {
        assert_eq!(node.get("/shop/x").status, 200);
    }
    assert_eq!(node.get("/nowhere").status, 404);
    node.mfserv(&["restart", "shop"]).code(0);
    a_worker_dies_of_a_request(&node);
    node.settled("app.shop.main");

    let mut text = String::new();
    let ended = |why: &str| {
        let of = r#"{plugin="shop",app="main",kind="app",reason="#;
        format!("mfserv_worker_ends_total{of}\"{why}\"}}")
    };
    until("everything is counted", PATIENCE, || {
        text = metrics(&node, "prometheus");
        value(&text, &format!("{OF_SHOP},code=\"200\"}}")) == 5.0
            && value(&text, &format!("{OF_SHOP},code=\"502\"}}")) == 1.0
            && value(&text, &ended("signalled")) == 1.0
            && value(&text, &ended("asked")) >= 1.0
    });
    assert_eq!(value(&text, RESTARTED), 1.0, "{text}");
    what_processes_use_is_known(&node);
    let unknown = "mfserv_http_requests_total{plugin=\"#unknown#\",app=\"\",type=\"front\"";
    assert_eq!(value(&text, &format!("{unknown},code=\"404\"}}")), 1.0, "{text}");
    the_machine_is_measured(&text);
    let summary = metrics(&node, "summary");
    let row = summary.lines().find(|line| line.starts_with("shop.main ")).expect(&summary);
    assert!(row.contains("1/1"), "{summary}");
    assert!(metrics(&node, "openmetrics").contains(" # {request_id=\""));
    for socket in ["var/run/metrics.sock", "var/run/telemetry.sock"] {
        let mode = std::fs::metadata(node.path(socket)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{socket}");
    }
    check_by_promtool(&text);
    scraped_by_prometheus(&node, port);

    counts_survive_what_is_killed(&node);
    node.stop();
}

fn a_worker_dies_of_a_request(node: &Node) {
    let (pid, address) = (node.pids("app.shop.main")[0], node.address());
    let asking = std::thread::spawn(move || post(address, "/shop/slow?60000", b"once"));
    until("the worker has the request", PATIENCE, || {
        node.log_lines("app_shop_main").iter().any(|line| line.ends_with("slow begins"))
    });
    node.kill(pid);
    assert_eq!(asking.join().unwrap().unwrap().status, 502);
}

fn what_processes_use_is_known(node: &Node) {
    let of_worker = r#"{plugin="shop",app="main",kind="app",slot="1"}"#;
    let above = |text: &str, sample: &str, least: f64| value(text, sample) > least;
    // Processes are looked at every few seconds.
    until("the worker and the roles were looked at", PATIENCE, || {
        let text = metrics(node, "prometheus");
        above(&text, &format!("mfserv_worker_memory_bytes{of_worker}"), 1e6)
            && above(&text, &format!("mfserv_worker_open_descriptors{of_worker}"), 3.0)
            && above(&text, r#"mfserv_node_state{state="running"}"#, 0.0)
            && ["keeper", "daemon", "telemetry"].iter().all(|role| {
                above(&text, &format!("mfserv_role_memory_bytes{{role=\"{role}\"}}"), 1e5)
            })
    });
}

fn the_machine_is_measured(text: &str) {
    let memory = value(text, "mfserv_host_memory_size_bytes");
    assert!(memory > 1e8 && memory > value(text, "mfserv_host_memory_available_bytes"), "{text}");
    let busy = ["user", "system", "idle"]
        .map(|mode| value(text, &format!("mfserv_host_cpu_seconds_total{{mode=\"{mode}\"}}")));
    assert!(busy.iter().sum::<f64>() > 1.0, "{busy:?}");
    let sizes = text.lines().filter(|line| line.starts_with("mfserv_host_filesystem_size_bytes{"));
    assert!((1..=64).contains(&sizes.count()), "that of the home at least: {text}");
}

fn counts_survive_what_is_killed(node: &Node) {
    let mut text = String::new();
    let telemetry = node.role_pid("telemetry");
    node.kill(node.role_pid("daemon"));
    assert_eq!(node.get("/shop/x").status, 200);
    until("a new daemon has sent its counters", PATIENCE, || {
        text = metrics(node, "prometheus");
        value(&text, &format!("{OF_SHOP},code=\"200\"}}")) == 6.0
            && value(&text, r#"mfserv_telemetry_sources{role="daemon"}"#) == 1.0
    });
    assert_eq!(value(&text, RESTARTED), 1.0, "counts of the daemon that was killed: {text}");
    // A front that has ended, and one that lives.
    node.mfserv(&["restart", "front"]).code(0);
    let sum = || {
        let text = node.mfserv(&["metrics", "--format", "prometheus"]).stdout;
        value(&text, &format!("{OF_SHOP},code=\"200\"}}"))
    };
    let load = Load::new(node.address(), "/shop/x").connections(2).start();
    load.answers(50);
    until("requests of both fronts are counted", PATIENCE, || sum() > 6.0);
    let mut last = sum();
    node.kill(telemetry);
    until("another telemetry role counts on", PATIENCE, || {
        let now = sum();
        assert!(now >= last || now == 0.0, "Prometheus would take {now} after {last} for new");
        let grows = now > last;
        last = last.max(now);
        grows && node.role_pid("telemetry") != telemetry
    });
    load.answers(50);
    let report = load.stop();
    report.assert_nothing_failed();
    let all = 6.0 + report.answered() as f64;
    until("each request is counted once", PATIENCE, || sum() == all);
}

fn check_by_promtool(text: &str) {
    let Some(promtool) = of_debian("prometheus", "usr/bin/promtool") else { return };
    let mut command = Command::new(&promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    for (what, file) in [("check", "alerts.yml"), ("test", "alerts_test.yml")] {
        let mut command = Command::new(&promtool);
        command.args([what, "rules", file]).current_dir(contrib::file("prometheus"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{what} {file}: {output:?}");
    }
}

fn scraped_by_prometheus(node: &Node, port: u16) {
    let Some(prometheus) = of_debian("prometheus", "usr/bin/prometheus") else { return };
    let (dir, own) = (node.path("tmp"), free_port());
    let config = format!(
        "scrape_configs:\n  - job_name: mfserv\n    scrape_interval: 1s\n    \
         static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
    );
    std::fs::write(dir.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{own}"));
    command.arg("--enable-feature=exemplar-storage");
    let _running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let asked = |path: &str| {
        let answer = get(([127, 0, 0, 1], own).into(), path);
        answer.map_or(String::new(), |answer| answer.text())
    };
    until("Prometheus has scraped the node", PATIENCE, || {
        let query = "/api/v1/query?query=sum(mfserv_http_requests_total%7Bplugin%3D%22shop%22%7D)";
        asked(query).contains("\"6\"]")
    });
    until("Prometheus has an exemplar", PATIENCE, || {
        let query = "/api/v1/query_exemplars?query=mfserv_http_request_duration_seconds_bucket\
                     &start=1&end=9999999999";
        asked(query).contains("\"request_id\":\"")
    });
    the_dashboard_shows_everything(node, asked);
}

#[test]
fn a_node_without_influxdb_receives_points_and_says_which_ports_it_cannot_have() {
    let _turn = Turn::cheap();
    let node = node();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, statsd) = (taken.local_addr().unwrap().port(), free_port());
    node.set("metrics.port", &port.to_string());
    node.set("telegraf.statsd_port", &statsd.to_string());
    let check = node.mfserv(&["check"]).code(4);
    assert!(check.stderr.contains(&format!("[metrics] port={port} cannot be used")), "{check:?}");
    node.start();
    let status = || node.mfserv(&["status"]).stdout;
    let note = format!("[metrics] port={port}: nobody can read /metrics there");
    until("status names the port", PATIENCE, || status().contains(&note));
    node.mfserv(&["check"]).code(4);
    drop(taken);
    until("it is had when it is free", PATIENCE, || !status().contains(&note));
    node.mfserv(&["check"]).code(0);

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    until("points are received", PATIENCE, || {
        udp.send_to(b"orders,plugin=shop:1|c", ("127.0.0.1", statsd)).is_ok_and(|_| {
            let text = metrics(&node, "prometheus");
            value(&text, "mfserv_app_counted_total{name=\"orders\",plugin=\"shop\"}") > 0.0
        })
    });
    let mut stream = UnixStream::connect(node.path("var/telegraf.socket")).unwrap();
    stream.write_all(b"room,place=a temp=20.5\n").unwrap();
    until("lines are received", PATIENCE, || {
        let sample = "mfserv_app_field{name=\"room\",field=\"temp\",place=\"a\"}";
        value(&metrics(&node, "prometheus"), sample) == 20.5
    });
    until("the roles are looked at", PATIENCE, || {
        let text = metrics(&node, "prometheus");
        value(&text, "mfserv_role_start_time_seconds{role=\"keeper\"}") > 1.7e9
    });

    // The control socket passes metrics on; the port answers whoever names this machine.
    let ask = |mut stream: Box<dyn ReadWrite>, host: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let control = UnixStream::connect(node.path("var/run/control.sock")).unwrap();
    let tcp = || Box::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    let answer = ask(Box::new(control), "mfserv");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\nmfserv_info{"), "{answer}");
    assert!(ask(tcp(), "localhost").contains("\nmfserv_info{"));
    assert!(ask(tcp(), "evil.example").starts_with("HTTP/1.1 403 "));

    // An InfluxDB that is away.
    node.set("influxdb.url", "http://127.0.0.1:1");
    node.mfserv(&["reload"]).code(0);
    until("status names InfluxDB", PATIENCE, || {
        status().contains("points of fullres to http://127.0.0.1:1: InfluxDB takes none")
    });
    node.stop();
}

/// A connection.
trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

fn the_dashboard_shows_everything(node: &Node, asked: impl Fn(&str) -> String) {
    node.mfserv(&["jobs", "run", "busy.sweep", "--wait"]).code(0);
    node.kill(node.pids("app.busy.main")[0]);
    node.settled("app.busy.main");
    let dashboard = Dashboard::read("mfserv-prometheus.json");
    for (panel, query) in dashboard.queries("expr") {
        let path = format!("/api/v1/query?query={}", encoded(&query));
        // A rate is known after the second scrape.
        until(&format!("the panel {panel} shows something: {query}"), PATIENCE, || {
            assert_eq!((node.get("/busy/x").status, node.get("/busy/fail").status), (200, 500));
            let answer: Value = serde_json::from_str(&asked(&path)).unwrap_or_default();
            let found = answer["data"]["result"].as_array().into_iter().flatten();
            found.into_iter().any(|sample| sample["value"][1] != "NaN")
        });
    }
    for (variable, query) in dashboard.variables() {
        let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        let path = format!("/api/v1/label/{label}/values?match[]={}", encoded(selector));
        let answer: Value = serde_json::from_str(&asked(&path)).unwrap_or_default();
        assert!(answer["data"].as_array().is_some_and(|all| !all.is_empty()), "{variable}: {path}");
    }
}
