//! The fragments of all plugins, one after the other, each with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mfserv_core::route::{Fragment, Section};

/// Where a fragment goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Inside `http`.
    Http,
    /// Inside the server.
    Server,
    /// Lua, when a worker of nginx starts.
    InitWorker,
    /// Inside the locations of an app's workers.
    Location(String),
    /// Inside the locations of an app's static files.
    Static(String),
}

/// Which fragment it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceId {
    /// Its plugin.
    pub plugin: String,
    /// Its place.
    pub place: Place,
}

/// A fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Which one it is.
    pub id: PieceId,
    /// Its file and its text.
    pub fragment: &'a Fragment,
}

impl fmt::Display for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.fragment.file;
        match &self.id.place {
            Place::Http => write!(f, "{file} (in http)"),
            Place::Server => write!(f, "{file} (in the server)"),
            Place::InitWorker => write!(f, "{file} (Lua at the start of a worker)"),
            Place::Location(app) => write!(f, "{file} (in the locations of {app})"),
            Place::Static(app) => write!(f, "{file} (in the static locations of {app})"),
        }
    }
}

/// All fragments, plugin by plugin.
pub fn of(sections: &BTreeMap<String, Arc<Section>>) -> Vec<Piece<'_>> {
    sections.iter().flat_map(|(plugin, section)| of_plugin(plugin, section)).collect()
}

fn of_plugin<'a>(plugin: &str, section: &'a Section) -> Vec<Piece<'a>> {
    let fragments = &section.fragments;
    let whole = [
        (Place::Http, &fragments.http),
        (Place::Server, &fragments.server),
        (Place::InitWorker, &fragments.init_worker),
    ];
    let of_apps = fragments.apps.iter().flat_map(|(app, of_app)| {
        [
            (Place::Location(app.clone()), &of_app.location),
            (Place::Static(app.clone()), &of_app.static_location),
        ]
    });
    let piece = |(place, fragment): (Place, &'a Option<Fragment>)| {
        let id = PieceId { plugin: plugin.to_string(), place };
        fragment.as_ref().map(|fragment| Piece { id, fragment })
    };
    whole.into_iter().chain(of_apps).filter_map(piece).collect()
}
