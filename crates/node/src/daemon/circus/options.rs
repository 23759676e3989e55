//! The options of a watcher and of the node, as Circus calls them; and those that can be set.

use mfserv_core::plan::{HeldOptions, Plan};
use mfserv_core::watcher::WatcherSpec;
use serde_json::{Value, json};

use super::message::{Fields, Refusal, seconds};
use super::signals;
use super::watchers::shown;

/// The most workers that are started for a request.
pub const MOST_WORKERS: u32 = 4096;

/// Options that name what is run, or as whom: whoever may set them may run any command.
const RUNS: [&str; 9] =
    ["cmd", "args", "env", "uid", "gid", "working_dir", "shell", "executable", "hooks"];

/// Options that Circus has besides; what they choose is decided by mfserv.
const FIXED: [&str; 11] = [
    "warmup_delay",
    "send_hup",
    "stop_children",
    "copy_env",
    "retry_in",
    "max_retry",
    "max_age_variance",
    "respawn",
    "singleton",
    "stdout_stream",
    "stderr_stream",
];

/// The options of a watcher. The values of variables are left out for clients that are unknown.
pub fn of_watcher(spec: &WatcherSpec, with_values: bool) -> Fields {
    let (program, args) = spec.argv.split_first().map_or(("", &[][..]), |(p, args)| (p, args));
    let env: Fields = spec
        .env
        .iter()
        .map(|(name, value)| {
            (name.clone(), if with_values { value.as_str() } else { "***" }.into())
        })
        .collect();
    // A program that is waited for has no time limit.
    let graceful_ms =
        (spec.stop_timeout_ms > 0).then(|| spec.drain_timeout_ms + spec.stop_timeout_ms);
    let log = |path: &std::path::Path| json!({"class": "FileStream", "filename": path});
    let output = &spec.output;
    let options = json!({
        "args": args,
        "close_child_stderr": false,
        "close_child_stdin": true,
        "close_child_stdout": false,
        "cmd": program,
        "copy_env": false,
        "env": env,
        "executable": null,
        "gid": rustix::process::getegid().as_raw(),
        "graceful_timeout": graceful_ms.map(|ms| ms as f64 / 1000.0),
        "max_age": spec.max_age_s,
        "max_age_variance": spec.max_age_s,
        "max_retry": -1,
        "memory_high": spec.rlimits.memory.high,
        "memory_limit": spec.rlimits.memory.limit,
        "mfserv_plugin": spec.name.plugin(),
        "numprocesses": spec.count,
        "on_demand": false,
        "priority": 0,
        "respawn": true,
        "rlimit_as": spec.rlimits.address_space,
        "rlimit_fsize": spec.rlimits.file_size,
        "rlimit_nofile": spec.rlimits.open_files,
        "rlimit_stack": spec.rlimits.stack,
        "send_hup": false,
        "shell": false,
        "shell_args": null,
        "singleton": false,
        "stderr_stream_conf": output.stderr.as_deref().map(log),
        "stdout_stream_conf": log(&output.stdout),
        "stop_children": false,
        "stop_signal": spec.stop_signal,
        "uid": rustix::process::geteuid().as_raw(),
        "use_sockets": !spec.listeners.is_empty(),
        "warmup_delay": 0.0,
        "working_dir": spec.cwd,
    });
    match options {
        Value::Object(options) => options,
        _ => Fields::new(),
    }
}

/// Those options that are named.
pub fn chosen(all: &Fields, names: &Value) -> Result<Fields, Refusal> {
    let names = names.as_array().ok_or_else(|| Refusal::message("'keys' isn't a list"))?;
    let mut chosen = Fields::new();
    for name in names {
        let name = name.as_str().unwrap_or_default();
        let value = all.get(name);
        let value = value.ok_or_else(|| Refusal::message(format!("'{name}' option not found")))?;
        chosen.insert(name.into(), value.clone());
    }
    Ok(chosen)
}

/// The options of the node.
pub fn of_node(plan: &Plan, wanted: Option<&str>) -> Result<Fields, Refusal> {
    let circus = &plan.circus;
    let all = json!({
        "check_delay": circus.check_delay_s as f64,
        "endpoint": circus.endpoint,
        "multicast_endpoint": null,
        "pubsub_endpoint": circus.pubsub,
        "stats_endpoint": null,
    });
    let Value::Object(all) = all else { return Ok(Fields::new()) };
    let Some(wanted) = wanted else { return Ok(all) };
    let unknown = || Refusal::message(format!("'{wanted}' not an existing option"));
    all.get_key_value(wanted)
        .map(|(name, value)| Fields::from_iter([(name.clone(), value.clone())]))
        .ok_or_else(unknown)
}

/// The listening sockets that the node holds. Its fronts inherit them as descriptors from 3 on.
pub fn sockets(plan: &Plan) -> Value {
    let listed = plan.listeners.iter().zip(3..).map(|(listen, fd)| {
        let (host, port) = listen.address.rsplit_once(':').unwrap_or((&listen.address, ""));
        let port = port.parse::<u16>().unwrap_or(0);
        json!({"fd": fd, "name": listen.name, "backlog": super::super::reconcile::BACKLOG,
            "host": host, "port": port})
    });
    listed.collect()
}

/// What `set` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many workers.
    pub count: Option<u32>,
    /// The rest.
    pub options: HeldOptions,
}

impl Wanted {
    /// Reads the options of a `set`: all of them are understood, or none is set.
    pub fn read(options: &Value) -> Result<Wanted, Refusal> {
        let object = options.as_object();
        let object =
            object.ok_or_else(|| Refusal::message("'options' property should be an object"))?;
        let mut wanted = Wanted::default();
        for (name, value) in object {
            let number = || value.as_i64().ok_or_else(|| refused(name, "isn't an integer"));
            match name.to_lowercase().as_str() {
                "numprocesses" => {
                    let most = i64::from(MOST_WORKERS);
                    wanted.count = u32::try_from(number()?.clamp(0, most)).ok();
                }
                "max_age" => {
                    number()?;
                    wanted.options.max_age_s = Some(seconds(name, value)? as u64);
                }
                "graceful_timeout" => {
                    let ms = (seconds(name, value)? * 1000.0).round();
                    wanted.options.graceful_timeout_ms = Some(ms as u64);
                }
                "stop_signal" => wanted.options.stop_signal = Some(signals::number(value)?),
                other => return Err(not_settable(other)),
            }
        }
        Ok(wanted)
    }
}

fn refused(name: &str, why: &str) -> Refusal {
    Refusal::message(format!("'{name}' {why}"))
}

fn not_settable(name: &str) -> Refusal {
    if RUNS.contains(&name) || name.starts_with("hooks.") {
        return refused(
            name,
            "cannot be set: it decides what is run, and that is said by the configuration of the \
             plugin alone",
        );
    }
    let fixed = FIXED.contains(&name)
        || name.starts_with("rlimit_")
        || name.starts_with("close_child_")
        || name.starts_with("stdout_stream.")
        || name.starts_with("stderr_stream.");
    match fixed {
        true => refused(
            name,
            "cannot be set: it is decided by mfserv and by the configuration of the plugin",
        ),
        false => Refusal::message(format!("unknown key '{name}'")),
    }
}

/// The name under which a watcher is shown, with its spec.
pub fn spec<'a>(plan: &'a Plan, name: &str) -> Result<&'a WatcherSpec, Refusal> {
    let found = plan.watchers.values().find(|spec| shown(&spec.name).eq_ignore_ascii_case(name));
    found.ok_or_else(|| Refusal::message(format!("program {name} not found")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_set_is_read_as_a_whole_and_what_runs_commands_is_refused() {
        let all = json!({"numprocesses": 3, "max_age": 60, "graceful_timeout": 2.5,
            "stop_signal": "SIGINT"});
        let wanted = Wanted::read(&all).unwrap();
        assert_eq!(wanted.count, Some(3));
        let options = HeldOptions {
            max_age_s: Some(60),
            graceful_timeout_ms: Some(2500),
            stop_signal: Some(2),
        };
        assert_eq!(wanted.options, options);
        assert_eq!(Wanted::read(&json!({"numprocesses": -1})).unwrap().count, Some(0));
        let most = Wanted::read(&json!({"numprocesses": 1_000_000_000_000_i64})).unwrap();
        assert_eq!(most.count, Some(MOST_WORKERS));
        for (options, why) in [
            (json!({"max_age": 1, "cmd": "sh"}), "'cmd' cannot be set: it decides what is run"),
            (json!({"args": ["-c"]}), "'args' cannot be set"),
            (json!({"env": {"LD_PRELOAD": "x"}}), "'env' cannot be set"),
            (json!({"uid": 0}), "'uid' cannot be set"),
            (json!({"GID": 0}), "'gid' cannot be set"),
            (json!({"hooks.before_start": "os.system"}), "'hooks.before_start' cannot be set"),
            (json!({"working_dir": "/"}), "'working_dir' cannot be set"),
            (json!({"max_retry": 1}), "'max_retry' cannot be set: it is decided by mfserv"),
            (json!({"rlimit_nofile": 1}), "'rlimit_nofile' cannot be set"),
            (json!({"nope": 1}), "unknown key 'nope'"),
            (json!({"numprocesses": "many"}), "'numprocesses' isn't an integer"),
            (json!({"max_age": -1}), "'max_age' isn't a valid number of seconds"),
            (json!({"max_age": 1.5}), "'max_age' isn't an integer"),
            (json!({"graceful_timeout": -1}), "'graceful_timeout' isn't a valid number"),
            (json!({"stop_signal": 99}), "signal invalid"),
            (json!(["max_age"]), "'options' property should be an object"),
        ] {
            let refusal = Wanted::read(&options).unwrap_err();
            assert!(refusal.reason.contains(why), "{options}: {}", refusal.reason);
        }
    }
}
