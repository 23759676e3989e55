//! How the front reaches the workers of an app.

use super::*;
use crate::watcher::Probe;

fn of(lines: &str) -> Plan {
    plan(vec![plugin("a", &format!("[app_main]\n{lines}\n"))])
}

fn watcher(lines: &str) -> WatcherSpec {
    let plan = of(lines);
    let watcher = plan.watchers.get(&WatcherName::app("a", "main")).cloned();
    watcher.unwrap_or_else(|| panic!("{lines}: {:?}", plan.problems))
}

#[test]
fn an_app_without_a_socket_in_its_command_gets_a_port_and_is_asked_there() {
    for command in
        ["npm start", "serve --listen {host}:{port}", "sh -c 'exec run $PORT'", "gunicorn m"]
    {
        let watcher = watcher(&format!("_cmd_and_args={command}\nnumprocesses=1"));
        assert!(watcher.on_port && watcher.socket_stem.is_none(), "{command}");
        assert!(matches!(watcher.probe, Probe::Http { .. }), "{command}");
        assert!(watcher.socket_link_stem.is_none());
        let says_port = command.to_lowercase().contains("port");
        assert_eq!(watcher.need_not_listen, !says_port, "{command}");
    }
    let asked = watcher("_cmd_and_args=run\nnumprocesses=1\n_ready=connect");
    assert_eq!((asked.probe, asked.need_not_listen), (Probe::Connect, false));
    for (lines, need_not_listen) in [
        ("_http_test_endpoint=/ok", false),
        ("_ready=http", false),
        ("_ready=notify", true),
        ("_http_test_endpoint=null", true),
    ] {
        let watcher = watcher(&format!("_cmd_and_args=run\nnumprocesses=1\n{lines}"));
        assert_eq!(watcher.need_not_listen, need_not_listen, "{lines}");
    }
}

#[test]
fn an_app_with_a_socket_one_without_routes_and_one_of_fastcgi_get_no_port() {
    for lines in [
        "_cmd_and_args=run {unix_socket_path}\nnumprocesses=1",
        "_cmd_and_args=run\nnumprocesses=1\n_prefix_based_routing=0",
        "_cmd_and_args=run\nnumprocesses=1\n_gateway_interface_mode=fastcgi",
    ] {
        let watcher = watcher(lines);
        assert!(!watcher.on_port && watcher.socket_stem.is_some(), "{lines}");
    }
    assert!(watcher("_cmd_and_args=run {port}\nnumprocesses=1\n_prefix_based_routing=0").on_port);
}

#[test]
fn a_command_with_a_socket_and_a_port_is_not_started() {
    let plan = of("_cmd_and_args=run {unix_socket_path} {port}\nnumprocesses=1");
    assert!(!plan.watchers.contains_key(&WatcherName::app("a", "main")));
    let said = plan.problems.iter().find(|one| one.is_error()).unwrap().to_string();
    assert!(said.contains("has both") && said.contains("remove one"), "{said}");
}

#[test]
fn a_program_that_is_activated_needs_its_socket_and_is_not_ready_by_a_connection() {
    let fastcgi = "_gateway_interface_mode=fastcgi";
    for (command, key, help) in [
        ("server {unix_socket_path}", "", "socket_activate {unix_socket_path} PROGRAM"),
        ("server", "", "socket_activate {unix_socket_path} PROGRAM"),
        ("{unix_socket_path} server", "_ready=connect", "_ready=http or _ready=notify"),
        ("{unix_socket_path} server", fastcgi, "use _ready=notify"),
    ] {
        let plan = of(&format!("_cmd_and_args=socket_activate {command}\nnumprocesses=1\n{key}"));
        let said = plan.problems.iter().find(|one| one.is_error()).map(ToString::to_string);
        assert!(said.as_ref().is_some_and(|said| said.contains(help)), "{command} {key}: {said:?}");
    }
    for key in
        ["", "_ready=http", "_ready=notify", "_gateway_interface_mode=fastcgi\n_ready=notify"]
    {
        watcher(&format!(
            "_cmd_and_args=socket_activate {{unix_socket_path}} server\nnumprocesses=1\n{key}"
        ));
    }
}

#[test]
fn an_app_that_no_request_can_reach_is_said_with_what_to_write() {
    for (command, write) in [
        ("gunicorn -b :8000 m", "gunicorn --bind unix:{unix_socket_path}"),
        ("python3 -m uvicorn m:a --port 80", "uvicorn --uds {unix_socket_path}"),
        ("python3 -m http.server 8000", "http.server --bind {host} {port}"),
        ("streamlit run app.py", "--server.port {port}"),
        ("/x/server --port=8000", "--port {port}"),
        ("env -C /x A=b python3 -u -m uvicorn m:a", "uvicorn --uds {unix_socket_path}"),
        ("npx --yes serve -l $PORT", "write {port}"),
        ("server --listen=0.0.0.0:${PORT}", "write {port}"),
        ("bjoern_wrapper.py main:app", "bjoern_wrapper.py … {unix_socket_path}"),
    ] {
        let problems = of(&format!("_cmd_and_args={command}\nnumprocesses=1")).problems;
        let lost = problems.iter().find(|one| one.what == "a/main never gets a request");
        let lost = lost.unwrap_or_else(|| panic!("{command}: {problems:?}"));
        assert!(!lost.is_error() && lost.kind == crate::Kind::Failed && lost.is_about("a"));
        assert!(lost.to_string().contains(write), "{lost}");
    }
    let fastcgi = of("_cmd_and_args=run\nnumprocesses=1\n_gateway_interface_mode=fastcgi").problems;
    assert!(fastcgi.iter().any(|one| one.what.contains("never gets a request")), "{fastcgi:?}");
    for lines in [
        "_cmd_and_args=npm start\nnumprocesses=1",
        "_cmd_and_args=node daphne\nnumprocesses=1",
        "_cmd_and_args=python3 app.py --server uvicorn\nnumprocesses=1",
        "_cmd_and_args=env -S 'server $PORT'\nnumprocesses=1",
        "_cmd_and_args=sh -c 'exec server $PORT'\nnumprocesses=1",
        "_cmd_and_args=gunicorn -b :{port} m\nnumprocesses=1",
        "_cmd_and_args=uvicorn m:a\nnumprocesses=0",
        "_cmd_and_args=uvicorn m:a\nnumprocesses=1\n_prefix_based_routing=0",
        "_cmd_and_args=env UVICORN_PORT={port} uvicorn m:a\nnumprocesses=1",
    ] {
        let problems = of(lines).problems;
        assert!(!problems.iter().any(|one| one.what.contains("never gets")), "{problems:?}");
    }
}
