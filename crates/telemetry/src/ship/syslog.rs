//! Syslog servers: messages of RFC 5424 over UDP and TCP, and those of RFC 3164 over a socket as
//! `/dev/log`.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use mfserv_core::log_outputs::SyslogAddress;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::document::Document;
use super::line::Line;
use super::sink::{Outcome, Verdict};
use super::syslog_stream::Stream;

/// The longest message: what RFC 5425 asks receivers to take, and the default of rsyslog. A
/// longer line becomes several messages.
const LONGEST: usize = 8192;
/// The least of a line in a message, whatever stands before it.
const LEAST: usize = 1024;
/// The longest value of where a line comes from, characters: seven of them leave room for a line.
const VALUE_LONGEST: usize = 255;
/// What is said of a message that is too long to be sent at all: the status of HTTP for that.
const TOO_LONG: u16 = 413;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may leave a message waiting before the files are looked at again.
const WAIT: Duration = Duration::from_secs(1);
/// After so many messages by UDP there is a pause: the receiver's buffer has room for some
/// hundreds, and what it has no room for is lost.
const BURST: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// The messages of a line, each a line of the text, as RFC 5424 has them.
pub fn rfc5424(line: &Line<'_>, host: &str, facility: u8) -> String {
    let mut head = format!(
        "<{}>1 {:.3} {} {} - - [mfserv@32473",
        facility * 8 + line.level.severity(),
        line.time,
        word(host, 255),
        word(&line.identifier, 48),
    );
    for (name, value) in line.origin() {
        let value: String = value.chars().take(VALUE_LONGEST).collect();
        head.push_str(&format!(" {name}=\"{}\"", value.replace(['"', '\\', ']'], "_")));
    }
    head.push_str("] ");
    in_pieces(&head, line.text)
}

/// The messages of a line, each a line of the text, as programs write them to `/dev/log`.
pub fn rfc3164(line: &Line<'_>, facility: u8) -> String {
    let head = format!(
        "<{}>{} {}: ",
        facility * 8 + line.level.severity(),
        line.time.to_zoned(TimeZone::system()).strftime("%b %e %H:%M:%S"),
        word(&line.identifier, 48),
    );
    in_pieces(&head, line.text)
}

/// A text as a word of the head of a message.
fn word(text: &str, longest: usize) -> String {
    let word: String = text.chars().filter(char::is_ascii_graphic).take(longest).collect();
    if word.is_empty() { "-".into() } else { word }
}

/// A head and a text; several heads with a piece each if that is too long.
fn in_pieces(head: &str, text: &str) -> String {
    let room = LONGEST.saturating_sub(head.len()).max(LEAST);
    let mut messages = String::new();
    let mut rest = text;
    loop {
        let mut end = rest.len().min(room);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        messages.push_str(head);
        messages.push_str(&rest[..end]);
        rest = &rest[end..];
        if rest.is_empty() {
            return messages;
        }
        messages.push('\n');
    }
}

/// A syslog server.
pub struct Syslog {
    address: SyslogAddress,
    link: Option<Link>,
}

enum Link {
    Udp(UdpSocket),
    Tcp(Stream),
    Unix(UnixDatagram),
}

impl Syslog {
    /// A server, which is connected when something is sent.
    pub fn new(address: SyslogAddress) -> Self {
        Self { address, link: None }
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Sends messages.
    pub fn send(&mut self, documents: &[Document]) -> Outcome {
        let sent = self.connected().and_then(|link| match link {
            Link::Udp(socket) => by_udp(socket, documents),
            Link::Tcp(stream) => Ok(vec![Verdict::Done; stream.send(documents)?]),
            Link::Unix(socket) => by_unix(socket, documents),
        });
        match sent {
            Ok(mut verdicts) => {
                let later = || Verdict::Later("it takes no more at the moment".into());
                verdicts.resize_with(documents.len(), later);
                Outcome::Each(verdicts)
            }
            Err(why) => {
                // What it had not read yet is sent again.
                self.link = None;
                Outcome::Later(why.to_string())
            }
        }
    }

    fn connected(&mut self) -> io::Result<&mut Link> {
        if matches!(&self.link, Some(Link::Tcp(stream)) if is_closed(stream.socket())) {
            self.link = None;
        }
        match &mut self.link {
            Some(link) => Ok(link),
            none => Ok(none.insert(connect(&self.address)?)),
        }
    }
}

fn connect(address: &SyslogAddress) -> io::Result<Link> {
    match address {
        SyslogAddress::Unix(path) => unix(path).map(Link::Unix),
        SyslogAddress::Tcp(address) => {
            let mut last = io::Error::other("the host has no address");
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT) {
                    Ok(socket) => {
                        socket.set_write_timeout(Some(WAIT))?;
                        return Ok(Link::Tcp(Stream::new(socket)));
                    }
                    Err(why) => last = why,
                }
            }
            Err(last)
        }
        SyslogAddress::Udp(address) => {
            let address = address.to_socket_addrs()?.next();
            let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
            let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let own: SocketAddr = own.parse().map_err(io::Error::other)?;
            let socket = UdpSocket::bind(own)?;
            socket.connect(address)?;
            Ok(Link::Udp(socket))
        }
    }
}

fn unix(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(WAIT))?;
    Ok(socket)
}

/// A server says nothing: what can be read is the end of the connection.
fn is_closed(socket: &TcpStream) -> bool {
    let mut byte = [0_u8; 64];
    match recv(socket, &mut byte, RecvFlags::DONTWAIT) {
        Ok((0, _)) => true,
        Ok(_) | Err(Errno::AGAIN) => false,
        Err(_) => true,
    }
}

fn messages(document: &Document) -> impl Iterator<Item = &[u8]> {
    document.source.split('\n').map(str::as_bytes)
}

/// Sends each message as a datagram. A port that nobody listens on is reported by the system
/// with the next datagram, if the way back is short: then all of them are sent again.
fn by_udp(socket: &UdpSocket, documents: &[Document]) -> io::Result<Vec<Verdict>> {
    let mut verdicts = Vec::with_capacity(documents.len());
    let mut count = 0;
    for document in documents {
        let mut verdict = Verdict::Done;
        for message in messages(document) {
            count += 1;
            if count % BURST == 0 {
                std::thread::sleep(PAUSE);
            }
            // The system may mean an earlier datagram, which a router could not forward whole: it
            // divides those that follow.
            let sent = socket.send(message).or_else(|why| match is_too_long(&why) {
                true => socket.send(message),
                false => Err(why),
            });
            if let Err(why) = sent {
                verdict = passed_over(why, message)?;
            }
        }
        verdicts.push(verdict);
    }
    match socket.take_error()? {
        Some(why) => Err(why),
        None => Ok(verdicts),
    }
}

/// Sends each message as a datagram; returns the verdicts of the documents that the server has
/// room for.
fn by_unix(socket: &UnixDatagram, documents: &[Document]) -> io::Result<Vec<Verdict>> {
    let mut verdicts = Vec::with_capacity(documents.len());
    for document in documents {
        let mut verdict = Verdict::Done;
        for message in messages(document) {
            match socket.send(message) {
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(verdicts),
                Err(why) => verdict = passed_over(why, message)?,
            }
        }
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// A message that no datagram has room for would keep back all that follow.
fn passed_over(why: io::Error, message: &[u8]) -> io::Result<Verdict> {
    match is_too_long(&why) {
        true => Ok(Verdict::Refused(TOO_LONG, format!("a message of {} bytes", message.len()))),
        false => Err(why),
    }
}

fn is_too_long(why: &io::Error) -> bool {
    Errno::from_io_error(why) == Some(Errno::MSGSIZE)
}

#[cfg(test)]
mod tests;
