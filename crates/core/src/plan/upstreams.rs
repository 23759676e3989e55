//! What the front needs to know of the apps of a plugin.

use std::collections::BTreeMap;

use super::routes::upstream_name;
use crate::keys::{
    FRONT_QUEUE_MAX, FRONT_QUEUE_TIMEOUT_S, FRONT_SLOW_LANE_WAIT_S, NGINX_TIMEOUT_S, PYTHON_SERVER,
    PYTHON_THREADS,
};
use crate::module_config::ModuleConfig;
use crate::names::WatcherName;
use crate::plan::{Count, Loaded, PluginInput, command, php};
use crate::plugin_spec::AppSpec;
use crate::route::{Sendfile, Slots, UpstreamSpec};

/// The upstreams of the apps that have workers, by name.
pub(super) fn of_plugin(
    plugin: &PluginInput,
    loaded: &Loaded,
    module: &ModuleConfig,
    counts: &BTreeMap<WatcherName, Count>,
) -> BTreeMap<String, UpstreamSpec> {
    let wanted = |app: &AppSpec| {
        let name = WatcherName::app(&loaded.spec.name, &app.command.name);
        counts.get(&name).map_or(app.command.count, |count| count.wanted)
    };
    let serving = loaded.spec.apps.iter().filter(|app| wanted(app) > 0);
    let made = serving.map(|app| {
        let spec = UpstreamSpec {
            fastcgi: app.fastcgi.then(|| plugin.dir.join(&app.command.name)),
            sendfile: sendfile(plugin, app),
            accel_by_nginx: loaded.fragments.have_locations(),
            ..upstream(app, &loaded.env, module)
        };
        (upstream_name(&loaded.spec.name, app), spec)
    });
    made.collect()
}

fn sendfile(plugin: &PluginInput, app: &AppSpec) -> Option<Sendfile> {
    let roots = app.sendfile_roots.clone();
    (!roots.is_empty()).then(|| Sendfile { home: plugin.dir.clone(), roots })
}

/// How many requests a worker of an app takes at a time.
pub(super) fn slots_of(
    app: &AppSpec,
    env: &BTreeMap<String, String>,
    module: &ModuleConfig,
) -> Slots {
    let argv = command::split_command(&app.command.command, &[], &[]).unwrap_or_default();
    match app.requests_per_worker {
        Some(0) => Slots::Unlimited,
        Some(per_worker) => Slots::Finite { per_worker },
        None if is_own_wsgi(app, &argv, module) => {
            let configured = python_threads(app, module);
            Slots::Finite { per_worker: command::threads_of(&argv).unwrap_or(configured) }
        }
        None if php::is_wrapper(&argv) => php::slots(env),
        None => command::slots_of(&argv).0,
    }
}

fn is_own_wsgi(app: &AppSpec, argv: &[String], module: &ModuleConfig) -> bool {
    python_server(app, module) == "mfserv" && command::is_own_wsgi(argv)
}

fn upstream(app: &AppSpec, env: &BTreeMap<String, String>, module: &ModuleConfig) -> UpstreamSpec {
    let argv = command::split_command(&app.command.command, &[], &[]).unwrap_or_default();
    let slots = slots_of(app, env, module);
    let keep = command::slots_of(&argv).1;
    let is_own = is_own_wsgi(app, &argv, module);
    let timeout_ms = app.timeout_s.unwrap_or(module.get(NGINX_TIMEOUT_S)) * 1000;
    // A connection to a FastCGI worker has one request.
    let keep_alive = app.keep_alive.unwrap_or(keep) && !app.fastcgi;
    let is_one_at_a_time = slots == Slots::Finite { per_worker: 1 };
    UpstreamSpec {
        keep_alive,
        timeout_ms,
        queue_max: module.get(FRONT_QUEUE_MAX),
        queue_timeout_ms: module.get(FRONT_QUEUE_TIMEOUT_S).map_or(timeout_ms, |s| s * 1000),
        slow_lane_wait_ms: module.get(FRONT_SLOW_LANE_WAIT_S) * 1000,
        // Nobody decides which worker takes a request from the queue.
        pulls: is_own && keep_alive && is_one_at_a_time && app.affinity.is_none(),
        max_body_bytes: app.max_body_bytes,
        affinity: app.affinity.clone(),
        ..UpstreamSpec::new(slots)
    }
}

/// How many requests of a WSGI app a worker of our server runs at a time.
pub(super) fn python_threads(app: &AppSpec, module: &ModuleConfig) -> u32 {
    app.python_threads.unwrap_or(module.get(PYTHON_THREADS) as u32)
}

/// The server behind `bjoern_wrapper.py`: `mfserv` or `waitress`.
pub(super) fn python_server(app: &AppSpec, module: &ModuleConfig) -> String {
    app.python_server.clone().unwrap_or(module.get(PYTHON_SERVER))
}
