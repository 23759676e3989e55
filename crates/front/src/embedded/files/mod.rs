//! Files below a directory. They are opened and read by a small pool of threads, so
//! that a slow disk does not stop the forwarding.

pub mod place;

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::route::ServerSettings;

use super::answer::{self, Answer};
use super::client::Client;
use super::forward::Fault;
use super::h1::{Framing, Name, RequestHead};
use super::mime;
use super::state::InForce;
use super::visit::Visit;

/// What is read at a time, bytes.
const STEP: usize = 256 * 1024;
/// The largest page for unknown URLs, bytes.
const PAGE_MAX: u64 = 1024 * 1024;

/// What a path leads to.
enum Found {
    File { file: File, meta: Box<Metadata>, first: Vec<u8> },
    Directory,
    Nothing,
    Forbidden,
}

/// Answers with the file that `rest` names below `root`. `path` is the whole path.
pub async fn serve(
    root: &Path,
    rest: &str,
    path: &str,
    settings: &ServerSettings,
    client: &mut Client,
    head: &RequestHead,
    visit: &mut Visit,
) -> Result<(), Fault> {
    visit.keep &= head.framing == Framing::None;
    if !matches!(head.method(), b"GET" | b"HEAD") {
        return Err(Fault::Answer(405, "method"));
    }
    let wants_index = rest.ends_with('/');
    let Some(target) = below(root, rest, wants_index) else {
        return Err(Fault::Answer(404, "not_found"));
    };
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned());
    match look(target).await? {
        Found::File { file, meta, first } => {
            let content_type = mime::of(name.as_deref().unwrap_or_default());
            send(Sending { file, meta, first, content_type }, settings, client, head, visit).await
        }
        Found::Directory if wants_index => Err(Fault::Answer(403, "forbidden")),
        Found::Directory => {
            redirect(path, settings, client, head, visit);
            Ok(())
        }
        Found::Nothing if wants_index => {
            let directory = below(root, rest, false).unwrap_or_default();
            // A directory without an index is not listed.
            match look(directory).await? {
                Found::Directory => Err(Fault::Answer(403, "forbidden")),
                _ => Err(Fault::Answer(404, "not_found")),
            }
        }
        Found::Nothing => Err(Fault::Answer(404, "not_found")),
        Found::Forbidden => Err(Fault::Answer(403, "forbidden")),
    }
}

/// Answers with status 404: the page of the table, or a small one.
pub async fn not_found(
    in_force: &InForce,
    client: &mut Client,
    head: &RequestHead,
    visit: &mut Visit,
) -> Result<(), Fault> {
    let Some(page) = in_force.table.not_found_page.clone() else {
        return Err(Fault::Answer(404, "no_route"));
    };
    let content_type = mime::of(&page.to_string_lossy());
    match look(page).await? {
        Found::File { file, meta, first } if meta.len() <= PAGE_MAX => {
            let settings = &in_force.table.server;
            let length = Some(meta.len());
            let answer = Answer { status: 404, content_type, length, fields: &[] };
            answer.put_head(&mut client.out, settings, visit);
            if head.method() == b"HEAD" {
                return Ok(());
            }
            send_range(file, first, 0..meta.len(), settings, client).await
        }
        _ => Err(Fault::Answer(404, "no_route")),
    }
}

/// The file that a normalised rest of a path names.
fn below(root: &Path, rest: &str, index: bool) -> Option<PathBuf> {
    let mut relative = String::new();
    if !place::below(rest, false, &mut relative) {
        return None;
    }
    let mut target = root.join(relative);
    if index {
        target.push("index.html");
    }
    Some(target)
}

/// Runs on the pool of threads.
async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Fault::Answer(500, "disk"))
}

async fn look(target: PathBuf) -> Result<Found, Fault> {
    off_the_loop(move || {
        // Opening a FIFO must not wait for a writer.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&target);
        let file = match opened {
            Ok(file) => file,
            Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
                return Found::Forbidden;
            }
            Err(_) => return Found::Nothing,
        };
        match file.metadata() {
            Ok(meta) if meta.is_dir() => Found::Directory,
            Ok(meta) if meta.is_file() => {
                let first = read_step(&file, 0..meta.len()).unwrap_or_default();
                Found::File { file, meta: Box::new(meta), first }
            }
            _ => Found::Forbidden,
        }
    })
    .await
}

fn read_step(file: &File, range: std::ops::Range<u64>) -> std::io::Result<Vec<u8>> {
    let wanted = (range.end - range.start).min(STEP as u64) as usize;
    let mut bytes = vec![0; wanted];
    let count = file.read_at(&mut bytes, range.start)?;
    bytes.truncate(count);
    Ok(bytes)
}

struct Sending {
    file: File,
    meta: Box<Metadata>,
    /// Its first bytes.
    first: Vec<u8>,
    content_type: &'static str,
}

async fn send(
    sending: Sending,
    settings: &ServerSettings,
    client: &mut Client,
    head: &RequestHead,
    visit: &mut Visit,
) -> Result<(), Fault> {
    let Sending { file, meta, first, content_type } = sending;
    let modified = answer::http_date(meta.mtime());
    let tag = format!("\"{:x}-{:x}-{:x}\"", meta.mtime(), meta.mtime_nsec(), meta.len());
    let mut fields = vec![("Last-Modified", modified.as_str()), ("ETag", tag.as_str())];
    if is_unchanged(head, &tag, meta.mtime()) {
        let answer = Answer { status: 304, content_type: "", length: None, fields: &fields };
        answer.put_head(&mut client.out, settings, visit);
        return Ok(());
    }
    fields.push(("Accept-Ranges", "bytes"));
    let whole = meta.len();
    let content_range;
    let (status, range) = match asked_range(head, &tag, &modified, whole) {
        Asked::All => (200, 0..whole),
        Asked::Part(range) => {
            content_range = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
            fields.push(("Content-Range", content_range.as_str()));
            (206, range)
        }
        Asked::Impossible => {
            let all = format!("bytes */{whole}");
            let fields = [("Content-Range", all.as_str())];
            let what = (416, "range", &fields[..]);
            let to_head = head.method() == b"HEAD";
            answer::put_error(&mut client.out, settings, visit, to_head, what);
            return Ok(());
        }
    };
    let length = Some(range.end - range.start);
    Answer { status, content_type, length, fields: &fields }.put_head(
        &mut client.out,
        settings,
        visit,
    );
    if head.method() == b"HEAD" {
        return Ok(());
    }
    send_range(file, first, range, settings, client).await
}

/// Sends a part of a file whose first bytes have been read.
async fn send_range(
    file: File,
    first: Vec<u8>,
    range: std::ops::Range<u64>,
    settings: &ServerSettings,
    client: &mut Client,
) -> Result<(), Fault> {
    let patience = Duration::from_millis(settings.client_timeout_ms);
    let mut at = range.start;
    if at < first.len() as u64 {
        let end = range.end.min(first.len() as u64);
        client.out.push(&first[at as usize..end as usize]);
        at = end;
    }
    drop(first);
    let mut file = file;
    while at < range.end {
        let left = at..range.end;
        let (back, read) = off_the_loop(move || {
            let read = read_step(&file, left);
            (file, read)
        })
        .await?;
        file = back;
        match read {
            Ok(bytes) if !bytes.is_empty() => {
                client.out.push(&bytes);
                at += bytes.len() as u64;
            }
            // It has become shorter: the promised length cannot be kept.
            _ => return Err(Fault::Cut),
        }
        client.flush(patience).await.map_err(|_| Fault::Gone)?;
    }
    Ok(())
}

fn is_unchanged(head: &RequestHead, tag: &str, modified: i64) -> bool {
    let mut tags = head.fields.tokens(Name::IfNoneMatch).peekable();
    if tags.peek().is_some() {
        return tags
            .any(|one| one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == tag.as_bytes());
    }
    head.fields
        .first(Name::IfModifiedSince)
        .and_then(|since| answer::parse_http_date(std::str::from_utf8(since).ok()?))
        .is_some_and(|since| modified <= since)
}

enum Asked {
    All,
    Part(std::ops::Range<u64>),
    Impossible,
}

/// The one range that is asked for. Several are answered with the whole, as is a range
/// of another version.
fn asked_range(head: &RequestHead, tag: &str, modified: &str, whole: u64) -> Asked {
    if head.method() != b"GET" {
        return Asked::All;
    }
    if let Some(version) = head.fields.first(Name::IfRange) {
        if version != tag.as_bytes() && version != modified.as_bytes() {
            return Asked::All;
        }
    }
    let mut ranges = head.fields.values(Name::Range);
    match (ranges.next().and_then(|text| std::str::from_utf8(text).ok()), ranges.next()) {
        (Some(text), None) => parse_range(text, whole),
        _ => Asked::All,
    }
}

fn parse_range(text: &str, whole: u64) -> Asked {
    let number = |digits: &str| {
        let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        good.then(|| digits.parse::<u64>().unwrap_or(u64::MAX))
    };
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.split_once('-'))
    else {
        return Asked::All;
    };
    let range = match (number(first.trim()), number(last.trim())) {
        (Some(from), None) if last.trim().is_empty() => from..whole,
        (Some(from), Some(to)) if from <= to => from..to.saturating_add(1).min(whole),
        (None, Some(count)) if first.trim().is_empty() => whole.saturating_sub(count)..whole,
        _ => return Asked::All,
    };
    if range.start >= range.end { Asked::Impossible } else { Asked::Part(range) }
}

/// To the same URL with a slash.
fn redirect(
    path: &str,
    settings: &ServerSettings,
    client: &mut Client,
    head: &RequestHead,
    visit: &mut Visit,
) {
    let host = String::from_utf8_lossy(head.host_name()).into_owned();
    let port = match head.host_port() {
        Some(port) if settings.port_in_redirect && port != 80 => format!(":{port}"),
        _ => String::new(),
    };
    let query = head.target().iter().position(|&b| b == b'?').map(|at| &head.target()[at..]);
    let query = String::from_utf8_lossy(query.unwrap_or_default()).into_owned();
    let path = percent_encode(path);
    let location = match host.is_empty() {
        true => format!("{path}/{query}"),
        false => format!("http://{host}{port}{path}/{query}"),
    };
    let to_head = head.method() == b"HEAD";
    let fields = [("Location", location.as_str())];
    answer::put_error(&mut client.out, settings, visit, to_head, (301, "", &fields));
}

/// A decoded path as it may stand in a URL.
fn percent_encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_understood() {
        for (text, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=5-", Some(5..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-30", Some(0..10)),
            ("bytes=5-100", Some(5..10)),
        ] {
            let Asked::Part(range) = parse_range(text, 10) else { panic!("{text}") };
            assert_eq!(Some(range), expected, "{text}");
        }
        for text in ["bytes=10-", "bytes=-0", "bytes=99999999999999999999-"] {
            assert!(matches!(parse_range(text, 10), Asked::Impossible), "{text}");
        }
        for text in ["bytes=1-2,4-5", "items=1-2", "bytes=2-1", "bytes=a-b", "bytes=-", "x"] {
            assert!(matches!(parse_range(text, 10), Asked::All), "{text}");
        }
    }
}
