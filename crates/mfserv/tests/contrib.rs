//! What is given beside mfserv for other servers (`contrib/`).

use std::path::PathBuf;

use serde_json::Value;

/// A file of `contrib/`.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contrib").join(name)
}

/// A dashboard of Grafana.
pub struct Dashboard(Value);

impl Dashboard {
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(file("grafana").join(name)).unwrap();
        Dashboard(serde_json::from_str(&text).unwrap())
    }

    /// The queries of its panels, which have them under `key`, each with the title of its panel.
    pub fn queries(&self, key: &str) -> Vec<(String, String)> {
        let panels = self.0["panels"].as_array().unwrap().iter();
        let of_panel = |panel: &Value| -> Vec<(String, String)> {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().into_iter().flatten();
            let queries = targets.map(|target| target[key].as_str().unwrap());
            queries.map(|query| (title.to_string(), filled(query))).collect()
        };
        panels.flat_map(of_panel).collect()
    }

    /// The queries that give the values of its variables, each with the variable's name.
    pub fn variables(&self) -> Vec<(String, String)> {
        let all = self.0["templating"]["list"].as_array().unwrap().iter();
        let asked = all.filter(|variable| variable["type"] == "query");
        let text = |value: &Value| value.as_str().unwrap().to_string();
        asked.map(|one| (text(&one["name"]), filled(&text(&one["query"])))).collect()
    }
}

/// A query as Grafana sends it when all values of the variables are chosen.
fn filled(query: &str) -> String {
    let mut query = query.to_string();
    for (variable, value) in [
        ("$__rate_interval", "1m"),
        ("$__interval", "1s"),
        ("$timeFilter", "time > now() - 1h"),
        ("$resolution", "fullres"),
        ("$instance", ".*"),
        ("$plugin", ".*"),
        ("$app", ".*"),
        ("$code", ".*"),
        ("$host", ".*"),
        ("$status_code", ".*"),
    ] {
        query = query.replace(variable, value);
    }
    query
}

/// A value for a URL.
pub fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
