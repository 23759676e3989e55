//! The jobs of the played node: it has one, `shop.sweep`.

#[path = "circus.rs"]
mod circus;

use mfserv_core::job::{JobStatus, Run, Trigger};
use mfserv_core::{Diagnostic, Kind, Location};
use mfserv_node::control::client;
use mfserv_node::control::{JobsApi, Pending};
use mfserv_node::daemon::History;
use serde_json::Value;

use crate::{Daemon, PATIENCE, Played, get, post};

fn job() -> JobStatus {
    JobStatus {
        name: "shop.sweep".into(),
        plugin: "shop".into(),
        schedule: "@daily".into(),
        command: "sweep".into(),
        at: Location::new("config.ini", 3),
        next_ms: Some(86_400_000),
        running: Vec::new(),
        last: None,
        last_ok_ms: None,
        log: "/log/job_shop_sweep.log".into(),
    }
}

fn run() -> Run {
    Run {
        id: "m7".into(),
        trigger: Trigger::Asked,
        attempt: 0,
        due_ms: None,
        began_ms: 7,
        keeper: String::new(),
        pid: None,
        end: None,
    }
}

fn known(name: &str) -> Result<(), Diagnostic> {
    let problem = || Diagnostic::error(format!("there is no job {name}")).kind(Kind::Usage);
    (name == "shop.sweep").then_some(()).ok_or_else(problem)
}

impl JobsApi for Played {
    fn jobs(&self) -> Pending<'_, Vec<JobStatus>> {
        Box::pin(async { vec![job()] })
    }

    fn job<'a>(&'a self, name: &'a str) -> Pending<'a, Result<History, Diagnostic>> {
        Box::pin(async move { known(name).map(|()| History { job: job(), runs: vec![run()] }) })
    }

    fn run_job<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Run, Diagnostic>> {
        Box::pin(async move { known(name).map(|()| run()) })
    }
}

#[tokio::test]
async fn jobs_are_listed_looked_at_and_run() {
    let daemon = Daemon::start();
    for (request, status, member, value) in [
        (get("/v1/jobs", ""), 200, "/0/name", Value::from("shop.sweep")),
        (get("/v1/jobs/shop.sweep", ""), 200, "/runs/0/id", "m7".into()),
        (post("/v1/jobs/shop.sweep/runs", "", ""), 202, "/trigger", "asked".into()),
        (get("/v1/jobs/shop.other", ""), 404, "/detail", "there is no job shop.other".into()),
        (post("/v1/jobs/shop.other/runs", "", ""), 404, "/status", 404.into()),
        (post("/v1/jobs", "", ""), 405, "/status", 405.into()),
        (get("/v1/jobs/shop.sweep/runs", ""), 405, "/status", 405.into()),
    ] {
        let first = request.lines().next().unwrap_or_default().to_string();
        let answer = daemon.exchange(&request).await;
        assert_eq!(answer.status, status, "{first}: {}", answer.body);
        assert_eq!(answer.json().pointer(member), Some(&value), "{first}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_client_refuses_a_name_that_no_job_can_have() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let asked = |name: &'static str| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || client::run_job(&socket, name, PATIENCE))
    };
    assert_eq!(asked("shop.sweep").await.unwrap().unwrap(), run());
    for name in ["../status", "a b", "", "shop/sweep"] {
        assert_eq!(asked(name).await.unwrap().unwrap_err().kind, Kind::Usage, "{name:?}");
    }
}
