//! `plugins.list`, `plugins.info` and `plugins.hash`: what is installed.

use std::path::{Path, PathBuf};

use clap::Parser;
use mfserv_core::Diagnostic;
use mfserv_plugin::Home;
use mfserv_plugin::archive::{self, Package};
use mfserv_plugin::store::{self, Installed};
use serde::Serialize;

use super::boxes::{table, wrapped};
use super::{base_dir, failed, places};
use crate::cli::plugins::own_spec;
use crate::cli::report::Outcome;
use crate::cli::{complain, print};
use mfserv_node::places::Places;

/// How wide a value of `plugins.info` is.
const VALUE_WIDTH: usize = 60;

/// List the installed plugins.
#[derive(Debug, Parser)]
#[command(name = "plugins.list")]
struct List {
    /// One line per plugin: name~~~version~~~release~~~home.
    #[arg(long)]
    raw: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
}

/// A plugin as `--json` shows it; the order of the keys is MFSERV's.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    release: &'a str,
    version: &'a str,
    home: String,
}

pub fn list() -> Result<Outcome, Diagnostic> {
    let args = List::parse();
    if args.json && args.raw {
        complain("ERROR: json and raw options are mutually exclusives");
        return failed();
    }
    let places = places()?;
    let all = installed(&places, args.plugins_base_dir.as_deref())?;
    if args.json {
        let listed: Vec<Listed<'_>> = all.iter().map(listed).collect();
        print(&indented_by_4(&listed)?);
    } else if args.raw {
        for plugin in &all {
            let home = plugin.link.display();
            print(&format!("{}~~~{}~~~{}~~~{home}\n", plugin.name, plugin.version, plugin.release));
        }
    } else {
        let heading = ["Name", "Version", "Release", "Home"].map(str::to_owned).to_vec();
        let rows = all.iter().map(|plugin| {
            let home = plugin.link.display().to_string();
            vec![plugin.name.clone(), plugin.version.clone(), plugin.release.clone(), home]
        });
        let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
        print(&table(&format!("Installed plugins ({})", all.len()), &rows, true));
    }
    Ok(Outcome::Done)
}

fn installed(places: &Places, asked: Option<&Path>) -> Result<Vec<Installed>, Diagnostic> {
    store::list_of(&Home::new(places.home()), &base_dir(places, asked))
}

fn listed(plugin: &Installed) -> Listed<'_> {
    Listed {
        name: &plugin.name,
        release: &plugin.release,
        version: &plugin.version,
        home: plugin.link.display().to_string(),
    }
}

fn indented_by_4<T: Serialize>(value: &T) -> Result<String, Diagnostic> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    value
        .serialize(&mut serializer)
        .map_err(|e| Diagnostic::error("cannot print this as JSON").because(e))?;
    text.push(b'\n');
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A plugin that is named, or a file.
#[derive(Debug, clap::Args)]
struct Named {
    /// The name of an installed plugin, or a .plugin file.
    name_or_file: String,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
}

impl Named {
    /// What has `/` or `.` in it, or is there as a file, is a file.
    fn is_file(&self) -> bool {
        self.name_or_file.contains(['/', '.']) || Path::new(&self.name_or_file).is_file()
    }

    fn installed(&self, places: &Places) -> Option<Installed> {
        let all = installed(places, self.plugins_base_dir.as_deref()).unwrap_or_default();
        all.into_iter().find(|plugin| plugin.name == self.name_or_file)
    }
}

/// Show what an installed plugin or a package says of itself.
#[derive(Debug, Parser)]
#[command(name = "plugins.info")]
struct Info {
    #[command(flatten)]
    named: Named,
    /// Print only the plugin's directory.
    #[arg(long)]
    just_home: bool,
}

pub fn info() -> Result<Outcome, Diagnostic> {
    let args = Info::parse();
    let places = places()?;
    if args.named.is_file() {
        if args.just_home {
            print("None\n");
            return Ok(Outcome::Done);
        }
        let package = archive::read(Path::new(&args.named.name_or_file))?;
        print(&described(&package));
        return Ok(Outcome::Done);
    }
    let Some(plugin) = args.named.installed(&places) else { return failed() };
    if args.just_home {
        print(&format!("{}\n", plugin.link.display()));
        return Ok(Outcome::Done);
    }
    let general = own_spec(&places, &plugin.dir)?.general;
    print(&described(&store::describe(&plugin, &general)?));
    Ok(Outcome::Done)
}

fn described(package: &Package) -> String {
    let it = &package.metadata;
    let rows = [
        ("Name", &package.name),
        ("Version", &it.version),
        ("Release", &it.release),
        ("Summary", &it.summary),
        ("Size", &it.size),
        ("Build Host", &it.build_host),
        ("Build Date", &it.build_date),
        ("License", &it.license),
        ("Maintainer", &it.packager),
        ("Vendor", &it.vendor),
        ("URL", &it.url),
    ];
    let rows = rows.map(|(title, value)| vec![title.to_string(), wrapped(value, VALUE_WIDTH)]);
    let files: String = package.files.iter().map(|file| format!("- {file}\n")).collect();
    format!("{}\nFiles:\n{files}", table("", &rows, false))
}

/// Print a hash of the build of an installed plugin or of a package.
#[derive(Debug, Parser)]
#[command(name = "plugins.hash")]
struct Hash {
    #[command(flatten)]
    named: Named,
}

pub fn hash() -> Result<Outcome, Diagnostic> {
    let args = Hash::parse();
    let places = places()?;
    let hash = if args.named.is_file() {
        archive::read(Path::new(&args.named.name_or_file))?.hash()
    } else {
        let Some(plugin) = args.named.installed(&places) else { return failed() };
        store::hash(&Home::new(places.home()), &plugin.name)?
    };
    print(&format!("{hash}\n"));
    Ok(Outcome::Done)
}
