//! Files that an app has sent in place of the content of its answer.
//!
//! Its head stays, but for what describes the content: that is the file's.

use std::path::{Component, Path, PathBuf};

use mfserv_core::route::Symlinks;

use super::asset::Known;
use super::open_file_cache::{self, off_the_loop};
use super::preconditions::Preconditions;
use super::reply::Reply;
use crate::embedded::clients::answer;
use crate::embedded::clients::exchange::{Exchange, HeadWriter, Size, Start};
use crate::embedded::clients::fault::{Cause, Fault};

/// The head of an app that has a file sent.
pub struct OwnHead<'a> {
    /// Its status.
    pub status: u16,
    /// What the app calls that.
    pub reason: &'a [u8],
    /// Its Content-Type.
    pub content_type: Option<&'a str>,
    /// Writes its other fields, without those that describe the content; if it is true, also without
    /// those that describe the file, as a page is sent in its place.
    pub put_fields: &'a dyn Fn(&mut HeadWriter<'_>, bool),
}

impl OwnHead<'_> {
    /// True if the answer is the file: with another status it is a page that comes from a file. (An
    /// app that looks at ranges itself says 206.)
    pub fn is_of_file(&self) -> bool {
        matches!(self.status, 200 | 206)
    }

    /// Puts the head with this status, and fields that describe the content.
    pub(super) fn put(
        &self,
        status: u16,
        content_type: &str,
        length: Option<u64>,
        fields: &[(&str, &str)],
        exchange: &mut Exchange<'_>,
    ) {
        self.put_beside((status, content_type, length), fields, false, exchange);
    }

    /// Puts the page of a fault in place of the file: what the app says besides (cookies, whom
    /// browsers let read it) is about the request, whatever became of the file.
    pub fn put_fault(&self, cause: Cause, fields: &[(&str, &str)], exchange: &mut Exchange<'_>) {
        exchange.set_cause(cause);
        let page = answer::fault_page(exchange, cause);
        let fields = [fields, &[("X-Mfserv-Cause", cause.as_str())]].concat();
        let of_page = (cause.status(), answer::PAGE, Some(page.len() as u64));
        self.put_beside(of_page, &fields, true, exchange);
        if exchange.wants_content() {
            exchange.put_data(page.as_bytes());
        }
    }

    fn put_beside(
        &self,
        (status, content_type, length): (u16, &str, Option<u64>),
        fields: &[(&str, &str)],
        is_page: bool,
        exchange: &mut Exchange<'_>,
    ) {
        let reason =
            if status == self.status { self.reason } else { answer::reason(status).as_bytes() };
        let start = Start { status, reason, size: Size::Known, names_connection: false };
        exchange.put_head(start, |head| {
            (self.put_fields)(head, is_page);
            if !content_type.is_empty() {
                head.field(b"Content-Type", content_type.as_bytes());
            }
            if let Some(length) = length {
                head.number(b"Content-Length", length);
            }
            for (name, value) in fields {
                head.field(name.as_bytes(), value.as_bytes());
            }
        });
    }
}

/// Where a file is: a directory, and a path below it.
pub type Place = (PathBuf, String);

/// Sends the file in this place. If it is not to be sent, says why.
pub async fn send(
    (dir, relative): &Place,
    own: &OwnHead<'_>,
    exchange: &mut Exchange<'_>,
) -> Result<Result<(), &'static str>, Fault> {
    // Nothing leads out of the directory, whatever links lead to static files.
    Ok(Err(match open_file_cache::find(dir, relative, Symlinks::Beneath).await? {
        Known::Asset(asset) => {
            let asked = Preconditions::of(exchange.request());
            let chosen = asset.plain();
            let mut reply =
                Reply { asset: &asset, chosen, asked: &asked, own: Some(own), exchange };
            return reply.send().await.map(Ok);
        }
        Known::Directory => "it is a directory",
        Known::Nothing => "there is no such file",
        Known::Forbidden => "it may not be read, is no ordinary file, or a link leads out",
    }))
}

/// The place of a file that is named by its path, if that is below one of `dirs`: as it is written,
/// or as the system resolves it (a directory may be a link, as those of releases are).
pub async fn locate(path: PathBuf, dirs: Vec<PathBuf>) -> Result<Option<Place>, Fault> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Ok(None);
    }
    if let Some(place) = below(&path, &dirs) {
        return Ok(Some(place));
    }
    let resolved = move || {
        let path = std::fs::canonicalize(path).ok()?;
        let dirs: Vec<PathBuf> = dirs.iter().filter_map(|dir| dir.canonicalize().ok()).collect();
        below(&path, &dirs)
    };
    off_the_loop(resolved).await
}

fn below(path: &Path, dirs: &[PathBuf]) -> Option<Place> {
    let rest = |dir: &PathBuf| {
        let rest = path.strip_prefix(dir).ok()?.to_str()?.to_string();
        Some((dir.clone(), rest))
    };
    dirs.iter().filter_map(rest).min_by_key(|(_, rest)| rest.len())
}
