//! The offer of a queue, which the front sends to a worker as the first bytes of a connection.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt,
};

use crate::page::{LINES, Page};

/// How an offer begins: no HTTP, so that a server which knows no offers refuses it by itself and asks
/// its app nothing.
const NAME: &str = "MFSERV-PULL 1 ";
/// Offers of all versions begin so.
const ANY: &[u8] = b"MFSERV-PULL ";
/// Room for the messages of many workers in the kernel, bytes.
const ROOM: usize = 4 << 20;

/// What a worker needs to take requests.
#[derive(Debug)]
pub struct Offer {
    /// The end of the queue from which it receives.
    pub queue: OwnedFd,
    /// The page of the app.
    pub page: Page,
    /// The line of the page that is this worker's.
    pub line: usize,
}

/// The two ends of a new queue: the front's, and the workers'.
pub fn queue() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (front, workers) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The system gives less if it must.
    sockopt::set_socket_send_buffer_size(&front, ROOM)?;
    Ok((front, workers))
}

impl Offer {
    /// Sends the offer of a queue and its page over a connection that has carried nothing.
    pub fn send(
        connection: impl AsFd,
        (queue, page): (BorrowedFd<'_>, BorrowedFd<'_>),
        line: usize,
    ) -> io::Result<()> {
        let text = format!("{NAME}{line:04x}\r\n\r\n");
        let both = [queue, page];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut carried = SendAncillaryBuffer::new(&mut space);
        carried.push(SendAncillaryMessage::ScmRights(&both));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = sendmsg(connection, &[IoSlice::new(text.as_bytes())], &mut carried, flags)?;
        match sent == text.len() {
            true => Ok(()),
            // A new connection has room for it.
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// Reads the first bytes of a connection: an offer, or `Err` with how many bytes of HTTP; 0 if the
/// other side has ended.
pub fn read_first(
    connection: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<Result<Offer, usize>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut carried = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut *bytes)];
    let count = recvmsg(connection, &mut parts, &mut carried, flags)?.bytes;
    let mut descriptors = Vec::new();
    for message in carried.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if descriptors.is_empty() && !bytes[..count].starts_with(ANY) {
        return Ok(Err(count));
    }
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "an offer that is none");
    let mut descriptors = descriptors.into_iter();
    let (Some(queue), Some(page)) = (descriptors.next(), descriptors.next()) else {
        return Err(wrong());
    };
    if sockopt::socket_type(&queue) != Ok(SocketType::SEQPACKET) {
        return Err(wrong());
    }
    let text = std::str::from_utf8(&bytes[..count]).map_err(|_| wrong())?;
    let line = text.strip_prefix(NAME).and_then(|rest| rest.strip_suffix("\r\n\r\n"));
    let line = line.and_then(|line| usize::from_str_radix(line, 16).ok());
    let line = line.filter(|line| *line < LINES).ok_or_else(wrong)?;
    Ok(Ok(Offer { queue, page: Page::open(&page)?, line }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_offer_brings_queue_and_page_and_other_first_bytes_are_left_as_they_are() {
        let (front, worker) = UnixStream::pair().unwrap();
        let ((_sender, receiver), (page, memory)) = (queue().unwrap(), Page::create().unwrap());
        Offer::send(&front, (receiver.as_fd(), memory.as_fd()), 255).unwrap();
        let mut bytes = [0; 100];
        let offer = read_first(worker.as_fd(), &mut bytes).unwrap().unwrap();
        assert_eq!(offer.line, 255);
        assert_eq!(bytes.iter().position(|byte| *byte == 0), Some(22));
        offer.page.claim(255, 77);
        assert_eq!(page.running(255).map(|(id, _)| id), Some(77));

        let (mut client, worker) = UnixStream::pair().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert_eq!(read_first(worker.as_fd(), &mut bytes).unwrap().unwrap_err(), 16);
        drop(client);
        assert_eq!(read_first(worker.as_fd(), &mut bytes).unwrap().unwrap_err(), 0);
    }

    #[test]
    fn an_offer_without_a_queue_is_refused() {
        let (mut front, worker) = UnixStream::pair().unwrap();
        front.write_all(b"MFSERV-PULL 1 0000\r\n\r\n").unwrap();
        read_first(worker.as_fd(), &mut [0; 100]).unwrap_err();

        let (front, worker) = UnixStream::pair().unwrap();
        let (_page, memory) = Page::create().unwrap();
        Offer::send(&front, (worker.as_fd(), memory.as_fd()), 0).unwrap();
        read_first(worker.as_fd(), &mut [0; 100]).unwrap_err();
    }

    #[test]
    fn an_offer_of_a_line_that_no_page_has_or_with_a_file_for_a_page_is_refused() {
        let (_sender, receiver) = queue().unwrap();
        let (_page, memory) = Page::create().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for (page, line) in [(memory.as_fd(), LINES), (null.as_fd(), 0)] {
            let (front, worker) = UnixStream::pair().unwrap();
            Offer::send(&front, (receiver.as_fd(), page), line).unwrap();
            read_first(worker.as_fd(), &mut [0; 100]).unwrap_err();
        }
    }
}
