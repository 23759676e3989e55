//! What the programs of a plugin see.

use std::collections::BTreeMap;

use mfserv_testkit::{Client, Method, Node, Plugin, programs};

use crate::{Turn, node, samples};

#[test]
fn a_worker_sees_its_plugin_in_its_environment_and_env_and_exec_show_the_same() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.add(
        &Plugin::python("seeing", programs::SERVES)
            .key("app_main", "debug", "1")
            .key("custom", "colour", "green")
            .key("custom_door", "width", "90")
            .file(
                "bin/hello",
                "#!/bin/sh\necho \"hello $1 from $MFSERV_CURRENT_PLUGIN_NAME\"\nexit 7\n",
            )
            .file("lib/mine.py", "answer = 42\n"),
    );
    node.start();
    let seen: BTreeMap<String, String> =
        serde_json::from_str(&node.get("/seeing/env").text()).unwrap();
    let is = |key: &str, value: &str| {
        assert_eq!(seen.get(key).map(String::as_str), Some(value), "{key} in {seen:#?}");
    };
    let link = node.path("var/plugins/seeing");
    is("MFSERV_CURRENT_PLUGIN_NAME", "seeing");
    is("MFSERV_CURRENT_PLUGIN_DIR", &link.to_string_lossy());
    is("MFSERV_CURRENT_PLUGIN_LABEL", "plugin_seeing@mfserv");
    is("MFSERV_CURRENT_PLUGIN_APP_MAIN_NUMPROCESSES", "1");
    is("MFSERV_CURRENT_PLUGIN_CUSTOM_COLOUR", "green");
    is("MFSERV_CURRENT_PLUGIN_CUSTOM_DOOR_WIDTH", "90");
    is("MFSERV_CURRENT_APP_DEBUG", "1");
    is("MFSERV_PYTHON_SERVER", "mfserv");
    is("MFMODULE_RUNTIME_HOME", &node.home().to_string_lossy());
    is("MFSERV_NGINX_PORT", &node.address().port().to_string());
    let levels = node.path("config/mflog_override.conf").to_string_lossy().into_owned();
    assert!(seen["MFLOG_MINIMAL_LEVEL_OVERRIDE_FILES"].split(';').any(|file| *file == levels));

    let shown: BTreeMap<String, String> =
        serde_json::from_str(&node.mfserv(&["env", "seeing", "--json"]).code(0).stdout).unwrap();
    for key in ["PATH", "MFSERV_CURRENT_PLUGIN_DIR", "MFSERV_CURRENT_PLUGIN_CUSTOM_COLOUR"] {
        assert_eq!(shown.get(key), seen.get(key), "{key}");
    }
    let ran = node.mfserv(&["exec", "seeing", "--", "hello", "world"]).code(7);
    assert_eq!(ran.stdout, "hello world from seeing\n");
    let ran = node.mfserv(&["exec", "--cwd", "seeing", "cat", "main.py"]).code(0);
    assert_eq!(ran.stdout, std::fs::read_to_string(dir.join("main.py")).unwrap());
    node.mfserv(&["exec", "seeing", "no-such-program"]).code(127);
    node.mfserv(&["env", "nobody"]).code(2);
    node.stop();
}

#[test]
fn packages_of_a_plugin_come_before_those_of_the_base_environment() {
    let _turn = Turn::cheap();
    let node = node();
    node.link_sample("sample_flask", &[]);
    let shown: BTreeMap<String, String> =
        serde_json::from_str(&node.mfserv(&["env", "sample_flask", "--json"]).code(0).stdout)
            .unwrap();
    let own = node.path("var/plugins/sample_flask");
    let base = samples().base();
    let position = |list: &str, below: &std::path::Path, what: &str| {
        let below = below.to_string_lossy().into_owned();
        let found = list.split(':').position(|dir| dir.starts_with(&below) && dir.contains(what));
        found.unwrap_or_else(|| panic!("{below} … {what} is not in {list}"))
    };
    let path = &shown["PATH"];
    assert!(position(path, &own, "bin") < position(path, &base, "bin"), "{path}");
    let path = &shown["PYTHONPATH"];
    let (mine, theirs) =
        (position(path, &own, "site-packages"), position(path, &base, "site-packages"));
    assert!(mine < theirs, "{path}");
    assert!(path.split(':').any(|dir| std::path::Path::new(dir) == own), "{path}");

    let which = "import flask, requests; print(flask.__file__); print(requests.__file__)";
    let ran = node.mfserv(&["exec", "sample_flask", "--", "python3", "-c", which]).code(0);
    let files: Vec<&str> = ran.stdout.lines().collect();
    assert!(files[0].contains("sample_flask/local"), "{files:?}");
    assert!(files[1].starts_with(&*base.to_string_lossy()), "{files:?}");
}

/// What OpenTelemetry in a worker needs: who it is, and the trace of each request.
fn trace_reaches_its_app(node: &Node) {
    let seen = |path: &str, fields: &[(&str, &str)]| -> BTreeMap<String, String> {
        let answer = Client::new(node.address()).ask(Method::Get, path, fields, b"").unwrap();
        serde_json::from_str(&answer.text()).unwrap()
    };
    let env = seen("/seeing/env", &[]);
    assert_eq!(env["OTEL_SERVICE_NAME"], "seeing.main");
    let worker = node.watcher("app.seeing.main").workers[0].id.to_string();
    let attributes = &env["OTEL_RESOURCE_ATTRIBUTES"];
    let wanted = format!(
        "service.namespace=seeing,service.version=1.0.0,service.instance.id={worker},host.name="
    );
    assert!(attributes.starts_with(&wanted), "{attributes}");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let head = seen("/seeing/head", &[("traceparent", trace), ("tracestate", "a=1")]);
    assert_eq!((head["traceparent"].as_str(), head["tracestate"].as_str()), (trace, "a=1"));
    let head = seen("/seeing/head", &[]);
    assert_eq!(head["traceparent"][3..35], head["x-request-id"]);
}

#[test]
fn what_is_configured_now_is_what_a_restart_runs_and_env_says_what_differs_before() {
    use std::os::unix::fs::PermissionsExt;
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.add(
        &Plugin::python("seeing", programs::SERVES).file(".layerapi2_extra_env", "COLOUR=green\n"),
    );
    node.start();
    let seen = |key: &str| {
        let env: BTreeMap<String, String> =
            serde_json::from_str(&node.get("/seeing/env").text()).unwrap();
        env.get(key).cloned()
    };
    trace_reaches_its_app(&node);
    let drift = || node.mfserv(&["env", "seeing"]).code(0).stderr;
    assert_eq!((seen("COLOUR").as_deref(), drift().as_str()), (Some("green"), ""));
    let overrides = node.path("config/plugins/seeing.ini");
    std::fs::create_dir_all(overrides.parent().unwrap()).unwrap();
    for (file, text, key, old, new) in [
        (dir.join(".layerapi2_extra_env"), "COLOUR=red\n", "COLOUR", Some("green"), "red"),
        (overrides.clone(), "[custom]\nkey=1\n", "MFSERV_CURRENT_PLUGIN_CUSTOM_KEY", None, "1"),
        (
            overrides.clone(),
            "[custom]\nkey=2\n",
            "MFSERV_CURRENT_PLUGIN_CUSTOM_KEY",
            Some("1"),
            "2",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let was = old.map_or("not set".into(), |old| format!("{old:?}"));
        let said = drift();
        assert!(said.contains(&format!("{key} is {was}, would be {new:?}")), "{said}");
        assert!(said.contains("`mfserv restart seeing`"), "{said}");
        node.mfserv(&["restart", "seeing"]).code(0);
        assert_eq!((seen(key).as_deref(), drift().as_str()), (Some(new), ""));
    }
    let check = || node.mfserv(&["check"]).code(0).stderr;
    std::fs::set_permissions(&overrides, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(check().contains(&format!("chmod 600 {}", overrides.display())), "{}", check());
    std::fs::set_permissions(&overrides, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(!check().contains("chmod"), "{}", check());
    std::fs::write(node.path("config/config.ini"), "[nginx\n").unwrap();
    let before = node.pids("app.seeing.main");
    node.mfserv(&["restart", "seeing"]).code(4);
    assert_ne!(node.pids("app.seeing.main"), before, "what is in force is restarted all the same");
    node.stop();
}
