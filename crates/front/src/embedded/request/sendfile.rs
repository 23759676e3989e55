//! The file that an app has named in its answer is found and sent.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use mfserv_core::route::{Sendfile, percent_decode};

use super::lane::Lane;
use crate::embedded::clients::exchange::{Exchange, HeadWriter};
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::files::sendfile::{self as files, OwnHead, Place};
use crate::embedded::workers::destination::Reply;
use crate::embedded::workers::heads;
use crate::embedded::workers::pool::App;
use crate::embedded::workers::sendfile::Named;

const OUTSIDE: &str = "it is below none of the directories of _sendfile_roots";
const NO_TEXT: &str = "its path is not UTF-8, and such files are not sent: rename it";

/// Sends the file that an app has named, with the head of its answer. One that it may not name, or
/// that is not there, is answered with 404, and the error log says which one and why.
pub async fn send(
    lane: &Lane,
    exchange: &mut Exchange<'_>,
    reply: &Reply,
    app: &App,
    named: &Named,
) -> Result<(), Fault> {
    let Some(sendfile) = &app.spec.sendfile else { return Err(Cause::NotFound.into()) };
    let (head, settings) = (reply.head(), exchange.settings());
    let put_fields = |to: &mut HeadWriter<'_>, is_page: bool| {
        heads::put_fields_beside_file(to, head, settings, is_page);
    };
    let content_type = {
        let mut fields = head.fields.iter();
        let found = fields.find(|(_, written, _)| written.eq_ignore_ascii_case(b"content-type"));
        found.and_then(|(_, _, value)| std::str::from_utf8(value).ok())
    };
    let (status, reason) = (head.status, head.reason());
    let own = OwnHead {
        status,
        reason,
        content_type: content_type.filter(|text| !text.is_empty()),
        put_fields: &put_fields,
    };
    let mut why = OUTSIDE;
    for said in spellings(named) {
        let Some(place) = place(sendfile, named, &said).await? else {
            why = if is_text(named, &said) { why } else { NO_TEXT };
            continue;
        };
        match files::send(&place, &own, exchange).await? {
            Ok(()) => return Ok(()),
            Err(reason) => why = if is_text(named, &said) { reason } else { NO_TEXT },
        }
    }
    let field = if named.is_accel { "X-Accel-Redirect" } else { "X-Sendfile" };
    let said = String::from_utf8_lossy(&named.said);
    let id = String::from_utf8_lossy(exchange.id());
    let text = format!(
        "answered 404: app {} names {said} in {field}: {why} (request {id})",
        app.upstream.name
    );
    lane.front.errors.report(&text);
    own.put_fault(Cause::NotFound, &[], exchange);
    Ok(())
}

/// True if the path that is looked for is UTF-8.
fn is_text(named: &Named, said: &[u8]) -> bool {
    let decoded = percent_decode(said).ok().filter(|_| named.is_accel);
    std::str::from_utf8(decoded.as_deref().unwrap_or(said)).is_ok()
}

/// A path on the disk is taken as it is written, and then as others read it: percent-encoded.
fn spellings(named: &Named) -> Vec<Cow<'_, [u8]>> {
    let decoded = percent_decode(&named.said).ok();
    let decoded = decoded.filter(|text| !named.is_accel && **text != *named.said);
    let written = Cow::Borrowed(&*named.said);
    std::iter::once(written).chain(decoded.map(Cow::Owned)).collect()
}

async fn place(sendfile: &Sendfile, named: &Named, said: &[u8]) -> Result<Option<Place>, Fault> {
    if named.is_accel {
        return Ok(sendfile.by_path(said, &named.home));
    }
    if said.contains(&0) {
        return Ok(None);
    }
    let path = PathBuf::from(OsStr::from_bytes(said));
    // Apps know their directories by the release of their worker, or by that of the routes.
    let homes = [&named.home, &sendfile.home];
    let dirs = homes.into_iter().flat_map(|home| sendfile.dirs(home)).collect();
    files::locate(path, dirs).await
}
