//! A small HTTP/1.1 client over raw sockets that says exactly how an exchange failed.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read, bytes.
const LONGEST_BODY: u64 = 256 << 20;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Safe: may be asked again.
    Get,
    /// Must not be done twice.
    Post,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Get => "GET",
            Method::Post => "POST",
        })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field, by its name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// Nobody listens.
    ConnectRefused,
    /// The connection was not made for another reason.
    Connect(String),
    /// It was closed, or reset, before a byte of the answer.
    Unanswered(String),
    /// It ended within the answer.
    Cut(String),
    /// Nothing came in time.
    Late,
    /// What came is no HTTP.
    Malformed(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::ConnectRefused => f.write_str("connection refused"),
            Broken::Connect(why) => write!(f, "no connection: {why}"),
            Broken::Unanswered(why) => write!(f, "closed without an answer: {why}"),
            Broken::Cut(why) => write!(f, "cut within the answer: {why}"),
            Broken::Late => f.write_str("no answer in time"),
            Broken::Malformed(what) => write!(f, "not HTTP: {what:?}"),
        }
    }
}

/// A client with one connection, kept as long as both sides like.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    /// Connections made so far.
    pub connections: u64,
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(address: SocketAddr) -> Self {
        Client { address, stream: None, connections: 0 }
    }

    /// Whether the next request goes over a connection that was used before.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// One exchange. After a failure, the next one begins with a new connection.
    pub fn ask(
        &mut self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Broken> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        let body = if method == Method::Post { body } else { b"" };
        if method == Method::Post {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        let bytes = [request.as_bytes(), body].concat();
        stream.get_mut().write_all(&bytes).map_err(|e| Broken::Unanswered(e.to_string()))?;
        let (response, keep) = read_response(&mut stream)?;
        if keep {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    fn connect(&mut self) -> Result<BufReader<TcpStream>, Broken> {
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::ConnectionRefused => Broken::ConnectRefused,
            _ => Broken::Connect(e.to_string()),
        };
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).map_err(failed)?;
        self.connections += 1;
        let set = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_nodelay(true));
        set.map_err(|e| Broken::Connect(e.to_string()))?;
        Ok(BufReader::with_capacity(4096, stream))
    }
}

/// One GET over a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Result<Response, Broken> {
    Client::new(address).ask(Method::Get, path, &[("Connection", "close")], b"")
}

/// One POST over a connection of its own.
pub fn post(address: SocketAddr, path: &str, body: &[u8]) -> Result<Response, Broken> {
    Client::new(address).ask(Method::Post, path, &[("Connection", "close")], body)
}

/// Reads an answer; true if the connection may be used again.
fn read_response(stream: &mut BufReader<TcpStream>) -> Result<(Response, bool), Broken> {
    let first = line(stream, true)?;
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| Broken::Malformed(first.clone()))?;
    let mut fields = Vec::new();
    loop {
        let text = line(stream, false)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or_else(|| Broken::Malformed(text.clone()))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let mut response = Response { status, fields, body: Vec::new() };
    let delimited = read_body(stream, &mut response)?;
    let close = response.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    Ok((response, delimited && !close))
}

/// Reads the body; false if it ended with the connection.
fn read_body(stream: &mut BufReader<TcpStream>, response: &mut Response) -> Result<bool, Broken> {
    if response.status == 204 || response.status == 304 {
        return Ok(true);
    }
    if response.field("transfer-encoding").is_some() {
        loop {
            let size = line(stream, false)?;
            let length = usize::from_str_radix(size.trim(), 16)
                .map_err(|_| Broken::Malformed(size.clone()))?;
            read_exactly(stream, length, &mut response.body)?;
            line(stream, false)?;
            if length == 0 {
                return Ok(true);
            }
        }
    }
    if let Some(length) = response.field("content-length") {
        let length = length.parse().map_err(|_| Broken::Malformed(length.into()))?;
        read_exactly(stream, length, &mut response.body)?;
        return Ok(true);
    }
    let rest = stream.take(LONGEST_BODY).read_to_end(&mut response.body);
    rest.map(|_| false).map_err(|e| broken(&e, false))
}

fn read_exactly(
    stream: &mut BufReader<TcpStream>,
    length: usize,
    body: &mut Vec<u8>,
) -> Result<(), Broken> {
    let before = body.len();
    body.resize(before + length, 0);
    stream.read_exact(&mut body[before..]).map_err(|e| broken(&e, false))
}

fn line(stream: &mut BufReader<TcpStream>, first: bool) -> Result<String, Broken> {
    let mut bytes = Vec::new();
    let read = stream.take(64 * 1024).read_until(b'\n', &mut bytes);
    read.map_err(|e| broken(&e, first && bytes.is_empty()))?;
    if bytes.last() != Some(&b'\n') {
        let why = "end of the stream".to_string();
        return Err(match first && bytes.is_empty() {
            true => Broken::Unanswered(why),
            false => Broken::Cut(why),
        });
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_string())
}

fn broken(error: &std::io::Error, unanswered: bool) -> Broken {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Broken::Late,
        _ if unanswered => Broken::Unanswered(error.to_string()),
        _ => Broken::Cut(error.to_string()),
    }
}
