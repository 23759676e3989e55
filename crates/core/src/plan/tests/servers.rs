//! The servers of Python apps.

use super::*;
use crate::route::Slots;

/// A variable of the workers of an app, with a configuration of the node and more keys of the app.
fn variable_of(name: &str, node: &str, app: &str) -> String {
    let module = module(node);
    let plan = Plan::new(inputs(&module, vec![plugin("foo", &format!("{WEB}{app}"))]));
    plan.watchers[&WatcherName::app("foo", "main")].env[name].clone()
}

#[test]
fn the_server_of_an_app_is_its_own_else_that_of_the_node() {
    let of = |node: &str, app: &str| variable_of("MFSERV_PYTHON_SERVER", node, app);
    assert_eq!(of("", ""), "mfserv");
    assert_eq!(of("[python]\nserver=waitress\n", ""), "waitress");
    assert_eq!(of("[python]\nserver=mfserv\n", "_python_server=waitress\n"), "waitress");
    assert_eq!(of("[python]\nserver=waitress\n", "_python_server=mfserv\n"), "mfserv");
}

#[test]
fn the_server_of_asgi_apps_is_a_choice_of_its_own() {
    let of = |node: &str, app: &str| variable_of("MFSERV_PYTHON_ASGI_SERVER", node, app);
    assert_eq!(of("[python]\nserver=waitress\n", "_python_server=waitress\n"), "mfserv");
    assert_eq!(of("[python]\nasgi_server=uvicorn\n", ""), "uvicorn");
    assert_eq!(of("", "_python_asgi_server=uvicorn\n"), "uvicorn");
    assert_eq!(of("[python]\nasgi_server=uvicorn\n", "_python_asgi_server=mfserv\n"), "mfserv");
}

#[test]
fn a_worker_of_our_wsgi_server_has_as_many_requests_as_threads() {
    let threads = |node: &str, app: &str| {
        let module = module(node);
        let app = format!("[app_main]\nnumprocesses=1\n{app}");
        let plan = Plan::new(inputs(&module, vec![plugin("foo", &app)]));
        let upstream = &plan.table.upstreams["foo/main"];
        let env = &plan.watchers[&WatcherName::app("foo", "main")].env;
        let Slots::Finite { per_worker } = upstream.slots else { return (0, String::new()) };
        (per_worker, env["MFSERV_PYTHON_THREADS"].clone())
    };
    let command =
        |words: &str| format!("_cmd_and_args={words} main.wsgi:app {{unix_socket_path}}\n");
    let (old, own) = (command("bjoern_wrapper.py"), command("mfserv_worker"));
    let node = "[python]\nthreads=4\n";
    assert_eq!(threads("", &own), (1, "1".into()));
    assert_eq!(threads(node, &own), (4, "4".into()));
    assert_eq!(threads(node, &format!("{old}_python_threads=3\n")), (3, "3".into()));
    assert_eq!(threads(node, &command("mfserv_worker --threads=8")), (8, "4".into()));
    assert_eq!(threads(node, &format!("{own}_requests_per_worker=2\n")).0, 2);
    // That one has one at a time, whatever is said.
    assert_eq!(threads(node, &format!("{own}_python_server=waitress\n")).0, 1);
    assert_eq!(threads(node, &command("mfserv_worker --server=waitress --threads=8")).0, 1);
    assert_eq!(threads(node, &command("mfserv_worker --asgi")).0, 0, "without limit");
    assert_eq!(threads(node, &command("gunicorn")).0, 1);
}

#[test]
fn workers_of_our_servers_can_say_what_they_do() {
    let of = |command: &str| {
        let module = module("");
        let app =
            format!("[app_main]\nnumprocesses=1\n_cmd_and_args={command} {{unix_socket_path}}\n");
        let plan = Plan::new(inputs(&module, vec![plugin("foo", &app)]));
        plan.watchers[&WatcherName::app("foo", "main")].stack_signal
    };
    for own in ["bjoern_wrapper.py m:a", "mfserv_worker m:a", "mfserv_worker --asgi m:a"] {
        assert_eq!(of(own), Some(crate::watcher::STACK_SIGNAL), "{own}");
    }
    // Others would be ended by it.
    for other in ["gunicorn m:a -b", "node main.js", "python main.py"] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn workers_of_our_wsgi_server_with_one_request_at_a_time_pull() {
    let pulls = |node: &str, app: &str| {
        let module = module(node);
        let plan = Plan::new(inputs(
            &module,
            vec![plugin("foo", &format!("[app_main]\nnumprocesses=1\n{app}"))],
        ));
        plan.table.upstreams["foo/main"].pulls
    };
    let wsgi = "_cmd_and_args=bjoern_wrapper.py main.wsgi:app {unix_socket_path}\n";
    assert!(pulls("", wsgi));
    for other in [
        "_python_server=waitress\n",
        "_requests_per_worker=2\n",
        "_keep_alive=0\n",
        "_python_threads=2\n",
    ] {
        assert!(!pulls("", &format!("{wsgi}{other}")), "{other}");
    }
    assert!(!pulls("[python]\nserver=waitress\n", wsgi));
    for command in [
        "mfserv_worker --asgi main:app",
        "mfserv_worker --server=waitress main:app",
        "gunicorn main:app -b",
        "node main.js",
    ] {
        let app = format!("_cmd_and_args={command} {{unix_socket_path}}\n");
        assert!(!pulls("", &app), "{command}");
    }
}

#[test]
fn a_php_fpm_gets_as_many_requests_as_it_has_processes_and_learns_both_limits() {
    let of = |app: &str| {
        let module = module("");
        let app = format!(
            "[app_main]\nnumprocesses=1\n_gateway_interface_mode=fastcgi\ntimeout=7\n\
             _cmd_and_args=php_wrapper {{plugin_name}} {{app_name}} {{unix_socket_path}}\n{app}"
        );
        let plan = Plan::new(inputs(&module, vec![plugin("foo", &app)]));
        let env = &plan.watchers[&WatcherName::app("foo", "main")].env;
        let told = [PROCESSES_VARIABLE, TIMEOUT_VARIABLE].map(|name| env[name].clone());
        (plan.table.upstreams["foo/main"].slots, told)
    };
    let finite = |per_worker| Slots::Finite { per_worker };
    let (slots, [processes, timeout]) = of("");
    assert!(matches!(slots, Slots::Finite { per_worker: 4..=32 }), "{slots:?}");
    assert_eq!((finite(processes.parse().unwrap()), timeout.as_str()), (slots, "7"));
    assert_eq!(of("_requests_per_worker=3\n"), (finite(3), ["3".into(), "7".into()]));
    assert_eq!(of("_requests_per_worker=0\n"), (Slots::Unlimited, ["0".into(), "7".into()]));
}
