//! The ports that appear in commands.

/// The ports in some commands, split into words, sorted and without duplicates: `--port 8080`,
/// `--port=8080`, `-p 8080`, `HOST:8080`. A command may listen on other ports all the same.
pub fn named(commands: impl Iterator<Item = Vec<String>>) -> Vec<u16> {
    let mut ports: Vec<u16> = commands.flat_map(|words| of_words(&words)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn of_words(words: &[String]) -> Vec<u16> {
    let mut ports = Vec::new();
    let mut before = "";
    for word in words {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (option, value),
            _ => (before, word.as_str()),
        };
        let is_port = option == "-p" || (option.starts_with('-') && option.ends_with("port"));
        let address = value.rsplit_once(':').filter(|(host, _)| is_host(host));
        let text = if is_port { Some(value) } else { address.map(|(_, port)| port) };
        ports.extend(text.and_then(|text| text.parse().ok()).filter(|port: &u16| *port > 0));
        before = word;
    }
    ports
}

/// `` (all addresses), `127.0.0.1`, `[::]`, `localhost`, `tcp://…`; no path and no module.
fn is_host(text: &str) -> bool {
    let host = text.rsplit("//").next().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.is_empty()
        || host == "*"
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_command_tell_its_ports() {
        for (command, ports) in [
            ("redis-server --port 6380", &[6380][..]),
            ("x --metrics-port=9100 -p 80", &[80, 9100]),
            ("x 0.0.0.0:8080 [::]:81 :82 localhost:83 tcp://127.0.0.1:84", &[81, 82, 83, 84, 8080]),
            ("python main.wsgi:8000 --timeout 60 a:b --port many /var/x:1", &[]),
            ("x -p 99999 --port 0", &[]),
        ] {
            let words = command.split(' ').map(str::to_owned).collect();
            assert_eq!(named(std::iter::once(words)), ports, "{command}");
        }
    }
}
