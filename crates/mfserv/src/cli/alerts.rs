//! `alerts`: which conditions of the configuration hold.

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_node::places::Places;
use mfserv_platform::clock::now_ms;
use mfserv_telemetry::metrics::alerts::{State, Status};
use mfserv_telemetry::metrics::ask_alerts;

use super::output::for_terminal;
use super::report::Outcome;
use super::show::table;
use super::{print, print_json};

#[derive(Debug, Args)]
pub struct Alerts {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Alerts {
    /// Prints the alerts. It has not gone well while one fires.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let alerts = ask_alerts(&places.telemetry_socket())?;
        if self.json {
            print_json(&alerts)?;
        } else if alerts.is_empty() {
            print("no alerts are configured: write a section [alert_NAME] with a condition\n");
        } else {
            print(&table(&rows(&alerts, now_ms())));
        }
        match alerts.iter().any(|alert| alert.state == State::Firing) {
            true => Ok(Outcome::NotWell),
            false => Ok(Outcome::Done),
        }
    }
}

fn rows(alerts: &[Status], now_ms: u64) -> Vec<Vec<String>> {
    let head = ["STATE", "ALERT", "ABOUT", "VALUE", "FOR", "CONDITION"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let or_none = |text: String| if text.is_empty() { "-".into() } else { text };
    rows.extend(alerts.iter().map(|alert| {
        let (state, about) = match (alert.state, alert.plugin.as_str()) {
            (State::Ok, _) => ("ok", String::new()),
            (state, plugin) => {
                let about = match plugin {
                    "" => "node".into(),
                    plugin => format!("{plugin}.{}", alert.app),
                };
                (if state == State::Firing { "FIRING" } else { "pending" }, about)
            }
        };
        let since = match alert.since_ms {
            0 => String::new(),
            since => duration(now_ms.saturating_sub(since) / 1000),
        };
        [
            state,
            &alert.alert,
            &or_none(about),
            &or_none(alert.value.clone()),
            &or_none(since),
            &alert.condition,
        ]
        .map(|text| for_terminal(text).into_owned())
        .to_vec()
    }));
    rows
}

/// `45s`, `12m`, `3h`, `2d`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_fires_where_and_for_how_long() {
        let status = |state, plugin: &str, value: &str, since_ms| Status {
            alert: "errors".into(),
            condition: "error_rate > 5%".into(),
            state,
            plugin: plugin.into(),
            app: "main".into(),
            value: value.into(),
            since_ms,
        };
        let all = [status(State::Firing, "shop", "12.0%", 1_000), status(State::Ok, "", "", 0)];
        let rows = rows(&all, 601_000);
        assert_eq!(rows[1], ["FIRING", "errors", "shop.main", "12.0%", "10m", "error_rate > 5%"]);
        assert_eq!(rows[2], ["ok", "errors", "-", "-", "-", "error_rate > 5%"]);
    }
}
