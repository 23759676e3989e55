//! Addresses that requests are sent to: `http://HOST[:PORT][/PATH]`, and hosts.

use std::net::{IpAddr, Ipv6Addr};

/// Why a text is no address of HTTP that mfserv sends to.
///
/// # Errors
/// The reason, for people. A user with a password is refused too: addresses are shown in logs, and
/// there are keys for both.
pub fn check(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or("it does not begin with http:// or https://")?;
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it has blanks or characters beyond ASCII");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("an address must not have a user or a password");
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        },
    };
    let port = port.ok_or("its port is not understood")?;
    if !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("its port is no number from 1 to 65535");
    }
    match authority.starts_with('[') {
        true => host.parse::<Ipv6Addr>().map(drop).map_err(|_| "it is no IPv6 address in []"),
        false => check_host(host),
    }
}

/// The same for an address to which a path with a query is added: it has none of its own.
///
/// # Errors
/// The reason, for people.
pub fn check_base(url: &str) -> Result<(), &'static str> {
    check(url)?;
    match url.contains(['?', '#']) {
        true => Err("it has a query (?) or a fragment (#)"),
        false => Ok(()),
    }
}

/// Why a text is no name or address of a host.
///
/// # Errors
/// The reason, for people. Underscores are no part of a host name (RFC 1123), and are in the
/// names of containers: they are taken.
pub fn check_host(host: &str) -> Result<(), &'static str> {
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match host {
        "" => Err("it has no host"),
        _ if host.len() > 253 => Err("a host name has at most 253 characters"),
        _ if host.starts_with(['-', '.']) => Err("a host name begins with a letter or a digit"),
        _ if host.bytes().all(is_known) => Ok(()),
        _ => Err("a host name has letters, digits, dots and hyphens"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_http_are_told_from_others() {
        for good in [
            "http://localhost",
            "https://a-b.example.org:8086/write/here?x=1",
            "http://[::1]:8086",
            "http://10.0.0.1/",
            "http://influx_1:8086",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("localhost:8086", "begin with"),
            ("ftp://x", "begin with"),
            ("", "begin with"),
            ("http://", "no host"),
            ("http:///path", "no host"),
            ("http://h:99999", "port"),
            ("http://h:0", "port"),
            ("http://h:x", "port"),
            ("http://u:p@h", "password"),
            ("http://u@h/", "password"),
            ("http://[::1", "port"),
            ("http://[x]:1", "IPv6"),
            ("http://[::1]1", "port"),
            ("http://a b", "blanks"),
            ("http://h/é", "blanks"),
            ("http://bad!host", "letters"),
        ] {
            assert!(check(bad).unwrap_err().contains(why), "{bad}: {:?}", check(bad));
        }
    }

    #[test]
    fn an_address_to_which_a_query_is_added_has_none() {
        assert_eq!(check_base("http://h:8086/a/"), Ok(()));
        for bad in ["http://h:8086/?db=x", "http://h?", "http://h/#a", "http://h#"] {
            assert!(check_base(bad).unwrap_err().contains("query"), "{bad}");
        }
        assert!(check_base("ftp://h").unwrap_err().contains("begin with"));
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        for good in ["localhost", "10.0.0.1", "::1", "fe80::1", "a.b-c.", "admin_1", "7up"] {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        let long = "a".repeat(254);
        for bad in ["", "bad_host!", "a b", "-a", ".a", "http://a", "a:80", "é", &long] {
            assert!(check_host(bad).is_err(), "{bad}");
        }
    }
}
