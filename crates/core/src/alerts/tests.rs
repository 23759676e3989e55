use super::*;
use crate::module_config::{Resolution, resolve};

fn resolved(keys: &[(&str, &str)]) -> Resolution {
    let set =
        |(key, value): &(&str, &str)| ("alert_x".to_string(), key.to_string(), value.to_string());
    let sets: Vec<_> = keys.iter().map(set).collect();
    resolve(&[], &sets, &BTreeMap::new(), "GENERIC")
}

#[test]
fn a_section_becomes_an_alert_and_nothing_of_it_is_told_to_plugins() {
    let resolution = resolved(&[
        ("condition", "error_rate > 2.5%"),
        ("for", "2m"),
        ("window", "5m"),
        ("plugin", "shop"),
        ("webhook", "https://host/hook?token=secret"),
        ("ca", "/etc/ca.pem"),
        ("command", "page --on-call"),
        ("repeat", "0"),
    ]);
    assert_eq!(resolution.diagnostics, []);
    let expected = Alert {
        name: "x".into(),
        condition: "error_rate > 2.5%".into(),
        quantity: Quantity::ErrorRate,
        threshold: 2.5,
        for_s: 120,
        window_s: 300,
        plugin: Some("shop".into()),
        app: None,
        webhook: Some("https://host/hook?token=secret".into()),
        ca: Some("/etc/ca.pem".into()),
        command: Some("page --on-call".into()),
        repeat_s: 0,
    };
    assert_eq!(resolution.config.alerts, [expected]);
    assert!(resolution.exported.keys().all(|name| !name.contains("ALERT")));
}

#[test]
fn conditions_are_read_with_their_units() {
    for (text, quantity, threshold) in [
        ("p95 > 2s", Quantity::P95, 2.0),
        ("p95>250ms", Quantity::P95, 0.25),
        ("p95 > 59s", Quantity::P95, 59.0),
        ("error_rate > 0%", Quantity::ErrorRate, 0.0),
        ("queue > 100", Quantity::Queue, 100.0),
        ("restarts > 5", Quantity::Restarts, 5.0),
        ("disk < 5 %", Quantity::Disk, 5.0),
        ("node != RUNNING", Quantity::Node, 0.0),
    ] {
        assert_eq!(read_condition(text).unwrap(), (quantity, threshold), "{text}");
    }
}

#[test]
fn what_cannot_be_an_alert_is_an_error_that_says_why() {
    let good = ("condition", "queue > 1");
    for (keys, why) in [
        (&[("for", "1m")][..], "no condition"),
        (&[("condition", "latency > 2s")], "nothing that is measured"),
        (&[("condition", "queue < 2")], "compared with >"),
        (&[("condition", "queue > many")], "no number"),
        (&[("condition", "queue > NaN")], "no number"),
        (&[("condition", "queue > inf")], "no number"),
        (&[("condition", "queue > -1")], "negative"),
        (&[("condition", "error_rate > NaN%")], "no number"),
        (&[("condition", "error_rate > -0.5%")], "negative"),
        (&[("condition", "error_rate > 100%")], "never more than 100%"),
        (&[("condition", "error_rate > 5")], "not the unit %"),
        (&[("condition", "p95 > 2")], "not the unit s"),
        (&[("condition", "p95 > 60s")], "above 60 s"),
        (&[("condition", "p95 > 60000ms")], "above 60 s"),
        (&[("condition", "p95 > 0.5ms")], "below 1 ms"),
        (&[("condition", "p95 > -2s")], "negative"),
        (&[("condition", "disk < 500%")], "more than 100%"),
        (&[("condition", "disk < 0%")], "never less than 0%"),
        (&[("condition", "restarts > 1"), ("window", "0")], "every 1 s"),
        (&[("condition", "restarts > 1"), ("window", "8d")], "no duration"),
        (&[("condition", "restarts > 1"), ("window", "-5m")], "no duration"),
        (&[good, ("for", "0s")], "every 1 s"),
        (&[("condition", "node != STOPPED")], "not RUNNING"),
        (&[good, ("for", "soon")], "no duration"),
        (&[good, ("for", "8d")], "no duration"),
        (&[good, ("webhook", "host:80")], "no address"),
        (&[good, ("webhook", "http://u:p@host")], "no address"),
        (&[good, ("window", "5m")], "has none"),
        (&[("condition", "disk < 5%"), ("app", "a")], "has none"),
    ] {
        let resolution = resolved(keys);
        let said = resolution.diagnostics.first().map(ToString::to_string).unwrap_or_default();
        assert!(resolution.has_errors() && said.contains(why), "{keys:?}: {said}");
        assert_eq!(resolution.config.alerts, [], "{keys:?}");
    }
    let resolution = resolved(&[good, ("fro", "1m")]);
    assert!(!resolution.has_errors());
    assert!(resolution.diagnostics[0].to_string().contains("did you mean for?"));
}

#[test]
fn an_alert_whose_name_is_no_word_and_a_command_without_end_are_refused() {
    for (section, key, value, why) in [
        ("alert_a b", "condition", "queue > 1", "letters, digits"),
        ("alert_", "condition", "queue > 1", "letters, digits"),
        ("alert_x", "command", &"x".repeat(5000), "more than 4096 bytes"),
    ] {
        let set =
            |key: &str, value: &str| (section.to_string(), key.to_string(), value.to_string());
        let sets = [set("condition", "queue > 1"), set(key, value)];
        let resolution = resolve(&[], &sets, &BTreeMap::new(), "GENERIC");
        let said: String = resolution.diagnostics.iter().map(ToString::to_string).collect();
        assert!(resolution.has_errors() && said.contains(why), "{section} {key}: {said}");
        assert_eq!(resolution.config.alerts, []);
    }
}

#[test]
fn a_queue_that_is_never_so_long_fires_no_alert_and_is_refused() {
    let with_max = |queue_max: &str| {
        let sets = [
            ("alert_x".to_string(), "condition".to_string(), "queue > 50".to_string()),
            ("front".to_string(), "queue_max".to_string(), queue_max.to_string()),
        ];
        resolve(&[], &sets, &BTreeMap::new(), "GENERIC")
    };
    assert_eq!(with_max("51").config.alerts.len(), 1);
    let refused = with_max("50");
    let said = refused.diagnostics[0].to_string();
    assert!(refused.has_errors() && said.contains("at most 50 requests wait"), "{said}");
    assert_eq!(refused.config.alerts, []);
}
