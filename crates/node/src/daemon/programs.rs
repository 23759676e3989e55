//! How the roles of a node are started.

use mfserv_core::keys::{FRONT_KIND, FRONT_NGINX_MODULES, FRONT_NGINX_PROGRAM, NGINX_WORKERS};
use mfserv_core::module_config::ModuleConfig;
use mfserv_core::plan::RoleProgram;

use super::DaemonOptions;
use crate::configure;

/// The front.
pub(super) fn front(options: &DaemonOptions, module: &configure::Module) -> RoleProgram {
    let places = &options.places;
    let rotation = module.resolution.config.front_rotation();
    let mut argv = vec![
        crate::program().to_string_lossy().into_owned(),
        "front".into(),
        "--home".into(),
        places.home().to_string_lossy().into_owned(),
        "--control".into(),
        "{unix_socket_path}".into(),
        "--rotation".into(),
        serde_json::to_string(&rotation).unwrap_or_default(),
    ];
    argv.extend(nginx(&module.resolution.config));
    role_program(options, module, argv)
}

/// What a front is told where nginx is to stand before it.
fn nginx(config: &ModuleConfig) -> Vec<String> {
    if config.get(FRONT_KIND) != "nginx" {
        return Vec::new();
    }
    let mut words = vec![
        "--kind".to_string(),
        "nginx".into(),
        "--nginx-program".into(),
        config.get(FRONT_NGINX_PROGRAM),
        "--nginx-workers".into(),
        config.get(NGINX_WORKERS).to_string(),
    ];
    if let Some(modules) = config.get(FRONT_NGINX_MODULES) {
        words.extend(["--nginx-modules".into(), modules.to_string_lossy().into_owned()]);
    }
    words
}

/// The telemetry role.
pub(super) fn telemetry(options: &DaemonOptions, module: &configure::Module) -> RoleProgram {
    let program = crate::program().to_string_lossy().into_owned();
    of_environment(options, module, vec![program, "telemetry".into()])
}

/// A role that has all its settings in its environment, also where the home is.
pub(super) fn of_environment(
    options: &DaemonOptions,
    module: &configure::Module,
    argv: Vec<String>,
) -> RoleProgram {
    let home = options.places.home().to_string_lossy().into_owned();
    let mut role = role_program(options, module, argv);
    role.env.insert("MFMODULE_RUNTIME_HOME".into(), home);
    role
}

fn role_program(
    options: &DaemonOptions,
    module: &configure::Module,
    argv: Vec<String>,
) -> RoleProgram {
    let passed = ["PATH", "HOME", "TZ", "LANG", "MFHOSTNAME", "MFHOSTNAME_FULL"];
    let env =
        passed.iter().filter_map(|key| Some((key.to_string(), module.env.get(*key)?.clone())));
    RoleProgram { argv, env: env.collect(), cwd: options.places.home().to_owned() }
}
