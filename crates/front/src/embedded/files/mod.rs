//! Static files.
//!
//! The way of a request: [`place`] says which file a path names, `shelf` has it open or
//! opens it, `wishes` judges conditions and ranges, `body` sends.

mod asset;
mod body;
mod coding;
mod dates;
mod mime;
mod open_file_cache;
pub mod opening;
mod parts;
mod preconditions;
mod ranges;
mod redirect;
pub mod resolve_path;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::route::ServerSettings;

use crate::embedded::clients::access_log::Visit;
use crate::embedded::clients::answer::{self, Answer};
use crate::embedded::clients::connection::Client;
use crate::embedded::request::state::InForce;
use crate::embedded::workers::forward::Fault;
use asset::{Asset, Known, Representation};
use mfserv_h1::{Framing, RequestHead};
use preconditions::{Validators, Verdict, Wishes};
use ranges::Asked;

/// What a directory shows.
const INDEX: &str = "index.html";

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
    let mut relative = String::with_capacity(rest.len() + INDEX.len());
    if !resolve_path::below(rest, settings.static_dotfiles, &mut relative) {
        return Err(Fault::Answer(404, "not_found"));
    }
    let wants_index = rest.ends_with('/');
    let directory = relative.len();
    if wants_index {
        relative.push_str(if directory == 0 { INDEX } else { "/index.html" });
    }
    let symlinks = settings.static_symlinks;
    let known = open_file_cache::find(root, &relative, symlinks).await?;
    match known {
        Known::Asset(asset) => {
            let wishes = Wishes::of(head);
            let (asset, chosen) = choose(asset, root, &relative, settings, &wishes).await?;
            Reply { asset: &asset, chosen: &chosen, wishes: &wishes, settings, head }
                .send(client, visit)
                .await
        }
        Known::Directory if !wants_index => {
            let by_proxy = settings.real_ip.is_some() && visit.trusted;
            let location = redirect::location(path, head, settings, by_proxy);
            let fields = [("Location", location.as_str())];
            let to_head = head.method() == b"HEAD";
            answer::put_error(&mut client.out, settings, visit, to_head, (301, "", &fields));
            Ok(())
        }
        // A directory without an index is not listed.
        Known::Nothing if wants_index => {
            match open_file_cache::find(root, &relative[..directory], symlinks).await? {
                Known::Directory => Err(Fault::Answer(403, "forbidden")),
                _ => Err(Fault::Answer(404, "not_found")),
            }
        }
        Known::Nothing => Err(Fault::Answer(404, "not_found")),
        Known::Directory | Known::Forbidden => Err(Fault::Answer(403, "forbidden")),
    }
}

/// Chooses the form of a file. A compressed copy that has changed is looked for again.
async fn choose(
    asset: Arc<Asset>,
    root: &Path,
    relative: &str,
    settings: &ServerSettings,
    wishes: &Wishes<'_>,
) -> Result<(Arc<Asset>, Arc<Representation>), Fault> {
    let chosen = asset.liked(wishes.accept_encoding.as_deref()).clone();
    if chosen.coding.is_none() || chosen.is_current() {
        return Ok((asset, chosen));
    }
    open_file_cache::forget(root, relative, settings.static_symlinks);
    match open_file_cache::find(root, relative, settings.static_symlinks).await? {
        Known::Asset(asset) => {
            let chosen = asset.liked(wishes.accept_encoding.as_deref()).clone();
            Ok((asset, chosen))
        }
        _ => Err(Fault::Answer(404, "not_found")),
    }
}

/// Answers with status 404: the page of the table, or a small one.
pub async fn not_found(
    in_force: &InForce,
    client: &mut Client,
    head: &RequestHead,
    visit: &mut Visit,
) -> Result<(), Fault> {
    let nothing = Err(Fault::Answer(404, "no_route"));
    let settings = &in_force.server;
    let page = in_force.not_found_page.as_deref();
    let Some((root, name)) = page.and_then(|page| Some((page.parent()?, page.file_name()?))) else {
        return nothing;
    };
    let found =
        open_file_cache::find(root, &name.to_string_lossy(), settings.static_symlinks).await;
    let Ok(Known::Asset(asset)) = found else { return nothing };
    let (content_type, page) = (asset.content_type, asset.plain());
    let length = Some(page.length());
    let answer = Answer { status: 404, content_type, length, fields: &[] };
    answer.put_head(&mut client.out, settings, visit);
    if head.method() == b"HEAD" {
        return Ok(());
    }
    let patience = Duration::from_millis(settings.client_timeout_ms);
    body::send(page, 0..page.length(), client, patience).await
}

/// The answer to a request for a file.
struct Reply<'a> {
    asset: &'a Asset,
    chosen: &'a Arc<Representation>,
    wishes: &'a Wishes<'a>,
    settings: &'a ServerSettings,
    head: &'a RequestHead,
}

impl Reply<'_> {
    async fn send(&self, client: &mut Client, visit: &mut Visit) -> Result<(), Fault> {
        let (chosen, settings) = (self.chosen, self.settings);
        let now = answer::unix_seconds();
        let validators = Validators { tag: &chosen.tag, modified: chosen.modified_at(), now };
        let mut fields = Vec::with_capacity(6);
        fields.extend([("Last-Modified", &*chosen.modified), ("ETag", &*chosen.tag)]);
        if self.asset.varies() {
            fields.push(("Vary", "Accept-Encoding"));
        }
        match self.wishes.judge(&validators) {
            Verdict::Holds => {}
            Verdict::Failed => return Err(Fault::Answer(412, "precondition")),
            Verdict::NotModified => {
                let answer =
                    Answer { status: 304, content_type: "", length: None, fields: &fields };
                answer.put_head(&mut client.out, settings, visit);
                return Ok(());
            }
        }
        if let Some(coding) = chosen.coding {
            fields.push(("Content-Encoding", coding.name()));
        }
        fields.push(("Accept-Ranges", "bytes"));
        // Ranges are defined for GET only.
        let asked = match self.head.method() {
            b"GET" => self.wishes.parts(&validators, chosen.length()),
            _ => Asked::All,
        };
        match asked {
            Asked::All => self.send_whole(&fields, client, visit).await,
            Asked::Impossible => {
                let range = format!("bytes */{}", chosen.length());
                let fields = [("Content-Range", &*range)];
                answer::put_error(
                    &mut client.out,
                    settings,
                    visit,
                    false,
                    (416, "range", &fields[..]),
                );
                Ok(())
            }
            Asked::Parts(ranges) => match &ranges[..] {
                [one] => {
                    let whole = chosen.length();
                    let range = format!("bytes {}-{}/{whole}", one.start, one.end - 1);
                    fields.push(("Content-Range", &range));
                    let length = Some(one.end - one.start);
                    self.put_head(206, self.asset.content_type, length, &fields, client, visit);
                    body::send(chosen, one.clone(), client, self.patience()).await
                }
                several => self.send_parts(several, &fields, client, visit).await,
            },
        }
    }

    async fn send_whole(
        &self,
        fields: &[(&str, &str)],
        client: &mut Client,
        visit: &mut Visit,
    ) -> Result<(), Fault> {
        let length = self.chosen.length();
        self.put_head(200, self.asset.content_type, Some(length), fields, client, visit);
        if self.head.method() == b"HEAD" {
            return Ok(());
        }
        body::send(self.chosen, 0..length, client, self.patience()).await
    }

    /// Several ranges, as one body of type multipart/byteranges.
    async fn send_parts(
        &self,
        ranges: &[std::ops::Range<u64>],
        fields: &[(&str, &str)],
        client: &mut Client,
        visit: &mut Visit,
    ) -> Result<(), Fault> {
        let parts = parts::Parts::new(self.asset.content_type, ranges, self.chosen.length());
        let length = Some(parts.length());
        self.put_head(206, &parts.content_type(), length, fields, client, visit);
        for (border, range) in parts.borders().zip(ranges) {
            client.out.push(border.as_bytes());
            body::send(self.chosen, range.clone(), client, self.patience()).await?;
        }
        client.out.push(parts.end().as_bytes());
        Ok(())
    }

    fn put_head(
        &self,
        status: u16,
        content_type: &str,
        length: Option<u64>,
        fields: &[(&str, &str)],
        client: &mut Client,
        visit: &mut Visit,
    ) {
        let answer = Answer { status, content_type, length, fields };
        answer.put_head(&mut client.out, self.settings, visit);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.settings.client_timeout_ms)
    }
}
