//! Whether the Python package index can be reached at all.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::label::read_small;

/// How long an index, or the resolver of its name, may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The index of pip and uv.
const DEFAULT: &str = "https://pypi.org/simple";

/// What is known of the index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It answers; or only pip and uv know where it is (a configuration of uv, packages in
    /// directories), and are to say.
    Likely,
    /// Nothing has answered yet, and nothing has been refused: what was waited for. A slow network
    /// and a dead name server look so.
    Unknown(String),
    /// Nothing answers where pip and uv would ask, and why.
    Never(String),
}

/// Whether something answers where pip and uv would ask.
pub(crate) fn reach_index() -> Reach {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if configurations_of_uv(variable).iter().any(|file| file.exists()) {
        return Reach::Likely;
    }
    match places(variable, &configurations(variable)) {
        Some(places) => any_answers(&places, PATIENCE),
        None => Reach::Likely,
    }
}

/// The configuration files of uv, which may name an index.
fn configurations_of_uv(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let own = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
    let system = variable("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    let dirs = own.into_iter().chain(system.split(':').map(PathBuf::from));
    dirs.chain([PathBuf::from("/etc")]).map(|dir| dir.join("uv/uv.toml")).collect()
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

/// What is tried: the number of its place, and what became of it.
type Answer = (usize, std::io::Result<()>);

/// All addresses of all places are tried at the same time: one of IPv6 may lead nowhere. That
/// nothing answers is certain when each has failed by more than silence; the reason is that of the
/// first place.
fn any_answers(places: &[String], patience: Duration) -> Reach {
    // Unbounded: no more answers come than a few names have addresses.
    let (sender, receiver) = mpsc::channel::<Answer>();
    for (number, place) in places.iter().enumerate() {
        let (sender, place) = (sender.clone(), place.clone());
        // The resolver cannot be interrupted: its thread ends by itself.
        std::thread::spawn(move || try_place(number, &place, patience, &sender));
    }
    drop(sender);
    let name = places.first().map(|place| shown(place)).unwrap_or_default();
    let silence = format!("{name} does not answer within {} s", patience.as_secs());
    let end = Instant::now() + patience;
    let (mut why, mut is_certain) = (None, true);
    loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((_, Ok(()))) => return Reach::Likely,
            Ok((_, Err(error))) if error.kind() == ErrorKind::TimedOut => is_certain = false,
            Ok((0, Err(error))) => why = Some(error),
            Ok((_, Err(_))) => {}
            // All have been tried.
            Err(RecvTimeoutError::Disconnected) if is_certain => {
                let why = why.map_or_else(String::new, |error| format!(": {error}"));
                return Reach::Never(format!("{name} cannot be reached{why}"));
            }
            Err(_) => return Reach::Unknown(silence),
        }
    }
}

/// Sends whether something accepts connections at each address of a place.
fn try_place(number: usize, place: &str, patience: Duration, sender: &mpsc::Sender<Answer>) {
    // Who has an answer listens no more.
    let send = |sender: &mpsc::Sender<Answer>, answer| drop(sender.send((number, answer)));
    // A directory is an index too.
    let Some(target) = target(place) else { return send(sender, Ok(())) };
    let found: Vec<SocketAddr> = match target.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => return send(sender, Err(error)),
    };
    if found.is_empty() {
        send(sender, Err(std::io::Error::other("its name has no address")));
    }
    for address in found {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let connected = TcpStream::connect_timeout(&address, patience);
            drop(sender.send((number, connected.map(drop))));
        });
    }
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
        assert_eq!(any_answers(&both, PATIENCE), Reach::Likely);
        let began = Instant::now();
        let never = any_answers(&both[..1], PATIENCE);
        let Reach::Never(why) = never else { panic!("{never:?}") };
        assert!(why.contains("refused") && !why.contains("pw"), "{why}");
        assert!(began.elapsed() < PATIENCE);
    }

    /// A listener that accepts nothing, with its backlog full: the kernel drops what comes next, as a
    /// firewall does.
    fn silent() -> (TcpListener, Vec<TcpStream>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // SOMAXCONN is the backlog of the standard library at least.
        let brief = Duration::from_millis(300);
        let connect = || TcpStream::connect_timeout(&address, brief).ok();
        let held: Vec<TcpStream> = std::iter::repeat_with(connect).map_while(|one| one).collect();
        (listener, held, format!("http://{address}/"))
    }

    #[test]
    fn silence_is_no_proof_that_there_is_no_network() {
        let (_listener, _held, silent) = silent();
        let patience = Duration::from_secs(1);
        let shut = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unknown = any_answers(&[silent.clone(), format!("http://{shut}/")], patience);
        assert!(
            matches!(&unknown, Reach::Unknown(why) if why.contains("within 1 s")),
            "{unknown:?}"
        );
        // One that answers is not waited for behind one that does not.
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let places = [silent, format!("http://{}/", open.local_addr().unwrap())];
        let began = Instant::now();
        assert_eq!(any_answers(&places, patience), Reach::Likely);
        assert!(began.elapsed() < patience);
    }

    #[test]
    fn the_configuration_files_of_uv_are_where_it_reads_them() {
        let files = |variables: &[(&str, &str)]| {
            let find = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.to_string())
            };
            let files = configurations_of_uv(find);
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>()
        };
        let usual = ["/h/.config/uv/uv.toml", "/etc/xdg/uv/uv.toml", "/etc/uv/uv.toml"];
        assert_eq!(files(&[("HOME", "/h")]), usual);
        let own = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_CONFIG_DIRS", "/a:/b")];
        assert_eq!(files(&own)[..3], ["/c/uv/uv.toml", "/a/uv/uv.toml", "/b/uv/uv.toml"]);
    }
}
