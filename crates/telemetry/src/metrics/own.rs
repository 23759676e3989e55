//! The points of mfserv itself, under the names that MFSERV gave them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mfserv_core::node_state::NodeState;
use mfserv_core::wire::metrics::{Answerer, NodeCounters};
use mfserv_platform::clock::now_ms;

use super::basicstats::BYPASS;
use super::point::{Point, Value};
use super::processes::{Processes, Usage};
use super::registry::{Snapshot, Timings};

/// How old a state is at most that was written while this process was started.
const FRESH: Duration = Duration::from_secs(5);

/// The plugins of what belongs to none.
const CORE: &str = "#core#";
const MONITORING: &str = "#monitoring#";

/// What is remembered from one gathering to the next.
pub struct Own {
    /// The port of the front.
    port: Option<u16>,
    os_name: String,
    /// The file with the state of the node, and the state that was seen last.
    status: PathBuf,
    state: Option<NodeState>,
    /// Memory of this machine, bytes.
    memory: f64,
    /// CPU seconds by plugin, and when they were read.
    cpu: BTreeMap<String, f64>,
    read: Instant,
}

impl Own {
    /// Nothing was gathered yet. `port`: where the front listens; `status`: the file with the state
    /// of the node.
    pub fn new(port: Option<u16>, status: PathBuf) -> Self {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let os_name = name.unwrap_or("Linux").trim_matches('"').to_string();
        let memory = mfserv_platform::proc::total_memory().max(1) as f64;
        let state = None;
        Self { port, os_name, status, state, memory, cpu: BTreeMap::new(), read: Instant::now() }
    }

    /// The points of now. `timings`: of the requests since the last time.
    pub fn points(&mut self, snapshot: &Snapshot, timings: Timings) -> Vec<Point> {
        let mut points = requests(timings);
        points.extend(self.front(snapshot));
        if let Some((daemon, node)) = &snapshot.node {
            points.extend(self.modules(daemon.pid, node));
            // The last word of a node that stops is that it has stopped.
            if self.state != Some(NodeState::Stopping) {
                points.push(self.version(&daemon.version, node.state));
            }
            points.extend(node.plugins.iter().map(|plugin| {
                let (version, release) =
                    plugin.version.rsplit_once('-').unwrap_or((&plugin.version, ""));
                Point::new("metwork_plugin")
                    .tag("plugin_name", &plugin.name)
                    .tag(BYPASS, "1")
                    .field("version", Value::Text(version.into()))
                    .field("release", Value::Text(release.into()))
            }));
        }
        points
    }

    /// The points that say at once that the node starts or stops. `is_end`: this process ends,
    /// with everything else if the node stops.
    pub fn changes(&mut self, is_end: bool) -> Vec<Point> {
        let Ok(text) = std::fs::read_to_string(&self.status) else { return Vec::new() };
        let state = NodeState::parse(&text);
        let mut states = Vec::new();
        let last = self.state.replace(state);
        // A start may be over before the first look.
        let missed = last.is_none() && state == NodeState::Running && self.is_fresh();
        if missed {
            states.push(NodeState::Starting);
        } else if last != Some(state) {
            states.push(state);
        }
        if is_end && state == NodeState::Stopping {
            states.push(NodeState::Stopped);
        }
        let (now, version) = (now_ms() as i64, env!("CARGO_PKG_VERSION"));
        let said = [NodeState::Starting, NodeState::Stopping, NodeState::Stopped];
        let all = states.into_iter().filter(|state| said.contains(state)).enumerate();
        // Points of one series and time would replace each other.
        let at_ns = |at| Some((now + at as i64) * 1_000_000);
        all.map(|(at, state)| Point { at_ns: at_ns(at), ..self.version(version, state) }).collect()
    }

    /// The state was written a moment ago.
    fn is_fresh(&self) -> bool {
        let changed = std::fs::metadata(&self.status).and_then(|meta| meta.modified());
        changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FRESH))
    }

    /// What nginx's stub_status says.
    fn front(&self, snapshot: &Snapshot) -> Option<Point> {
        let sums = &snapshot.sums;
        let requests = sums.requests.values().map(|row| row.duration.count()).sum();
        let waiting = sums.connections.saturating_sub(sums.busy);
        let port = self.port.filter(|_| snapshot.fronts > 0 && snapshot.is_settled)?;
        let mut point =
            Point::new("nginx").tag("server", "127.0.0.1").tag("port", &port.to_string());
        for (name, value) in [
            ("accepts", sums.accepted),
            ("handled", sums.accepted),
            ("requests", requests),
            ("active", sums.connections),
            ("reading", 0),
            ("writing", sums.busy),
            ("waiting", waiting),
        ] {
            point.fields.insert(name.into(), Value::Unsigned(value));
        }
        Some(point)
    }

    /// What the processes of each plugin use.
    fn modules(&mut self, daemon: u32, node: &NodeCounters) -> Vec<Point> {
        let processes = Processes::read();
        let mut used: BTreeMap<&str, Usage> = BTreeMap::new();
        for watcher in &node.watchers {
            let plugin = match (watcher.name.plugin(), watcher.name.as_str()) {
                (Some(plugin), _) => plugin,
                (None, "telemetry" | "telegraf") => MONITORING,
                (None, _) => CORE,
            };
            let pids = watcher.workers.iter().filter_map(|worker| worker.pid);
            for usage in pids.filter_map(|pid| processes.tree(pid)) {
                used.entry(plugin).or_default().add(&usage);
            }
        }
        let roles = [Some(daemon), node.keeper];
        for usage in roles.into_iter().flatten().filter_map(|pid| processes.own(pid)) {
            used.entry(CORE).or_default().add(&usage);
        }
        let (before, seconds) = (std::mem::take(&mut self.cpu), self.read.elapsed().as_secs_f64());
        self.read = Instant::now();
        let mut points = Vec::new();
        for (plugin, usage) in used {
            // Of the first reading it is not known since when it counts.
            let cpu = before.get(plugin).map(|cpu| (usage.cpu_s - cpu).max(0.0));
            let percent = cpu.map_or(0.0, |cpu| cpu / seconds.max(0.001) * 100.0);
            self.cpu.insert(plugin.into(), usage.cpu_s);
            points.push(
                Point::new("metwork_module")
                    .tag("plugin", plugin)
                    .field("mem_percent", Value::Float(usage.memory as f64 / self.memory * 100.0))
                    .field("num_threads", Value::Float(usage.threads as f64))
                    .field("cpu_percent", Value::Float(percent))
                    .field("num_fds", Value::Float(usage.descriptors as f64)),
            );
        }
        points
    }

    fn version(&self, version: &str, state: NodeState) -> Point {
        let code = match state {
            NodeState::Running => 2,
            NodeState::Error | NodeState::Unknown => 0,
            _ => 1,
        };
        Point::new("metwork_version")
            .tag("modname", "mfserv")
            .tag(BYPASS, "1")
            .field("version", Value::Text(version.into()))
            .field("status", Value::Text(state.as_str().to_lowercase()))
            .field("os_name", Value::Text(self.os_name.clone()))
            .field("status_code", Value::Integer(code))
    }
}

/// Number and duration of the requests of apps, by status.
fn requests(timings: Timings) -> Vec<Point> {
    let mut points = Vec::new();
    for ((plugin, app, by, status), timing) in timings {
        if by == Answerer::Front {
            continue;
        }
        let code = if status == 0 { "unknown".into() } else { status.to_string() };
        let tagged = |point: Point, kind: &str| {
            point
                .tag("plugin", &plugin)
                .tag("app", &app)
                .tag("type", by.as_str())
                .tag("status_code", &code)
                .tag("metric_type", kind)
        };
        let count = Value::Integer(timing.count as i64);
        let counter = Point::new("request_counter").field("value", count);
        points.push(tagged(counter, "counter"));
        points.push(tagged(timing.point("request_timer"), "timing"));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_and_a_stop_are_said_at_once_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("status");
        let mut own = Own::new(None, status.clone());
        assert_eq!(own.changes(false), [], "there is no state yet");
        std::fs::write(&status, "RUNNING\n").unwrap();
        assert_eq!(own.changes(false).len(), 1, "a start that was over before the first look");
        let file = std::fs::File::open(&status).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * FRESH).unwrap();
        let mut late = Own::new(None, status.clone());
        assert_eq!(late.changes(false), [], "this process alone was replaced");
        let mut said = |word: &str, is_end: bool| -> Vec<String> {
            std::fs::write(&status, format!("{word}\n")).unwrap();
            let points = own.changes(is_end);
            assert!(points.iter().all(|it| it.fields["status_code"] == Value::Integer(1)));
            let times: std::collections::BTreeSet<_> = points.iter().map(|it| it.at_ns).collect();
            assert_eq!(times.len(), points.len(), "none replaces another one");
            let of = |point: &Point| match &point.fields["status"] {
                Value::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            };
            points.iter().map(of).collect()
        };
        assert_eq!(said("STARTING", false), ["starting"]);
        assert_eq!(said("STARTING", false), [""; 0]);
        assert_eq!(said("RUNNING", false), [""; 0]);
        assert_eq!(said("RUNNING", true), [""; 0], "this process alone is replaced");
        assert_eq!(said("STOPPING", true), ["stopping", "stopped"]);
    }
}
