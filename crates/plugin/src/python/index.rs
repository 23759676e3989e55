//! Whether the Python package index can be reached at all.

use std::collections::BTreeSet;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use crate::label::read_small;

/// How long an index, or the resolver of its name, may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The index of pip and uv.
const DEFAULT: &str = "https://pypi.org/simple";

/// An error, which says why, when nothing answers where pip and uv would ask. What cannot be
/// known (a configuration of uv, packages in directories) is for them to say.
pub(crate) fn reach_index() -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match places(variable, &configurations(variable)) {
        Some(places) => any_answers(&places, PATIENCE),
        None => Ok(()),
    }
}

/// The configuration files that pip reads, as far as they are there.
fn configurations(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let home = variable("HOME").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(home.as_ref()?.join(".config")));
    let files = [
        Some("/etc/xdg/pip/pip.conf".into()),
        Some("/etc/pip.conf".into()),
        home.map(|home| home.join(".pip/pip.conf")),
        config.map(|config| config.join("pip/pip.conf")),
        variable("PIP_CONFIG_FILE").map(PathBuf::from),
    ];
    files.iter().flatten().filter_map(|file| read_small(file).ok()).collect()
}

/// The addresses of which one must answer, the index first; `None`: it cannot be known.
fn places(
    variable: impl Fn(&str) -> Option<String>,
    configurations: &[String],
) -> Option<Vec<String>> {
    let written = |key: &str| {
        let lines = configurations.iter().flat_map(|text| text.lines());
        let pairs = lines.filter_map(|line| line.split_once('='));
        let of_key = pairs.filter(|(name, _)| name.trim().replace('_', "-") == key);
        of_key.map(|(_, value)| value.trim().to_string()).collect::<Vec<_>>()
    };
    let all = |names: &[&str], key: &str| {
        let set = names.iter().filter_map(|name| variable(name)).chain(written(key));
        let words =
            set.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        words.collect::<Vec<String>>()
    };
    let without = all(&["PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"], "no-index");
    let found = all(&["PIP_FIND_LINKS", "UV_FIND_LINKS"], "find-links");
    let has_files = |place: &String| match std::fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => place.contains("://"),
    };
    let of_uv = variable("UV_CONFIG_FILE").is_some() || variable("UV_INDEX").is_some();
    if !without.is_empty() || of_uv || found.iter().any(has_files) {
        return None;
    }
    let mut indexes = all(&["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"], "index-url");
    if indexes.is_empty() {
        indexes.push(DEFAULT.into());
    }
    indexes.extend(all(&["PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"], "extra-index-url"));
    let proxies = ["PIP_PROXY", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"];
    indexes.extend(all(&[&proxies[..], &["all_proxy", "ALL_PROXY"]].concat(), "proxy"));
    let mut seen = BTreeSet::new();
    indexes.retain(|one| seen.insert(one.clone()));
    Some(indexes)
}

/// The error is that of the first place, when all have failed or the time is over.
fn any_answers(places: &[String], patience: Duration) -> Result<(), String> {
    let (sender, receiver) = mpsc::sync_channel(places.len());
    for (number, place) in places.iter().enumerate() {
        let (sender, place) = (sender.clone(), place.clone());
        // The resolver cannot be interrupted: its thread ends by itself.
        std::thread::spawn(move || sender.send((number, answers(&place, patience))));
    }
    drop(sender);
    let name = places.first().map(|place| shown(place)).unwrap_or_default();
    let mut why = format!("{name} does not answer within {} s", patience.as_secs());
    for _ in places {
        match receiver.recv_timeout(patience) {
            Ok((_, Ok(()))) => return Ok(()),
            Ok((0, Err(reason))) => why = format!("{name} cannot be reached: {reason}"),
            Ok((_, Err(_))) => {}
            Err(_) => break,
        }
    }
    Err(why)
}

/// Whether something accepts connections at an address.
fn answers(place: &str, patience: Duration) -> Result<(), String> {
    // A directory is an index too.
    let Some(target) = target(place) else { return Ok(()) };
    let found = target.to_socket_addrs().map_err(|e| e.to_string())?;
    let mut why = "its name has no address".to_string();
    for address in found {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(()),
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

/// The host and the port of an address; `None` if it is none of HTTP.
fn target(place: &str) -> Option<(String, u16)> {
    let (scheme, rest) = place.split_once("://").unwrap_or(("http", place));
    let default = match scheme {
        "https" => 443,
        "http" => 80,
        "socks5" | "socks5h" | "socks4" => 1080,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (host, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_string(), port))
}

/// An address without the password in it.
fn shown(place: &str) -> String {
    let Some((scheme, rest)) = place.split_once("://") else { return place.into() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((secret, _)) => format!("{scheme}://{}", &rest[secret.len() + 1..]),
        None => place.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    fn asked(variables: &[(&str, &str)], configuration: &str) -> Option<Vec<String>> {
        let find = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        };
        places(find, &[configuration.to_string()])
    }

    #[test]
    fn the_index_is_where_the_variables_and_the_configuration_of_pip_say() {
        assert_eq!(asked(&[], "[global]\ncert = x\n"), Some(vec![DEFAULT.to_string()]));
        let index = [("PIP_INDEX_URL", "https://one/simple"), ("https_proxy", "proxy:3128")];
        let both = asked(&index, "[global]\nextra-index-url = https://two/\n https://three/\n");
        let all = ["https://one/simple", "https://two/", "proxy:3128"];
        assert_eq!(both, Some(all.map(str::to_owned).to_vec()));
        let written = asked(&[], "[global]\nindex_url=https://two/\n");
        assert_eq!(written, Some(vec!["https://two/".into()]));
        for unknown in [("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", "/etc"), ("UV_OFFLINE", "1")] {
            assert_eq!(asked(&[unknown], ""), None, "{unknown:?}");
        }
        assert!(asked(&[("PIP_FIND_LINKS", "/nowhere")], "").is_some());
    }

    #[test]
    fn an_address_is_a_host_and_a_port_and_its_password_is_not_shown() {
        let is = |place: &str| target(place).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(is("https://me:pw@h.example/simple").as_deref(), Some("h.example 443"));
        assert_eq!(is("http://[::1]:81/x").as_deref(), Some("::1 81"));
        assert_eq!(is("http://[::1]/x").as_deref(), Some("::1 80"));
        assert_eq!(is("proxy:3128").as_deref(), Some("proxy 3128"));
        assert_eq!(is("file:///srv/simple"), None);
        assert_eq!(shown("https://me:pw@h.example/simple"), "https://h.example/simple");
        assert_eq!(shown("https://h.example/a@b"), "https://h.example/a@b");
    }

    #[test]
    fn one_place_that_answers_is_enough_and_none_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = format!("http://{}/", listener.local_addr().unwrap());
        let shut = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let shut = format!("http://me:pw@{shut}/");
        let both = [shut.clone(), open];
        assert_eq!(any_answers(&both, PATIENCE), Ok(()));
        let began = Instant::now();
        let why = any_answers(&both[..1], PATIENCE).unwrap_err();
        assert!(why.contains("refused") && !why.contains("pw"), "{why}");
        assert!(began.elapsed() < PATIENCE);
    }
}
