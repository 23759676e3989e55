//! `mfserv list` and `mfserv info`: what is installed, what a package holds.

use std::path::Path;

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::Diagnostic;
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Installed, Origin};
use serde::Serialize;

use super::app_names;
use super::env;
use super::first;
use super::preview::show;
use crate::cli::completions;
use crate::cli::report::{self, Outcome};
use crate::cli::show::table;
use crate::cli::{print, print_json};
use mfserv_node::places::Places;
use mfserv_node::{configure, installed, preview};

#[derive(Debug, Args)]
pub struct List {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl List {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let all = store::list(&Home::new(places.home()))?;
        if self.json {
            print_json(&all)?;
            return Ok(Outcome::Done);
        }
        let titles = ["NAME", "VERSION", "RELEASE", "FROM", "DIRECTORY"].map(str::to_owned);
        let rows = all.iter().map(|plugin| {
            let from = origin(plugin);
            let dir = plugin.dir.display().to_string();
            vec![plugin.name.clone(), plugin.version.clone(), plugin.release.clone(), from, dir]
        });
        let rows: Vec<Vec<String>> = std::iter::once(titles.to_vec()).chain(rows).collect();
        print(&table(&rows));
        all.iter().filter_map(|plugin| plugin.problem.as_ref()).for_each(report::print_problem);
        Ok(Outcome::Done)
    }
}

fn origin(plugin: &Installed) -> String {
    match plugin.origin {
        Origin::Packed(number) => format!("release {number}"),
        Origin::Dev => "directory".into(),
        Origin::Internal => "mfserv".into(),
    }
}

#[derive(Debug, Args)]
pub struct Info {
    /// A plugin's name, or a package file.
    #[arg(add = ArgValueCompleter::new(completions::plugins_or_packages))]
    name_or_file: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Info {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let path = Path::new(&self.name_or_file);
        let (name, app) = app_names::parts(&self.name_or_file);
        let is_app = app.is_some() && Home::new(places.home()).link(name).exists();
        if self.name_or_file.contains('/') || path.is_file() || app.is_some() && !is_app {
            return show(preview::of_package(places, path)?, self.json);
        }
        if let Some(problem) = env::unknown_app(places, &self.name_or_file) {
            return Err(problem);
        }
        let home = Home::new(places.home());
        let plugin = store::current(&home, name)?;
        if let Some(problem) = plugin.problem {
            return Err(problem);
        }
        let module = configure::module(places, &[])?;
        let general = installed::own_spec(&plugin.dir, &module).map_err(first)?.general;
        let releases = store::releases(&home, &plugin.name).iter().map(|r| r.number).collect();
        let described = Described {
            plugin,
            summary: general.summary,
            license: general.license,
            maintainer: general.maintainer,
            vendor: general.vendor,
            url: general.url,
            releases,
        };
        match self.json {
            true => print_json(&described)?,
            false => print(&described.text()),
        }
        Ok(Outcome::Done)
    }
}

/// An installed plugin, as it is shown.
#[derive(Debug, Serialize)]
struct Described {
    #[serde(flatten)]
    plugin: Installed,
    summary: String,
    license: String,
    maintainer: String,
    vendor: String,
    url: String,
    /// Their numbers.
    releases: Vec<u32>,
}

impl Described {
    fn text(&self) -> String {
        let releases: Vec<String> = self.releases.iter().map(u32::to_string).collect();
        let rows = [
            ("name", self.plugin.name.clone()),
            ("version", self.plugin.version.clone()),
            ("release", self.plugin.release.clone()),
            ("summary", self.summary.clone()),
            ("license", self.license.clone()),
            ("maintainer", self.maintainer.clone()),
            ("vendor", self.vendor.clone()),
            ("url", self.url.clone()),
            ("from", origin(&self.plugin)),
            ("directory", self.plugin.dir.display().to_string()),
            ("releases", releases.join(" ")),
        ];
        table(&rows.map(|(key, value)| vec![key.to_string(), value]))
    }
}
