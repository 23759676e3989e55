//! `circusctl listen`: the events that the node publishes for subscribers of Circus.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use mfserv_core::Diagnostic;
use mfserv_core::circus::Endpoint;
use mfserv_zmtp::{Connection, Event, Limits, Role, message};
use serde_json::{Map, Value};

use crate::cli::output::is_lost;
use crate::cli::print;

/// How large an event may be.
const LIMITS: Limits = Limits { message: 1 << 20, frames: 8 };
/// What a subscription begins with.
const SUBSCRIBE: u8 = 1;

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// Prints the events whose topics begin with one of `topics` (none: all), until the node ends the
/// connection. `options` is the answer of the node that names its endpoint.
pub fn run(options: &Map<String, Value>, topics: &[String]) -> Result<(), Diagnostic> {
    let named = options.get("options").and_then(|options| options.get("pubsub_endpoint"));
    let endpoint = named.and_then(|named| serde_json::from_value(named.clone()).ok());
    let endpoint: Endpoint = endpoint.ok_or_else(|| {
        Diagnostic::error("the node publishes no events")
            .help("`[circus] pubsub_endpoint` says where; `mfserv events -f` needs none")
    })?;
    let lost = |why: &dyn Display| {
        Diagnostic::error(format!("events are not received from {endpoint}")).because(why)
    };
    let mut stream: Box<dyn Stream> = match &endpoint {
        Endpoint::Unix(path) => Box::new(UnixStream::connect(path).map_err(|why| lost(&why))?),
        Endpoint::Tcp(address) => Box::new(TcpStream::connect(address).map_err(|why| lost(&why))?),
    };
    hear(&mut *stream, topics, &lost)
}

fn hear(
    stream: &mut dyn Stream,
    topics: &[String],
    lost: &dyn Fn(&dyn Display) -> Diagnostic,
) -> Result<(), Diagnostic> {
    let all = [String::new()];
    let topics = if topics.is_empty() { &all } else { topics };
    let subscriptions = topics.iter().map(|topic| [&[SUBSCRIBE], topic.as_bytes()].concat());
    let subscriptions: Vec<u8> = subscriptions.flat_map(|body| message(&[&body])).collect();
    let (mut connection, greeting) = Connection::new(Role::Subscriber, LIMITS);
    stream.write_all(&greeting).map_err(|why| lost(&why))?;
    let mut room = [0; 4096];
    loop {
        let count = stream.read(&mut room).map_err(|why| lost(&why))?;
        if count == 0 {
            return Ok(());
        }
        connection.receive(&room[..count]);
        while let Some(event) = connection.next_event().map_err(|why| lost(&why))? {
            let reply = match event {
                Event::Reply(bytes) => bytes,
                Event::Ready => subscriptions.clone(),
                Event::Message(frames) => {
                    let frames: Vec<_> =
                        frames.iter().map(|frame| String::from_utf8_lossy(frame)).collect();
                    print(&format!("{}\n", frames.join(": ")));
                    // `circusctl listen | head -1`
                    if is_lost() {
                        return Ok(());
                    }
                    continue;
                }
                Event::Subscribe(_) | Event::Unsubscribe(_) => continue,
            };
            stream.write_all(&reply).map_err(|why| lost(&why))?;
        }
    }
}
