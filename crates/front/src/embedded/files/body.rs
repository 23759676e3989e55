//! The content of a file, on its way to a client.
//!
//! A small file is copied behind the head and leaves with it in one write. A large one is
//! sent by the system (sendfile), a piece at a time, so that one download does not delay
//! the others of its thread. What is not in the page cache is first read by the thread
//! pool.

use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use super::asset::Representation;
use super::open_file_cache::off_the_loop;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::Fault;

/// Up to this length copying is cheaper than sendfile, bytes.
const COPIED_MAX: u64 = 16 * 1024;
/// How much is sent before other tasks have their turn, bytes. With much less the system
/// spreads the packets of each client over time, which costs a timer per packet.
const TURN: u64 = 2 * 1024 * 1024;
/// The length of the steps in which the page cache is looked at and filled, bytes.
const STEP: u64 = 512 * 1024;

/// Sends a part of a file as content; a small part is put and not sent yet. A file that
/// has become shorter cuts the answer.
pub async fn send(
    of: &Arc<Representation>,
    mut part: Range<u64>,
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    if part.end - part.start <= COPIED_MAX {
        return copy(of, part, exchange).await;
    }
    while part.start < part.end {
        let mut turn = in_memory(of, part.start..part.end.min(part.start + TURN));
        if turn.is_empty() {
            turn.end = part.end.min(part.start + STEP);
            let (of, range) = (of.clone(), turn.clone());
            let fetched = off_the_loop(move || of.fetch(range)).await;
            // The head is put: no other answer can follow.
            fetched.map_err(|_| Fault::Cut)?.map_err(|_| Fault::Cut)?;
        }
        let end = turn.end;
        exchange.send_file(of.file(), turn).await?;
        part.start = end;
        if part.start < part.end {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// The beginning of a part as far as it is in the page cache, in whole steps.
fn in_memory(of: &Representation, part: Range<u64>) -> Range<u64> {
    let mut end = part.start;
    while end < part.end {
        let step = end..part.end.min(end + STEP);
        if !of.is_in_memory(&step) {
            break;
        }
        end = step.end;
    }
    part.start..end
}

async fn copy(
    of: &Arc<Representation>,
    mut part: Range<u64>,
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    while part.start < part.end {
        let left = (part.end - part.start) as usize;
        let room = &mut exchange.room(left)[..left];
        match of.read_from_memory(room, part.start) {
            Ok(0) => return Err(Fault::Cut),
            Ok(count) => {
                exchange.filled(count);
                part.start += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let (of, rest) = (of.clone(), part.clone());
                let read = off_the_loop(move || read(&of, rest)).await;
                let bytes = read.map_err(|_| Fault::Cut)?.map_err(|_| Fault::Cut)?;
                exchange.put_data(&bytes);
                part.start = part.end;
            }
            Err(_) => return Err(Fault::Cut),
        }
    }
    Ok(())
}

/// Reads a whole part and waits for the disk.
pub(super) fn read(of: &Representation, part: Range<u64>) -> rustix::io::Result<Vec<u8>> {
    of.fetch(part.clone())?;
    let mut bytes = vec![0; (part.end - part.start) as usize];
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(of.file(), &mut bytes[done..], part.start + done as u64)? {
            0 => return Err(Errno::IO),
            count => done += count,
        }
    }
    Ok(bytes)
}
