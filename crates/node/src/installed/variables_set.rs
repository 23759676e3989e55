//! What the administrator, and the `.env` file of a developer, have added to the environment of a
//! plugin.

use std::collections::BTreeMap;

use mfserv_core::Diagnostic;
use mfserv_core::secrets::Secrets;
use mfserv_plugin::Home;
use mfserv_plugin::dotenv::{self, Dotenv};
use mfserv_plugin::store::{History, is_linked};

use super::Read;

/// What is set and secret.
pub(super) struct Set {
    pub secrets: Secrets,
    /// It is a change that is tried.
    pub is_tried: bool,
    /// What of a `.env` file is not used.
    pub warnings: Vec<Diagnostic>,
}

/// Adds what the administrator has set (`mfserv env set`), which wins over what the plugin sets, and
/// over the `.env` file of a directory that is worked on. Returns what is secret of it.
pub(super) fn add(
    home: &Home,
    plugin: &Read,
    env: &mut BTreeMap<String, String>,
) -> Result<Set, Diagnostic> {
    let history = History::read(home, &plugin.name)?;
    let set = history.in_force(home, &plugin.name, &plugin.dir, plugin.is_tried);
    let (secret, open): (Vec<_>, Vec<_>) = set
        .iter()
        .map(|(name, variable)| ((name.clone(), variable.value.clone()), variable.secret))
        .partition(|(_, is_secret)| *is_secret);
    let is_developed = plugin.is_tried || is_linked(home, &plugin.name, &plugin.dir);
    let Dotenv { variables: mut secrets, warnings } = match is_developed {
        true => dotenv::read(home, &plugin.dir, env)?,
        false => Dotenv::default(),
    };
    open.iter().for_each(|((name, _), _)| drop(secrets.remove(name)));
    env.extend(open.into_iter().map(|(pair, _)| pair));
    secrets.extend(secret.into_iter().map(|(pair, _)| pair));
    let secrets: Secrets = secrets.into_iter().collect();
    // What the plugin sets under the same name is not used.
    secrets.names().for_each(|name| drop(env.remove(name)));
    let is_tried = plugin.is_tried && history.is_staged();
    Ok(Set { secrets, is_tried, warnings })
}
