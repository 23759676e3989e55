//! journald, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a datagram
//! for each entry; a large one is a sealed memory file whose descriptor is sent.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::document::Document;
use super::line::Line;
use super::sink::{Outcome, partly};

/// How long journald may leave an entry waiting before the files are looked at again.
const WAIT: Duration = Duration::from_secs(1);

/// An entry: `NAME=VALUE` lines. No value has a line end: each entry is one line of a log.
pub fn entry(line: &Line<'_>, home: &str, facility: u8) -> String {
    let mut entry = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER={}\nSYSLOG_FACILITY={facility}\n\
         SYSLOG_TIMESTAMP={:.3}\nMFSERV_HOME={home}\n",
        line.text,
        line.level.severity(),
        line.identifier,
        line.time,
    );
    for (name, value) in line.origin() {
        entry.push_str(&format!("MFSERV_{}={value}\n", name.to_ascii_uppercase()));
    }
    entry
}

/// The socket of journald.
pub struct Journal {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journal {
    /// journald at this socket, which is connected when something is sent.
    pub fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Sends entries.
    pub fn send(&mut self, documents: &[Document]) -> Outcome {
        for (done, document) in documents.iter().enumerate() {
            match self.send_one(document.source.as_bytes()) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    return partly(done, documents.len(), "it takes no more at the moment");
                }
                Err(why) => {
                    // Another journald may listen there: entries that this one had not read
                    // are sent again.
                    self.socket = None;
                    return Outcome::Later(why.to_string());
                }
            }
        }
        partly(documents.len(), documents.len(), "")
    }

    fn send_one(&mut self, entry: &[u8]) -> io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_write_timeout(Some(WAIT))?;
                self.socket.insert(socket)
            }
        };
        match socket.send(entry) {
            Ok(_) => Ok(()),
            Err(why) if is_too_large(&why) => send_as_file(socket, entry),
            Err(why) => Err(why),
        }
    }
}

fn is_too_large(why: &io::Error) -> bool {
    let errno = Errno::from_io_error(why);
    errno == Some(Errno::MSGSIZE) || errno == Some(Errno::NOBUFS)
}

/// Sends the descriptor of a file that has the entry. Its seals say that it stays as it is.
fn send_as_file(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let mut file = File::from(memfd_create("journal-entry", flags)?);
    file.write_all(entry)?;
    fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(socket, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
