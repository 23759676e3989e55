//! The rules of a static site (`_redirects` at its root): read once, and again when the file has changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mfserv_core::route::redirects::{Asked, FILE, FILE_MAX, Problem, Redirects};

use super::asset::{Known, Representation};
use super::opening::Version;
use super::{Site, body, open_file_cache, resolve_path};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::Fault;

/// The most sites whose rules a thread keeps.
const SITES_MAX: usize = 256;
/// So many lines that are not obeyed are named, the others are counted.
const NAMED_MAX: usize = 5;

thread_local! {
    static KNOWN: RefCell<HashMap<PathBuf, (Version, Rc<Redirects>), RandomState>> =
        RefCell::default();
}

pub use mfserv_core::route::redirects::{Action, Found};

/// What the rules of a site say of a path: the rest after `rest_at` is that of the site. Nothing, if a
/// file is there that they do not overrule.
pub async fn of_path(
    site: &Site<'_>,
    (path, rest_at): (&str, usize),
    exchange: &Exchange<'_>,
) -> Result<Option<Action>, Fault> {
    let Some(complain) = site.complain else { return Ok(None) };
    let Some(rules) = of_site(site.root, complain, exchange).await? else { return Ok(None) };
    let target = exchange.request().target();
    let query = target.iter().position(|&byte| byte == b'?').map(|at| &target[at + 1..]);
    let (prefix, rest) = path.split_at(rest_at);
    let asked = Asked { prefix: prefix.trim_end_matches('/'), rest, query };
    let Some(Found { is_forced, action }) = rules.find(asked) else { return Ok(None) };
    let is_hidden = !is_forced && has_file(site.root, rest, exchange).await?;
    Ok((!is_hidden).then_some(action))
}

/// True if a path names the file with the rules.
pub fn is_rules(site: &Site<'_>, relative: &str) -> bool {
    site.complain.is_some() && relative == FILE
}

/// True if a file answers a path without any rule.
async fn has_file(root: &Path, rest: &str, exchange: &Exchange<'_>) -> Result<bool, Fault> {
    let settings = exchange.settings();
    let mut relative = String::new();
    if !resolve_path::below(rest, settings.static_dotfiles, &mut relative) || relative == FILE {
        return Ok(false);
    }
    let found = match rest.ends_with('/') || relative.is_empty() {
        true => Known::Directory,
        false => open_file_cache::find(root, &relative, settings.static_symlinks).await?,
    };
    if !matches!(found, Known::Directory) {
        return Ok(matches!(found, Known::Asset(_)));
    }
    super::push_index(&mut relative);
    let index = open_file_cache::find(root, &relative, settings.static_symlinks).await?;
    Ok(matches!(index, Known::Asset(_)))
}

/// The rules of the site in `root`, if it has any.
async fn of_site(
    root: &Path,
    complain: &dyn Fn(&str),
    exchange: &Exchange<'_>,
) -> Result<Option<Rc<Redirects>>, Fault> {
    let symlinks = exchange.settings().static_symlinks;
    let Known::Asset(asset) = open_file_cache::find(root, FILE, symlinks).await? else {
        return Ok(None);
    };
    let version = asset.plain().version();
    let known = KNOWN.with_borrow(|known| {
        known.get(root).filter(|(of, _)| *of == version).map(|(_, rules)| rules.clone())
    });
    if let Some(rules) = known {
        return Ok(Some(rules).filter(|rules| !rules.is_empty()));
    }
    let (rules, problems) = read(asset.plain().clone()).await?;
    say(&problems, complain);
    let rules = Rc::new(rules);
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= SITES_MAX {
            known.clear();
        }
        known.insert(root.to_owned(), (version, rules.clone()));
    });
    Ok(Some(rules).filter(|rules| !rules.is_empty()))
}

async fn read(file: Arc<Representation>) -> Result<(Redirects, Vec<Problem>), Fault> {
    // One byte more than is obeyed: so it is said that the file is too long.
    let length = file.length().min(FILE_MAX as u64 + 1);
    open_file_cache::off_the_loop(move || {
        let text = body::read(&file, 0..length).unwrap_or_default();
        Redirects::parse(&text)
    })
    .await
}

fn say(problems: &[Problem], complain: &dyn Fn(&str)) {
    for Problem { line, reason, .. } in problems.iter().take(NAMED_MAX) {
        complain(&format!("{FILE}:{line} is not obeyed: {reason}"));
    }
    let more = problems.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        complain(&format!("{FILE}: {more} more lines are not obeyed; `mfserv check` names them"));
    }
}
