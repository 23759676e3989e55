//! The content of an answer that nobody wants: the app has a file sent in its place.

use mfserv_h1::{BodyReader, Framing, Piece};

use super::letting_go::let_go;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::io::wire::Wire;
use crate::embedded::workers::destination::{Destination, Reply};
use crate::embedded::workers::upload::Upload;
use crate::embedded::workers::upstream::{Link, Slot};

/// How much of such content is read, bytes. After more than this the connection is closed.
const READ_MAX: usize = 64 * 1024;

/// Lets the worker of an answer go whose content is not wanted. What has come is dropped; what has
/// not is not waited for, as apps announce the length of the file and send nothing: such a
/// connection is closed.
pub fn discard(
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    to: Destination<'_>,
    (slot, mut link): (Slot, Link),
    upload: &Upload<'_>,
) {
    exchange.leave_worker();
    let is_sent = upload.is_finished();
    if matches!(link.wire, Wire::FastCgi(_)) {
        // The request ends with a record, not with the content: it is read to there.
        reply.ahead.clear();
        reply.head.framing = Framing::None;
        return let_go(reply, to, (slot, link), (is_sent, exchange.is_closing()));
    }
    let mut reader = BodyReader::new(reply.head.framing);
    let mut read = 0;
    while drop_content(&mut reader, reply) && read < READ_MAX {
        match link.wire.try_read(reply.ahead.spare(READ_MAX / 4)) {
            Ok(count) if count > 0 => {
                reply.ahead.advance(count);
                read += count;
            }
            _ => break,
        }
    }
    match reader.is_done() {
        true => let_go(reply, to, (slot, link), (is_sent, exchange.is_closing())),
        false => {
            reply.ahead.clear();
            drop(link);
            slot.end();
        }
    }
}

/// Drops what has come of the content. True if more of it may come.
fn drop_content(reader: &mut BodyReader, reply: &mut Reply) -> bool {
    while !reader.is_done() && !reply.ahead.is_empty() {
        match reader.next(reply.ahead.filled()) {
            Ok(Piece::Content(range)) => reply.ahead.consume(range.end),
            Ok(Piece::More(used) | Piece::End(used)) => reply.ahead.consume(used),
            Err(_) => return false,
        }
    }
    !reader.is_done()
}
