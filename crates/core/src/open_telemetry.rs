//! The variables by which the SDKs of OpenTelemetry know who a worker is
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::collections::BTreeMap;

use crate::names::WorkerId;

/// The name of what runs, as traces show it.
const SERVICE: &str = "OTEL_SERVICE_NAME";
/// Its other attributes, `KEY=VALUE,…`.
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// What is added to the environment `env` of a worker; nothing for a role. What the plugin sets
/// itself stays. The versions are that of the plugin and the number of its release, empty for none.
///
/// The service is `PLUGIN.APP`, its namespace the plugin, its version that of the plugin, its
/// instance the worker.
pub fn variables(
    env: &BTreeMap<String, String>,
    worker: &WorkerId,
    (version, release): (&str, &str),
) -> Vec<(&'static str, String)> {
    let watcher = &worker.watcher;
    let Some(plugin) = watcher.plugin() else { return Vec::new() };
    let own = env.get(ATTRIBUTES);
    let mut added = Vec::new();
    // The variable would win over the name among the plugin's attributes.
    let is_named = own.is_some_and(|own| {
        own.split(',').any(|one| one.split('=').next().is_some_and(|k| k.trim() == "service.name"))
    });
    if !is_named && !env.contains_key(SERVICE) {
        added.push((SERVICE, format!("{plugin}.{}", watcher.short())));
    }
    if own.is_none() {
        let version = match release {
            "" => version.to_owned(),
            release => format!("{version}-{release}"),
        };
        let values = [
            ("service.namespace", plugin),
            ("service.version", &version),
            ("service.instance.id", &worker.to_string()),
            ("host.name", env.get("MFHOSTNAME").map_or("", String::as_str)),
        ];
        let written = values.iter().filter(|(_, value)| !value.is_empty());
        let written: Vec<String> =
            written.map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        added.push((ATTRIBUTES, written.join(",")));
    }
    added
}

/// A value as W3C Baggage takes it: what is neither a letter, a digit nor one of `-._~` is
/// percent-encoded.
fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::WatcherName;

    fn added(env: &[(&str, &str)], watcher: WatcherName, version: (&str, &str)) -> Vec<String> {
        let env = env.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let found = variables(&env, &WorkerId::new(watcher, 2, 7), version);
        found.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn a_worker_is_named_by_plugin_app_version_and_slot() {
        let env = [("MFHOSTNAME", "a,b=c d")];
        assert_eq!(
            added(&env, WatcherName::app("foo", "main"), ("1.2", "3")),
            [
                "OTEL_SERVICE_NAME=foo.main",
                "OTEL_RESOURCE_ATTRIBUTES=service.namespace=foo,service.version=1.2-3,\
                 service.instance.id=app.foo.main.2.7,host.name=a%2Cb%3Dc%20d"
            ]
        );
        assert_eq!(
            added(&[], WatcherName::extra("foo", "job"), ("", "")),
            [
                "OTEL_SERVICE_NAME=foo.job",
                "OTEL_RESOURCE_ATTRIBUTES=service.namespace=foo,\
                 service.instance.id=extra.foo.job.2.7"
            ]
        );
    }

    #[test]
    fn what_a_plugin_sets_itself_stays_and_a_role_gets_nothing() {
        let app = || WatcherName::app("foo", "main");
        let named = added(&[("OTEL_SERVICE_NAME", "mine")], app(), ("", ""));
        assert!(named.len() == 1 && named[0].starts_with("OTEL_RESOURCE"), "{named:?}");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b");
        assert_eq!(added(&[attributes], app(), ("", "")), ["OTEL_SERVICE_NAME=foo.main"]);
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=mine");
        assert_eq!(added(&[attributes], app(), ("", "")), [""; 0]);
        assert_eq!(added(&[], WatcherName::telemetry(), ("", "")), [""; 0]);
    }
}
