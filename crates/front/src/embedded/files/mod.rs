//! Static files, answered from a directory.
//!
//! The way of a request: `resolve_path` says which file a path names, `open_file_cache` has
//! the file open or opens it, `preconditions` evaluates `If-…` and ranges, `body` sends.
//! This room may use `io` and the `Exchange` of `clients`, and open files below the root
//! that a route names; it must not know of routes, workers or lanes, and must not write
//! bytes to a client itself.

mod asset;
mod body;
mod coding;
pub mod compressing;
mod dates;
pub mod mime;
mod open_file_cache;
pub mod opening;
mod parts;
mod preconditions;
mod ranges;
mod redirect;
mod redirects;
mod reply;
pub mod resolve_path;
pub mod sendfile;

use std::path::Path;
use std::sync::Arc;

use mfserv_core::route::{ServerSettings, names_script};

use crate::embedded::clients::answer::{self, Head};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use asset::{Asset, Known, Representation};
use preconditions::Preconditions;
use redirects::Action;
use reply::Reply;

/// The file that is served for a directory.
const INDEX: &str = "index.html";

/// What is served of a directory.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The directory.
    pub root: &'a Path,
    /// The file that answers a path without one, if there is such a file: a document of the path,
    /// while what has an extension is a file that is missing.
    pub fallback: Option<&'a str>,
    /// It is a static site, whose `_redirects` is obeyed: this is told which lines are not.
    pub complain: Option<&'a dyn Fn(&str)>,
    /// Scripts of the app lie here too: they are run, and nobody gets their text.
    pub hides_scripts: bool,
}

impl Site<'_> {
    /// True if a file, named from the directory on, is sent to nobody, whatever has led to it.
    fn hides(&self, relative: &str) -> bool {
        let is_hidden_script = || self.hides_scripts && names_script(relative);
        redirects::is_rules(self, relative) || is_hidden_script()
    }
}

/// What is left to do after [`serve`].
pub enum Served {
    /// Nothing: the answer is put.
    Answered,
    /// To answer that nothing is there, with this file below the directory: a rule says so.
    NotFound(String),
}

/// Answers with what `path` names: what follows `rest_at` is below the directory.
pub async fn serve(
    site: Site<'_>,
    (path, rest_at): (&str, usize),
    exchange: &mut Exchange<'_>,
) -> Result<Served, Fault> {
    let action = redirects::of_path(&site, (path, rest_at), exchange).await?;
    if let Some(Action::Redirect { status, location }) = &action {
        // A rule may be corrected: what a browser has stored of it must not outlive it.
        let fields = [("Location", location.as_str()), ("Cache-Control", "no-cache")];
        answer::put_page(exchange, (*status, ""), &fields);
        return Ok(Served::Answered);
    }
    if !matches!(exchange.request().method(), b"GET" | b"HEAD") {
        return Err(Cause::Method.into());
    }
    match action {
        Some(Action::Rewrite(named)) => {
            let named = named_by_rule(&site, &named, exchange).await?;
            let Some((asset, relative)) = named else { return Err(Cause::NotFound.into()) };
            send(asset, site.root, &relative, exchange).await?;
        }
        Some(Action::NotFound(named)) => {
            let named = named_by_rule(&site, &named, exchange).await?;
            let Some((_, relative)) = named else { return Err(Cause::NotFound.into()) };
            return Ok(Served::NotFound(relative));
        }
        _ => file(site, (path, rest_at), exchange).await?,
    }
    Ok(Served::Answered)
}

/// Answers with the file that the path names.
async fn file(
    site: Site<'_>,
    (path, rest_at): (&str, usize),
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    let (head, settings) = (exchange.request(), exchange.settings());
    let (root, rest) = (site.root, &path[rest_at..]);
    let mut relative = String::with_capacity(rest.len() + INDEX.len());
    let is_path = resolve_path::below(rest, settings.static_dotfiles, &mut relative);
    if !is_path || site.hides(&relative) {
        return Err(Cause::NotFound.into());
    }
    let wants_index = rest.ends_with('/');
    let directory = relative.len();
    if wants_index {
        push_index(&mut relative);
    }
    let symlinks = settings.static_symlinks;
    let known = open_file_cache::find(root, &relative, symlinks).await?;
    match known {
        Known::Asset(asset) => send(asset, root, &relative, exchange).await,
        Known::Directory if !wants_index => {
            let location = redirect::location(
                path,
                head,
                settings,
                (exchange.is_by_proxy(), exchange.is_secure()),
            );
            answer::put_page(exchange, (301, ""), &[("Location", &location)]);
            Ok(())
        }
        Known::Nothing if site.fallback.is_some() && may_be_a_page(&relative, wants_index) => {
            let page = site.fallback.unwrap_or(INDEX);
            if site.hides(page) {
                return Err(Cause::NotFound.into());
            }
            let Known::Asset(asset) = open_file_cache::find(root, page, symlinks).await? else {
                return Err(Cause::NotFound.into());
            };
            send(asset, root, page, exchange).await
        }
        // A directory without an index is not listed.
        Known::Nothing if wants_index => {
            match open_file_cache::find(root, &relative[..directory], symlinks).await? {
                Known::Directory => Err(Cause::Forbidden.into()),
                _ => Err(Cause::NotFound.into()),
            }
        }
        Known::Nothing => Err(Cause::NotFound.into()),
        Known::Directory | Known::Forbidden => Err(Cause::Forbidden.into()),
    }
}

/// The file that a rule names, with its name below the directory; nothing, if nobody gets it.
async fn named_by_rule(
    site: &Site<'_>,
    named: &str,
    exchange: &Exchange<'_>,
) -> Result<Option<(Arc<Asset>, String)>, Fault> {
    let settings = exchange.settings();
    let mut relative = String::new();
    let is_path = resolve_path::below(named, settings.static_dotfiles, &mut relative);
    if !is_path || site.hides(&relative) {
        return Ok(None);
    }
    if relative.is_empty() || named.ends_with('/') {
        push_index(&mut relative);
    }
    let symlinks = settings.static_symlinks;
    let mut known = open_file_cache::find(site.root, &relative, symlinks).await?;
    if matches!(known, Known::Directory) {
        push_index(&mut relative);
        known = open_file_cache::find(site.root, &relative, symlinks).await?;
    }
    Ok(match known {
        Known::Asset(asset) => Some((asset, relative)),
        _ => None,
    })
}

/// Makes of the name of a directory, which may be the root (nothing), that of its index.
fn push_index(directory: &mut String) {
    if !directory.is_empty() {
        directory.push('/');
    }
    directory.push_str(INDEX);
}

/// Whether a path without a file may be a page that a script knows: its name has no extension.
/// A script or a picture that is missing must not be answered with a page.
fn may_be_a_page(relative: &str, is_directory: bool) -> bool {
    let name = relative.rsplit('/').next().unwrap_or(relative);
    is_directory || !name.contains('.')
}

/// Sends a file in the form that the client prefers.
async fn send(
    asset: Arc<Asset>,
    root: &Path,
    relative: &str,
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    let asked = Preconditions::of(exchange.request());
    let (asset, mut chosen) = choose(asset, root, relative, exchange.settings(), &asked).await?;
    // The tag of what is made is a weak one, which no client can insist on.
    let takes_made = !asked.asks_for_parts() && !asked.insists();
    let compresses = exchange.settings().static_compression && takes_made;
    let accept = asked.accept_encoding.as_deref();
    if chosen.coding.is_none() && compresses {
        let codings = asset.codings_for(accept);
        chosen = compressing::compressed(&chosen, codings).unwrap_or(chosen);
    }
    Reply { asset: &asset, chosen: &chosen, asked: &asked, own: None, exchange }.send().await
}

/// Chooses the form of a file. If the chosen compressed copy has changed, the file is
/// opened again.
async fn choose(
    asset: Arc<Asset>,
    root: &Path,
    relative: &str,
    settings: &ServerSettings,
    asked: &Preconditions<'_>,
) -> Result<(Arc<Asset>, Arc<Representation>), Fault> {
    let chosen = form(&asset, asked);
    if chosen.coding.is_none() || chosen.is_current() {
        return Ok((asset, chosen));
    }
    open_file_cache::forget(root, relative, settings.static_symlinks);
    match open_file_cache::find(root, relative, settings.static_symlinks).await? {
        Known::Asset(asset) => {
            let chosen = form(&asset, asked);
            Ok((asset, chosen))
        }
        _ => Err(Cause::NotFound.into()),
    }
}

/// The form that a client prefers; the file itself, if it insists on another version (`If-Match`).
fn form(asset: &Asset, asked: &Preconditions<'_>) -> Arc<Representation> {
    let preferred = asset.preferred(asked.accept_encoding.as_deref());
    if asked.lets_have(&preferred.tag) { preferred.clone() } else { asset.plain().clone() }
}

/// Answers as this cause says, with this page or a small one.
pub async fn page_of(
    cause: Cause,
    page: Option<&Path>,
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    let Some((root, name)) = page.and_then(|page| Some((page.parent()?, page.file_name()?))) else {
        return Err(cause.into());
    };
    page_below(cause, &[], (root, &name.to_string_lossy()), exchange).await
}

/// Answers as this cause says, with these fields and this file below a directory. Without the file nothing is answered,
/// and the cause is the fault.
pub async fn page_below(
    cause: Cause,
    more: &[(&str, &str)],
    place: (&Path, &str),
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    // The page for unknown URLs is a page of the node, and has no cause to be told.
    let fields = if cause == Cause::NoRoute { Vec::new() } else { answer::fields_of(cause) };
    let fields = fields.iter().map(|(name, value)| (*name, &**value));
    let fields: Vec<_> = fields.chain(more.iter().copied()).collect();
    exchange.set_cause(cause);
    match put_page(cause.status(), &fields, place, exchange).await {
        Ok(false) | Err(Fault::Answer(_)) => Err(cause.into()),
        Ok(true) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Answers with this status and a file below a directory as it is. False, with nothing put, if it is
/// not there or cannot be opened now: a page must not replace the error that it is for by another one.
pub async fn put_page(
    status: u16,
    fields: &[(&str, &str)],
    (root, name): (&Path, &str),
    exchange: &mut Exchange<'_>,
) -> Result<bool, Fault> {
    let symlinks = exchange.settings().static_symlinks;
    let Ok(Known::Asset(asset)) = open_file_cache::find(root, name, symlinks).await else {
        return Ok(false);
    };
    let (content_type, page) = (asset.content_type, asset.plain());
    Head { status, content_type, length: Some(page.length()), fields }.put(exchange);
    if exchange.wants_content() {
        body::send(page, 0..page.length(), exchange).await?;
    }
    Ok(true)
}
