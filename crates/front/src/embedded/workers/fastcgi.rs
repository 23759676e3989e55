//! A request as FastCGI: the parameters of CGI (RFC 3875, 4.1), with those that nginx adds.

use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mfserv_core::route::{ServerSettings, names_script};
use mfserv_fastcgi::{CONTENT_MAX, begin_request, longest_param, put_param, put_params};
use mfserv_h1::RequestHead;

use super::heads::{self, Forwarded};
use crate::embedded::clients::fault::Cause;
use crate::embedded::io::buffer::Pooled;

const SOFTWARE: &str = concat!("mfserv/", env!("CARGO_PKG_VERSION"));
/// The script of a directory.
const INDEX: &str = "/index.php";

/// Where a path leads to.
#[derive(Debug, Clone, Copy)]
pub struct Mapped<'a> {
    /// The path, normalised.
    pub path: &'a str,
    /// Where the part of it begins that follows the prefix of the route.
    pub rest_at: usize,
}

impl<'a> Mapped<'a> {
    /// The prefix, as far as the path has it.
    pub fn prefix(&self) -> &'a str {
        &self.path[..self.rest_at]
    }
}

/// The script that answers, and what is left of the path for it.
#[derive(Debug, PartialEq, Eq)]
struct Script<'a> {
    /// Below the directory of the app; begins with `/`.
    file: String,
    /// The path to it, with the prefix of the route.
    name: String,
    /// What follows it in the path: empty, or begins with `/`.
    info: &'a str,
}

impl<'a> Script<'a> {
    /// The first file in the path whose name ends with `.php`; else the index of the directory
    /// that the path names, as in the template `php` of MFSERV.
    fn of(mapped: Mapped<'a>) -> Self {
        let (prefix, rest) = mapped.path.split_at(mapped.rest_at);
        let prefix = prefix.trim_end_matches('/');
        let rest = rest.trim_start_matches('/');
        let mut end = 0;
        for segment in rest.split_inclusive('/') {
            let name = segment.trim_end_matches('/');
            if names_script(name) {
                let file = format!("/{}", &rest[..end + name.len()]);
                let name = format!("{prefix}{file}");
                return Self { info: &rest[file.len() - 1..], file, name };
            }
            end += segment.len();
        }
        let directory = rest.trim_end_matches('/');
        let file = match directory {
            "" => INDEX.to_owned(),
            _ => format!("/{directory}{INDEX}"),
        };
        Self { name: format!("{prefix}{file}"), file, info: "" }
    }
}

/// The records of a request up to its content. `root`: the directory of the scripts of the worker;
/// `reached`: the address that the client has connected to.
///
/// Fields arrive as `HTTP_*`: those, and only those, that an HTTP worker would get. A field that
/// comes several times is one, with commas (RFC 9110, 5.3; cookies: RFC 9113, 8.2.3). A field whose
/// name has other bytes than letters, digits and `-` is left out.
///
/// A parameter that does not fit into one record is refused with 431: the specification lets several
/// records carry it, but php-fpm then closes the connection.
pub fn request(
    head: &RequestHead,
    settings: &ServerSettings,
    with: Forwarded<'_>,
    (reached, root, mapped): (Option<IpAddr>, &Path, Mapped<'_>),
) -> Result<Vec<u8>, Cause> {
    let script = Script::of(mapped);
    let root = root.as_os_str().as_bytes();
    let query = head.target().splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
    let length = with.length.filter(|length| *length > 0 || has_length(head));
    let length = length.map_or(String::new(), |length| length.to_string());
    let number = |port: Option<u16>| port.map_or(String::new(), |port| port.to_string());
    let scheme = if with.secure { "https" } else { "http" };
    let reached = reached.map_or(String::new(), |address| address.to_string());
    let host = match host_name(head.host()) {
        // HTTP/1.0 needs none; a script that asks for its server is told which one that is.
        b"" => reached.as_bytes(),
        host => host,
    };
    let protocol = if head.is_1_1 { "HTTP/1.1" } else { "HTTP/1.0" };
    let content_type = value_of(head, b"content-type");
    let port = number(with.reached_port.or_else(|| head.host_port()));
    let client_port = number(with.port);
    let mut params = Vec::new();
    let mut put = |name: &str, value: &[u8]| put_param(&mut params, name.as_bytes(), value);
    put("GATEWAY_INTERFACE", b"CGI/1.1");
    put("SERVER_SOFTWARE", SOFTWARE.as_bytes());
    put("QUERY_STRING", query);
    put("REQUEST_METHOD", head.method());
    put("CONTENT_TYPE", content_type);
    put("CONTENT_LENGTH", length.as_bytes());
    put("SCRIPT_FILENAME", &[root, script.file.as_bytes()].concat());
    put("SCRIPT_NAME", script.name.as_bytes());
    put("PATH_INFO", script.info.as_bytes());
    put("REQUEST_URI", head.target());
    put("DOCUMENT_URI", mapped.path.as_bytes());
    put("DOCUMENT_ROOT", root);
    put("SERVER_PROTOCOL", protocol.as_bytes());
    put("REQUEST_SCHEME", scheme.as_bytes());
    put("REMOTE_ADDR", with.address.as_bytes());
    put("REMOTE_PORT", client_port.as_bytes());
    put("SERVER_ADDR", reached.as_bytes());
    put("SERVER_PORT", port.as_bytes());
    put("SERVER_NAME", host);
    // php-cgi asks for it where it was built to be called through a web server alone.
    put("REDIRECT_STATUS", b"200");
    if with.secure {
        put("HTTPS", b"on");
    }
    put_fields(&mut params, head, settings, with);
    if longest_param(&params) > CONTENT_MAX {
        return Err(Cause::BadRequest(431));
    }
    let mut request = Vec::with_capacity(params.len() + 64);
    begin_request(&mut request);
    put_params(&mut request, &params);
    Ok(request)
}

/// The fields that an HTTP worker would get, by their names in CGI.
fn put_fields(
    params: &mut Vec<u8>,
    head: &RequestHead,
    settings: &ServerSettings,
    with: Forwarded<'_>,
) {
    let mut lines = Pooled::default();
    heads::put_request(&mut lines, head, settings, Forwarded { keep_alive: true, ..with });
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in lines.filled().split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(end) = line.iter().position(|byte| *byte == b':') else { continue };
        if !is_plain(&line[..end]) {
            continue;
        }
        let (name, value) = (cgi_name(&line[..end]), line[end + 1..].trim_ascii());
        if LEFT_OUT.contains(&name.as_slice()) {
            continue;
        }
        let separator: &[u8] = if name == b"HTTP_COOKIE" { b"; " } else { b", " };
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, before)) => before.extend([separator, value].concat()),
            None => fields.push((name, value.to_vec())),
        }
    }
    fields.iter().for_each(|(name, value)| put_param(params, name, value));
}

/// Those have parameters of their own, are about the connection, or would be taken for the proxy that
/// a script uses (CVE-2016-5385).
const LEFT_OUT: [&[u8]; 6] = [
    b"HTTP_CONTENT_TYPE",
    b"HTTP_CONTENT_LENGTH",
    b"HTTP_TRANSFER_ENCODING",
    b"HTTP_CONNECTION",
    b"HTTP_UPGRADE",
    b"HTTP_PROXY",
];

/// True if no other name becomes the same variable. PHP makes `_` of a dot, so that `X-Real.IP` from
/// a client would replace what the front says of it in `X-Real-IP`.
fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// `HTTP_` and the name in capitals, with `_` for `-`.
fn cgi_name(name: &[u8]) -> Vec<u8> {
    let letters = name.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte });
    b"HTTP_".iter().copied().chain(letters.map(|byte| byte.to_ascii_uppercase())).collect()
}

fn value_of<'h>(head: &'h RequestHead, name: &[u8]) -> &'h [u8] {
    let found = head.fields.iter().find(|(_, written, _)| written.eq_ignore_ascii_case(name));
    found.map_or(b"", |(_, _, value)| value)
}

fn has_length(head: &RequestHead) -> bool {
    !value_of(head, b"content-length").is_empty()
}

/// A host without its port.
fn host_name(host: &[u8]) -> &[u8] {
    let is_port = |rest: &[u8]| rest.iter().all(u8::is_ascii_digit);
    match host.iter().rposition(|byte| *byte == b':') {
        Some(at) if is_port(&host[at + 1..]) && !host[..at].ends_with(b":") => &host[..at],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_script_or_a_directory() {
        for (path, rest_at, file, name, info) in [
            ("/p", 2, "/index.php", "/p/index.php", ""),
            ("/p/", 2, "/index.php", "/p/index.php", ""),
            ("/", 0, "/index.php", "/index.php", ""),
            ("/", 1, "/index.php", "/index.php", ""),
            ("/p/a/b/", 2, "/a/b/index.php", "/p/a/b/index.php", ""),
            ("/p/a.php", 2, "/a.php", "/p/a.php", ""),
            ("/p/a.php/", 2, "/a.php", "/p/a.php", "/"),
            ("/p/d/a.php/x/y.php", 2, "/d/a.php", "/p/d/a.php", "/x/y.php"),
            ("/p/.php", 2, "/.php/index.php", "/p/.php/index.php", ""),
            ("/p/a.phpx", 2, "/a.phpx/index.php", "/p/a.phpx/index.php", ""),
        ] {
            let script = Script::of(Mapped { path, rest_at });
            assert_eq!(
                (script.file.as_str(), script.name.as_str(), script.info),
                (file, name, info)
            );
        }
    }

    #[test]
    fn the_name_of_a_host_has_no_port() {
        for (host, name) in
            [("a.b:80", "a.b"), ("a.b", "a.b"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(host_name(host.as_bytes()), name.as_bytes());
        }
    }
}
