//! One value of one type: a text becomes a value, or the reason why it is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Type;
use crate::circus::Endpoint;
use crate::http_url;
use crate::log_outputs::SyslogAddress;
use crate::tls;

/// A value as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// Not set: `null`, or nothing.
    Nothing,
    /// A flag.
    Flag(bool),
    /// A flag that is neither 1 nor 0. Scripts compare with `1`, so it is no.
    Doubtful(bool),
    /// A number.
    Number(i64),
    /// Words, paths, addresses.
    Text(String),
    /// Networks, in CIDR form; addresses.
    List(Vec<String>),
}

impl Read {
    /// The number, unless there is none or it is below 0.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Read::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The text, unless it is `null`.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Read::Text(text) if !text.eq_ignore_ascii_case("null") => Some(text.clone()),
            _ => None,
        }
    }
}

/// Why a value is refused, and what to write instead.
type Refusal = (String, String);

/// Reads a value. `Err` is (reason, help).
pub(crate) fn read(kind: Type, text: &str) -> Result<Read, Refusal> {
    let text = text.trim();
    let is_null = text.is_empty() || text.eq_ignore_ascii_case("null");
    match kind {
        Type::Flag => Ok(flag(text)),
        Type::Integer { min, max, unit } => number(text, min, max, unit).map(Read::Number),
        Type::Port if is_null => Ok(Read::Number(0)),
        Type::Port => number(text, 0, 65_535, "").map(Read::Number),
        Type::FileMode | Type::UrlPath | Type::Networks | Type::Host if is_null => {
            Ok(Read::Nothing)
        }
        Type::HttpUrl | Type::HttpUrls if is_null => Ok(Read::Nothing),
        Type::FileMode => file_mode(text),
        Type::OneOf { words } => one_of(text, words),
        Type::UrlPath => url_path(text),
        Type::Addresses => listen_addresses(text),
        Type::Networks => networks(text),
        Type::Path | Type::SyslogAddress | Type::Endpoint if is_null => Ok(Read::Nothing),
        Type::Path => path(text),
        Type::Program => program(text),
        Type::Host => match http_url::check_host(text) {
            Ok(()) => Ok(Read::Text(text.to_string())),
            Err(why) => Err((why.into(), "write the name or the address of a host".into())),
        },
        Type::HttpUrl => base_url(text).map(Read::Text),
        Type::HttpUrls => text
            .split(',')
            .map(|url| base_url(url.trim()))
            .collect::<Result<_, _>>()
            .map(Read::List),
        Type::IndexName => index_name(text),
        Type::SyslogAddress => {
            SyslogAddress::parse(text).map(|address| Read::Text(address.to_string()))
        }
        Type::Endpoint => Endpoint::parse(text).map(|endpoint| Read::Text(endpoint.to_string())),
        Type::TlsVersions => match tls::versions(text) {
            Ok(_) => Ok(Read::Text(text.to_string())),
            Err(why) => Err((why, "write TLSv1.2 TLSv1.3, or one of them".into())),
        },
        Type::TlsCiphers => match tls::ciphers(text) {
            Ok(_) => Ok(Read::Text(text.to_string())),
            Err(why) => Err((why, format!("write some of {}", tls::SUITES.join(":")))),
        },
        Type::Text => Ok(Read::Text(text.to_string())),
    }
}

fn base_url(text: &str) -> Result<String, Refusal> {
    match http_url::check_base(text) {
        Ok(()) => Ok(text.to_string()),
        Err(why) => Err((why.into(), "write http://HOST:PORT or https://HOST:PORT".into())),
    }
}

/// What an index may be called, with directives that make digits of a time.
/// (<https://www.elastic.co/guide/en/elasticsearch/reference/7.17/indices-create-index.html>)
fn index_name(text: &str) -> Result<Read, Refusal> {
    let directives = ["%Y", "%y", "%m", "%d", "%j", "%H", "%F", "%G", "%V"];
    let rest = directives.iter().fold(text.to_string(), |text, part| text.replace(part, "0"));
    let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-+".contains(c);
    let why = match rest.chars().find(|c| !usable(*c)) {
        Some('%') => "it has a % that begins none of %Y %y %m %d %j %H %F %G %V".to_string(),
        Some(c) => format!("an index has no {c:?} in its name"),
        None if rest.is_empty() => "an index has a name".into(),
        None if rest.starts_with(['-', '_', '+', '.']) => {
            "the name of an index begins with a letter or a digit".into()
        }
        None if rest.len() > 200 => "the name of an index is shorter".into(),
        None => return Ok(Read::Text(text.to_string())),
    };
    Err((why, "write for example nginx-%Y.%m.%d".into()))
}

fn flag(text: &str) -> Read {
    match text {
        "1" => Read::Flag(true),
        "0" => Read::Flag(false),
        _ => Read::Doubtful(false),
    }
}

fn number(text: &str, min: i64, max: i64, unit: &str) -> Result<i64, Refusal> {
    let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
    let help = format!("write a whole number from {min} to {max}{unit}");
    match text.parse::<i64>() {
        Ok(number) if number < min => Err((format!("{number} is below {min}"), help)),
        Ok(number) if number > max => Err((format!("{number} is above {max}"), help)),
        Ok(number) => Ok(number),
        Err(_) => {
            let comment = text.contains(['#', ';']);
            let reason = match comment {
                true => "a comment must be a line of its own: here it is part of the value",
                false => "it is not a whole number",
            };
            Err((reason.to_string(), help))
        }
    }
}

fn file_mode(text: &str) -> Result<Read, Refusal> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(Read::Number(i64::from(mode))),
        _ => Err(("it is not a file mode".into(), "write octal digits, for example 0644".into())),
    }
}

fn one_of(text: &str, words: &[&str]) -> Result<Read, Refusal> {
    match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
        Some(word) => Ok(Read::Text((*word).to_string())),
        None => Err((
            "it is not one of the known words".into(),
            format!("write one of {}", words.join(", ")),
        )),
    }
}

fn path(text: &str) -> Result<Read, Refusal> {
    match text.starts_with('/') {
        true => Ok(Read::Text(text.to_string())),
        false => Err(("it is not an absolute path".into(), "begin the path with /".into())),
    }
}

fn program(text: &str) -> Result<Read, Refusal> {
    match super::is_program_name(text) {
        true => Ok(Read::Text(text.to_string())),
        false => Err((
            "it is not the name of a program".into(),
            "write a name without a directory, for example python3.12".into(),
        )),
    }
}

fn url_path(text: &str) -> Result<Read, Refusal> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '?' || c == '#';
    match text.starts_with('/') && !text.contains(bad) {
        true => Ok(Read::Text(text.to_string())),
        false => Err((
            "it is not the path of a URL".into(),
            "write a path that begins with / and has no blank, ? or #; null for none".into(),
        )),
    }
}

/// `::` takes the clients of all addresses, `0.0.0.0` those of all IPv4 addresses: another socket
/// there could not be had.
fn listen_addresses(text: &str) -> Result<Read, Refusal> {
    let help = "write addresses to listen on, separated by commas: :: for all, 0.0.0.0 for all of \
                IPv4, 127.0.0.1,::1 for this machine";
    let mut all: Vec<IpAddr> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let item = if item == "localhost" { "127.0.0.1" } else { item };
        let bare = item.strip_prefix('[').and_then(|item| item.strip_suffix(']')).unwrap_or(item);
        match bare.parse::<IpAddr>() {
            Ok(address) if !all.contains(&address) => all.push(address),
            Ok(_) => {}
            Err(_) => return Err((format!("{item} is not an IP address"), help.into())),
        }
    }
    let every: IpAddr = Ipv6Addr::UNSPECIFIED.into();
    let every_4: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    if all.contains(&every) {
        all = vec![every];
    } else if all.contains(&every_4) {
        all.retain(|address| address.is_ipv6() || *address == every_4);
    }
    match all.is_empty() {
        true => Err(("there is no IP address".into(), help.into())),
        false => Ok(Read::List(all.iter().map(IpAddr::to_string).collect())),
    }
}

fn networks(text: &str) -> Result<Read, Refusal> {
    let mut list = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match item {
            "all" => list.extend(["0.0.0.0/0".to_string(), "::/0".to_string()]),
            item => list.push(network(item).ok_or_else(|| {
                (
                    format!("{item} is not a network"),
                    "write networks as 10.0.0.0/8, separated by commas; null for none".to_string(),
                )
            })?),
        }
    }
    Ok(if list.is_empty() { Read::Nothing } else { Read::List(list) })
}

fn network(item: &str) -> Option<String> {
    let (address, length) = match item.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (item, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(longest);
    (length <= longest).then(|| format!("{address}/{length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of(words: &'static [&'static str]) -> Type {
        Type::OneOf { words }
    }

    fn text(value: &str) -> Result<Read, Refusal> {
        Ok(Read::Text(value.into()))
    }

    #[test]
    fn each_type_reads_its_values() {
        let bytes = Type::Integer { min: -1, max: 9, unit: "bytes" };
        let list =
            |items: &[&str]| Ok(Read::List(items.iter().map(|item| (*item).to_string()).collect()));
        for (kind, value, expected) in [
            (Type::Flag, "1", Ok(Read::Flag(true))),
            (Type::Flag, "0", Ok(Read::Flag(false))),
            (Type::Flag, "true", Ok(Read::Doubtful(false))),
            (bytes, "-1", Ok(Read::Number(-1))),
            (Type::Port, "null", Ok(Read::Number(0))),
            (Type::Port, "65535", Ok(Read::Number(65_535))),
            (Type::FileMode, "0644", Ok(Read::Number(0o644))),
            (Type::FileMode, "null", Ok(Read::Nothing)),
            (one_of(&["INFO", "DEBUG"]), "debug", text("DEBUG")),
            (Type::UrlPath, "/__health", text("/__health")),
            (Type::UrlPath, "NULL", Ok(Read::Nothing)),
            (Type::HttpUrl, "http://h:8086/influx", text("http://h:8086/influx")),
            (Type::Addresses, "localhost", list(&["127.0.0.1"])),
            (Type::Addresses, "::", list(&["::"])),
            (Type::Addresses, "127.0.0.1, [::1],127.0.0.1", list(&["127.0.0.1", "::1"])),
            (Type::Addresses, "127.0.0.1,0.0.0.0,::1", list(&["0.0.0.0", "::1"])),
            (Type::Addresses, "0.0.0.0,::1,::", list(&["::"])),
            (Type::Networks, "10.0.0.0/8, ::1,", list(&["10.0.0.0/8", "::1/128"])),
            (Type::Networks, "all", list(&["0.0.0.0/0", "::/0"])),
            (Type::Networks, "null", Ok(Read::Nothing)),
        ] {
            assert_eq!(read(kind, value), expected, "{kind:?} {value}");
        }
    }

    #[test]
    fn each_type_refuses_what_it_cannot_be_with_help() {
        let count = Type::Integer { min: 0, max: 9, unit: "seconds" };
        for (kind, value, reason) in [
            (Type::HttpUrl, "http://h:8086/?db=x", "query"),
            (count, "abc", "not a whole number"),
            (count, "", "not a whole number"),
            (count, "1.5", "not a whole number"),
            (count, "5 # five", "a comment must be a line of its own"),
            (count, "-1", "-1 is below 0"),
            (count, "10", "10 is above 9"),
            (count, "99999999999999999999", "not a whole number"),
            (Type::Port, "65536", "above 65535"),
            (Type::FileMode, "0689", "not a file mode"),
            (Type::FileMode, "17777", "not a file mode"),
            (one_of(&["a"]), "b", "not one of"),
            (Type::Path, "var/x", "not an absolute path"),
            (Type::UrlPath, "health", "not the path"),
            (Type::UrlPath, "/a b", "not the path"),
            (Type::Addresses, "::1,example.org", "example.org is not an IP address"),
            (Type::Addresses, ",", "no IP address"),
            (Type::Networks, "10.0.0.0/33", "10.0.0.0/33 is not a network"),
            (Type::Networks, "10.0.0.0/8 1.2.3.4", "is not a network"),
        ] {
            let (found, help) = read(kind, value).expect_err(value);
            assert!(found.contains(reason), "{value}: {found}");
            assert!(!help.is_empty());
        }
    }
}
