//! What `circusctl` of Circus prints of an answer.

use serde_json::{Map, Value};

/// The text of an answer that is no error.
pub fn of(command: &str, answer: &Map<String, Value>) -> String {
    let field = |name: &str| answer.get(name).unwrap_or(&Value::Null);
    match command {
        "list" => {
            let listed =
                if answer.contains_key("pids") { field("pids") } else { field("watchers") };
            listed
                .as_array()
                .map(|all| all.iter().map(plain).collect::<Vec<_>>().join(","))
                .unwrap_or_default()
        }
        "status" => match field("statuses") {
            Value::Object(statuses) => {
                lines(statuses.iter().map(|(name, state)| format!("{name}: {}", plain(state))))
            }
            _ => plain(field("status")),
        },
        "numprocesses" | "incr" | "decr" => plain(field("numprocesses")),
        "numwatchers" => plain(field("numwatchers")),
        "options" | "get" | "globaloptions" => options(field("options")),
        "listsockets" => sockets(field("sockets")),
        "stats" => stats(answer),
        "dstats" => format!("Main Process:\n    {}", process(field("info"))),
        _ => "ok".into(),
    }
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join("\n")
}

fn options(options: &Value) -> String {
    let shown = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("env", Value::Object(env)) => {
            let pairs: Vec<String> =
                env.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            format!("env: {}", pairs.join(","))
        }
        (name, value) => format!("{name}: {}", plain(value)),
    };
    lines(options.as_object().into_iter().flatten().map(shown))
}

fn sockets(sockets: &Value) -> String {
    let shown = |socket: &Value| {
        let field = |name: &str| plain(&socket[name]);
        format!("{}:socket '{}' at {}:{}", field("fd"), field("name"), field("host"), field("port"))
    };
    lines(sockets.as_array().into_iter().flatten().map(shown))
}

fn stats(answer: &Map<String, Value>) -> String {
    let of_watcher = |name: &str, info: &Value| {
        let processes = info.as_object().into_iter().flatten();
        let processes = processes.map(|(pid, values)| format!("{pid}: {}", process(values)));
        lines([format!("{name}:")].into_iter().chain(processes))
    };
    match (answer.get("infos"), answer.get("name"), answer.get("info")) {
        (Some(infos), _, _) => {
            let all = infos.as_object().into_iter().flatten();
            lines(all.map(|(name, info)| of_watcher(name, info)))
        }
        (_, Some(name), Some(info)) => of_watcher(&plain(name), info),
        (_, _, Some(info)) => {
            format!("{}: {}", answer.get("process").map(plain).unwrap_or_default(), process(info))
        }
        _ => String::new(),
    }
}

fn process(values: &Value) -> String {
    let line = |values: &Value| {
        let names =
            ["pid", "cmdline", "username", "nice", "mem_info1", "mem_info2", "cpu", "mem", "ctime"];
        let texts: Vec<String> = names.iter().map(|name| plain(&values[*name])).collect();
        format!("{}  {}", texts[0], texts[1..].join(" "))
    };
    let children = values["children"].as_array().into_iter().flatten();
    lines([line(values)].into_iter().chain(children.map(|child| format!("   {}", line(child)))))
}

/// A value as Python writes it: nothing for `None`.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "True" } else { "False" }.into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(command: &str, answer: Value) -> String {
        of(command, answer.as_object().unwrap())
    }

    #[test]
    fn an_answer_is_printed_as_circus_prints_it() {
        let process = json!({"pid": 7, "cmdline": "python3", "username": "u", "nice": 0,
            "mem_info1": "1.49M", "mem_info2": "2.44M", "cpu": 0.5, "mem": 0.006,
            "ctime": "0:00.01", "children": [{"pid": 8, "cmdline": "sh", "username": "u",
            "nice": 0, "mem_info1": "1B", "mem_info2": "2B", "cpu": 0.0, "mem": 0.0,
            "ctime": "0:00.00", "children": []}]});
        let line = "7  python3 u 0 1.49M 2.44M 0.5 0.006 0:00.01";
        let both = format!("{line}\n   8  sh u 0 1B 2B 0.0 0.0 0:00.00");
        for (command, answer, text) in [
            ("list", json!({"watchers": ["a", "b"]}), "a,b".into()),
            ("list", json!({"pids": [1, 2]}), "1,2".into()),
            ("list", json!({"pids": []}), String::new()),
            ("status", json!({"status": "active"}), "active".into()),
            (
                "status",
                json!({"statuses": {"a": "active", "b": "stopped"}}),
                "a: active\nb: stopped".into(),
            ),
            ("incr", json!({"numprocesses": 3}), "3".into()),
            ("stop", json!({"status": "ok"}), "ok".into()),
            (
                "get",
                json!({"options": {"a": null, "b": true, "c": 2.0}}),
                "a: \nb: True\nc: 2.0".into(),
            ),
            ("options", json!({"options": {"env": {"A": "1", "B": "2"}}}), "env: A=1,B=2".into()),
            (
                "listsockets",
                json!({"sockets": [{"fd": 3, "name": "http", "host": "0.0.0.0", "port": 80}]}),
                "3:socket 'http' at 0.0.0.0:80".into(),
            ),
            ("stats", json!({"name": "web", "info": {"7": process}}), format!("web:\n7: {both}")),
            ("stats", json!({"infos": {"web": {}}}), "web:".into()),
            ("stats", json!({"process": 7, "info": process}), format!("7: {both}")),
        ] {
            assert_eq!(said(command, answer.clone()), text, "{answer}");
        }
    }
}
