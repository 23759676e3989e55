//! The content of a file, on its way to a client.
//!
//! Little of it is copied behind the head and leaves with it in one write. Much of it
//! the system sends by itself (sendfile), some at a time, so that one download does not
//! hold up the others of its thread. What is not in memory is first read by the pool.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::asset::Representation;
use super::open_file_cache::off_the_loop;
use crate::embedded::clients::connection::Client;
use crate::embedded::workers::forward::Fault;

/// Up to here copying is cheaper than sendfile, bytes.
const COPIED_MAX: u64 = 16 * 1024;
/// What is sent before others have their turn, bytes. Much less makes the system spread
/// the packets of each client over time, which costs a timer per packet.
const TURN: u64 = 2 * 1024 * 1024;
/// What is looked for in memory, or brought there, at a time, bytes.
const STEP: u64 = 512 * 1024;

/// Sends a part of a file, behind what the client has still to receive; some of it may
/// be left there. A file that has become shorter cuts the answer.
pub async fn send(
    of: &Arc<Representation>,
    mut part: Range<u64>,
    client: &mut Client,
    patience: Duration,
) -> Result<(), Fault> {
    if part.end - part.start <= COPIED_MAX {
        return copy(of, part, client).await;
    }
    while part.start < part.end {
        let mut turn = in_memory(of, part.start..part.end.min(part.start + TURN));
        if turn.is_empty() {
            turn.end = part.end.min(part.start + STEP);
            let (of, range) = (of.clone(), turn.clone());
            off_the_loop(move || of.fetch(range)).await?.map_err(|_| Fault::Cut)?;
        }
        let end = turn.end;
        client.send_file(of.file(), turn, patience).await.map_err(|_| Fault::Gone)?;
        part.start = end;
        if part.start < part.end {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// As much of the beginning of a part as is in memory, in steps.
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
    client: &mut Client,
) -> Result<(), Fault> {
    while part.start < part.end {
        let left = (part.end - part.start) as usize;
        let room = &mut client.out.spare(left)[..left];
        match of.read_from_memory(room, part.start) {
            Ok(0) => return Err(Fault::Cut),
            Ok(count) => {
                client.out.advance(count);
                part.start += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let (of, rest) = (of.clone(), part.clone());
                let read = off_the_loop(move || read(&of, rest)).await?;
                let bytes = read.map_err(|_| Fault::Cut)?;
                client.out.push(&bytes);
                part.start = part.end;
            }
            Err(_) => return Err(Fault::Cut),
        }
    }
    Ok(())
}

/// Reads the whole of a part, waiting for the disk.
fn read(of: &Representation, part: Range<u64>) -> rustix::io::Result<Vec<u8>> {
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
