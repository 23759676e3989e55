//! Values become environment variables: their names, and the addresses of hosts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Variables, and those whose value needs a name resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// What is known.
    pub variables: BTreeMap<String, String>,
    /// Variables that the caller must add after it has resolved their hosts.
    pub unresolved: Vec<Unresolved>,
}

/// A variable whose value is the address of hosts that only a resolver knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// The variable to set.
    pub variable: String,
    /// The hosts, in order. Its value is their first IPv4 address each (those
    /// that [`address`] knows included), joined with `;`; `dns_error` for a
    /// host that cannot be resolved.
    pub hosts: Vec<String>,
}

/// The name `PREFIX_SECTION_KEY` in upper case with `_` for `-`; `None` when
/// the key or section is private (begins with `_`) or has characters that no
/// variable name has.
pub fn variable(prefix: &str, section: &str, key: &str) -> Option<String> {
    let public = |name: &str| !name.is_empty() && !name.starts_with('_');
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !public(section) || !public(key) || !section.chars().chain(key.chars()).all(fits) {
        return None;
    }
    Some(format!("{prefix}_{section}_{key}").to_ascii_uppercase().replace('-', "_"))
}

/// The address of a host as far as no resolver is needed: the text itself for
/// `null`, a unix socket (`/…`), `AUTO` and a literal IPv4 address; 127.0.0.1
/// for the names of the local host.
pub fn address(host: &str) -> Option<String> {
    let host = host.trim();
    if host.eq_ignore_ascii_case("null") || host.starts_with('/') || host == "AUTO" {
        return Some(host.to_string());
    }
    if ["localhost", "localhost.localdomain"].contains(&host) {
        return Some("127.0.0.1".to_string());
    }
    host.parse::<std::net::Ipv4Addr>().ok().map(|address| address.to_string())
}

/// Exports values given as (section, key, value). Keys that name hosts
/// (`hostname`, `*_hostname`, and the lists `hostnames`, `*_hostnames`) get a
/// sibling variable with their addresses, with the suffix `_IP`, and for lists
/// `list_suffix`, unless the section sets a key of that name itself.
pub fn export<'a>(
    prefix: &str,
    list_suffix: &str,
    values: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
) -> Exported {
    let values: Vec<_> = values.into_iter().collect();
    let written: BTreeSet<(&str, String)> =
        values.iter().map(|(section, key, _)| (*section, key.to_lowercase())).collect();
    let mut exported = Exported::default();
    for (section, key, value) in values {
        let Some(name) = variable(prefix, section, key) else { continue };
        exported.variables.insert(name.clone(), value.to_string());
        let Some(suffix) = address_suffix(key, list_suffix) else { continue };
        if written.contains(&(section, format!("{key}{suffix}").to_lowercase())) {
            continue;
        }
        let hosts = hosts(key, value);
        let variable = format!("{name}{suffix}");
        match hosts.iter().map(|host| address(host)).collect::<Option<Vec<String>>>() {
            Some(addresses) => {
                exported.variables.insert(variable, addresses.join(";"));
            }
            None => exported.unresolved.push(Unresolved { variable, hosts }),
        }
    }
    exported
}

fn address_suffix<'a>(key: &str, list_suffix: &'a str) -> Option<&'a str> {
    let key = key.to_lowercase();
    let named = |name: &str| key == name || key.ends_with(&format!("_{name}"));
    if named("hostname") {
        return Some("_IP");
    }
    named("hostnames").then_some(list_suffix)
}

fn hosts(key: &str, value: &str) -> Vec<String> {
    match key.to_lowercase().ends_with('s') {
        true => value.split(';').map(|host| host.trim().to_string()).collect(),
        false => vec![value.trim().to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upper_case_and_private_or_odd_ones_are_left_out() {
        assert_eq!(
            variable("MFSERV", "my-section", "a_b").as_deref(),
            Some("MFSERV_MY_SECTION_A_B")
        );
        for (section, key) in [("a", "_b"), ("_a", "b"), ("a.b", "c"), ("a", "é"), ("a", "")] {
            assert_eq!(variable("MFSERV", section, key), None, "{section}.{key}");
        }
    }

    #[test]
    fn addresses_that_need_no_resolver_are_exported_and_the_others_handed_over() {
        let exported = export(
            "MFSERV",
            "_IP",
            [
                ("admin", "hostname", "null"),
                ("a", "db_hostname", "localhost"),
                ("b", "hostname", "/run/x.socket"),
                ("c", "hostname", "db.example.org"),
                ("d", "hostname", "db.example.org"),
                ("d", "hostname_ip", "10.0.0.9"),
                ("e", "hostnames", "10.0.0.1;localhost"),
                ("f", "web_hostnames", "10.0.0.1; w.example.org"),
                ("g", "hostnamed", "x"),
            ],
        );
        let ips: Vec<(&str, &str)> = exported
            .variables
            .iter()
            .filter(|(name, _)| name.ends_with("_IP"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            ips,
            [
                ("MFSERV_ADMIN_HOSTNAME_IP", "null"),
                ("MFSERV_A_DB_HOSTNAME_IP", "127.0.0.1"),
                ("MFSERV_B_HOSTNAME_IP", "/run/x.socket"),
                ("MFSERV_D_HOSTNAME_IP", "10.0.0.9"),
                ("MFSERV_E_HOSTNAMES_IP", "10.0.0.1;127.0.0.1"),
            ]
        );
        let unresolved = |variable: &str, hosts: &[&str]| Unresolved {
            variable: variable.into(),
            hosts: hosts.iter().map(|host| host.to_string()).collect(),
        };
        assert_eq!(
            exported.unresolved,
            [
                unresolved("MFSERV_C_HOSTNAME_IP", &["db.example.org"]),
                unresolved("MFSERV_F_WEB_HOSTNAMES_IP", &["10.0.0.1", "w.example.org"]),
            ]
        );
    }
}
