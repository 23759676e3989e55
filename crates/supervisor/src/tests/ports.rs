//! Workers that listen on a port of their own.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_core::watcher::{Probe, WatcherSpec};
use mfserv_core::wire::front::Address;

use super::kit::*;
use crate::waiting::Until;

/// The app on ports; ready when the test says so.
fn on_ports(count: u32) -> WatcherSpec {
    let argv = ["/bin/app", "--listen={host}:{port}"].map(String::from).to_vec();
    let mut spec = WatcherSpec { on_port: true, socket_stem: None, argv, ..app(count) };
    let url = |name: &str| (name.to_string(), "http://{host}:{port}".to_string());
    spec.env.extend([url("URL")]);
    spec.secrets = [url("SECRET_URL")].into_iter().collect();
    spec
}

/// The port that a worker was given.
fn port(node: &Node, worker: &str) -> u16 {
    node.keeper().specs[&id(worker).to_string()].env["PORT"].parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_worker_learns_a_port_of_its_own_in_its_command_and_its_environment() {
    let mut node = Node::start().await;
    node.apply([on_ports(3)]).await;
    node.ready(["1.1", "2.2", "3.3"]).await;
    node.crashes("2.2").await;
    node.ready(["2.4"]).await;
    let workers = ["1.1", "2.2", "3.3", "2.4"];
    let ports: BTreeSet<u16> = workers.iter().map(|worker| port(&node, worker)).collect();
    assert_eq!(ports.len(), 4);
    for worker in workers {
        let port = port(&node, worker);
        let spec = node.keeper().specs[&id(worker).to_string()].clone();
        assert_eq!(spec.argv[1], format!("--listen=127.0.0.1:{port}"));
        assert_eq!(spec.env["HOST"], "127.0.0.1");
        for url in ["URL", "SECRET_URL"] {
            assert_eq!(spec.env[url], format!("http://127.0.0.1:{port}"));
        }
        let uid = rustix::process::geteuid().as_raw();
        let address = node.fronts().addresses[&id(worker).to_string()].clone();
        assert_eq!(address, Address::Port { port, uid });
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_keeps_its_port_when_a_daemon_takes_it_over() {
    let mut node = Node::start().await;
    node.apply([on_ports(1)]).await;
    node.ready(["1.1"]).await;
    let before = port(&node, "1.1");
    node.daemon_dies().await;
    node.fronts_die();
    node.daemon_starts().await;
    node.apply([on_ports(1)]).await;
    node.ready(["1.1"]).await;
    let address = node.fronts().addresses[&id("1.1").to_string()].clone();
    assert!(matches!(address, Address::Port { port, .. } if port == before), "{address}");
    assert_eq!(node.spawned(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_port_was_taken_by_another_process_is_replaced_on_another_port() {
    let mut node = Node::start().await;
    node.apply([WatcherSpec { probe: Probe::Connect, ..on_ports(1) }]).await;
    let lost = port(&node, "1.1");
    let _other = TcpListener::bind(("127.0.0.1", lost)).unwrap();
    while node.spawned().len() < 2 {
        node.pass(ms(100)).await;
    }
    assert!(node.serving().is_empty());
    assert_ne!(port(&node, "1.2"), lost);
    let ends = node.ends();
    assert!(ends[0].contains("another process"), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_says_that_it_is_ready_gets_no_request_before_its_port_is_its_own() {
    let mut node = Node::start().await;
    node.apply([WatcherSpec { probe: Probe::Notify, ..on_ports(1) }]).await;
    let says = |node: &Node, worker: &str| {
        let socket = node.keeper().specs[&id(worker).to_string()].env["NOTIFY_SOCKET"].clone();
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", socket).unwrap();
    };
    says(&node, "1.1");
    // Only time can pass: nothing may happen.
    node.pass(secs(1)).await;
    assert!(node.serving().is_empty());
    let other = TcpListener::bind(("127.0.0.1", port(&node, "1.1"))).unwrap();
    while node.spawned().len() < 2 {
        node.pass(ms(100)).await;
    }
    assert!(node.serving().is_empty());
    drop(other);
    // A worker that lives in this process.
    node.daemon_dies().await;
    let worker = id("1.2").to_string();
    node.keeper().alive.get_mut(&worker).unwrap().pid = std::process::id();
    node.daemon_starts().await;
    let spec = || WatcherSpec { probe: Probe::Notify, ..on_ports(1) };
    node.apply([spec()]).await;
    let own = TcpListener::bind(("127.0.0.1", port(&node, "1.2"))).unwrap();
    says(&node, "1.2");
    while node.serving() != ["1.2"] {
        node.pass(ms(10)).await;
    }
    drop(own);
    while node.spawned().len() < 3 {
        node.pass(ms(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_on_a_port_survives_a_new_daemon_and_one_whose_port_is_taken_does_not() {
    let mut node = Node::start().await;
    let spec =
        || WatcherSpec { probe: Probe::Http { path: "/".into(), named: false }, ..on_ports(1) };
    node.apply([spec()]).await;
    node.ready(["1.1"]).await;
    let number = port(&node, "1.1");
    node.daemon_dies().await;
    // The worker is this process. It listens, and is too busy to take a connection.
    let worker = id("1.1").to_string();
    node.keeper().alive.get_mut(&worker).unwrap().pid = std::process::id();
    let busy = TcpListener::bind(("127.0.0.1", number)).unwrap();
    node.daemon_starts().await;
    node.apply([spec()]).await;
    // Unlike `pass`, this stands still while another thread looks for the owner.
    tokio::time::sleep(secs(9)).await;
    assert_eq!((node.serving(), node.spawned()), (vec!["1.1".into()], vec!["1.1".to_string()]));

    drop(busy);
    // Another process than the worker of the next daemon.
    node.daemon_dies().await;
    node.keeper().alive.get_mut(&worker).unwrap().pid = 1_000_000_000;
    let _other = TcpListener::bind(("127.0.0.1", number)).unwrap();
    node.daemon_starts().await;
    node.apply([spec()]).await;
    while node.alive() != ["1.1", "1.2"] {
        node.pass(ms(100)).await;
    }
}

/// A worker whose process is this number, as a daemon takes it over while it starts.
async fn starting(number: u32, spec: WatcherSpec) -> Node {
    let mut node = Node::start().await;
    node.apply([spec.clone()]).await;
    node.daemon_dies().await;
    let worker = id("1.1").to_string();
    node.keeper().alive.get_mut(&worker).unwrap().pid = number;
    node.daemon_starts().await;
    node.apply([spec]).await;
    node
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_program_that_listens_elsewhere_waits_no_longer_than_that_is_sure() {
    let _elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = WatcherSpec {
        probe: Probe::Http { path: "/".into(), named: false },
        start_timeout_ms: 600_000,
        ..on_ports(1)
    };
    let mut node = starting(std::process::id(), spec).await;
    let mut waiter = node.waits_for(Until::Settled, secs(120)).await;
    let mut passed = secs(0);
    let outcome = loop {
        if let Some(outcome) = waiter.outcome().await {
            break outcome;
        }
        node.pass(ms(500)).await;
        passed += ms(500);
    };
    let text = Diagnostic::from(outcome.unwrap_err()).to_string();
    assert!(text.contains("it listens on") && text.contains("variable PORT"), "{text}");
    assert!(passed >= secs(30) && passed < secs(60), "{passed:?}: {text}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_listens_on_nothing_lives_on_without_requests_until_it_listens() {
    let plain = || WatcherSpec {
        probe: Probe::Http { path: "/".into(), named: false },
        need_not_listen: true,
        start_timeout_ms: 3_000,
        ..on_ports(1)
    };
    // Of a process that there is not, no socket is found.
    let mut node = starting(1_000_000_000, plain()).await;
    while node.status().await.ready == 0 {
        node.pass(ms(100)).await;
    }
    assert_eq!((node.spawned(), node.serving()), (vec!["1.1".to_string()], vec![]));
    let said = |fact: &Fact| match fact {
        Fact::Problem { problem } => problem.what == "app.p.a never gets a request",
        _ => false,
    };
    assert!(node.facts().iter().any(said), "{:?}", node.facts());
    // Only time can pass: nothing happens to it.
    node.pass(secs(60)).await;
    assert_eq!(node.spawned(), ["1.1"]);

    let must = WatcherSpec { need_not_listen: false, ..plain() };
    let mut node = starting(1_000_000_000, must).await;
    while node.spawned().len() < 2 {
        node.pass(ms(100)).await;
    }
    assert!(node.ends()[0].contains("not listening on its port"), "{:?}", node.ends());
}
