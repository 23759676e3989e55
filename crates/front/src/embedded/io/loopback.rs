//! Connections to ports of 127.0.0.1 on which a certain user listens.

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use mfserv_platform::loopback::Listeners;
use tokio::net::TcpStream;

/// The system takes a connection at once, unless the queue of the listener is full: it would be
/// tried again after a second and more.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why there is no connection.
#[derive(Debug)]
pub enum NoConnection {
    /// The listener has no room, or this machine no more ports for connections.
    Busy,
    /// It is this user who listens, and not the expected one.
    Foreign(u32),
    /// Nobody listens, or something else went wrong.
    Failed(io::Error),
}

thread_local! {
    static LISTENERS: RefCell<Listeners> = RefCell::default();
}

/// A connection to a port on which this user listens.
///
/// Anybody may take the port of a program that has died, before that is known here. So it is asked
/// who listens after each connection, before anything is sent on it.
pub async fn connect(port: u16, uid: u32) -> Result<TcpStream, NoConnection> {
    let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let stream = match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) if why.kind() == io::ErrorKind::AddrNotAvailable => {
            return Err(NoConnection::Busy);
        }
        Ok(Err(why)) => return Err(NoConnection::Failed(why)),
        Err(_) => return Err(NoConnection::Busy),
    };
    match LISTENERS.with_borrow_mut(|listeners| listeners.on(port)) {
        Ok(Some(listener)) if listener.uid != uid => {
            return Err(NoConnection::Foreign(listener.uid));
        }
        // It has ended in this moment; or this connection is one of the port with itself.
        Ok(None) => return Err(NoConnection::Failed(io::ErrorKind::ConnectionRefused.into())),
        Ok(Some(_)) => {}
        // The kernel does not say who listens: the daemon has made sure of it once.
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(NoConnection::Failed(why)),
    }
    stream.set_nodelay(true).map_err(NoConnection::Failed)?;
    Ok(stream)
}
