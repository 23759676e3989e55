//! The file `var/maintenance.json`: which apps are in maintenance (`mfserv maintenance`), with the
//! pages that are shown meanwhile beside it.

use std::path::{Path, PathBuf};

use mfserv_core::maintenance::{ALL, Mark, Marks};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::clock::now_ms;
use mfserv_platform::disk::{self, Disk, RealDisk};

use crate::places::Places;

/// The largest page, bytes.
const PAGE_MAX: u64 = 1024 * 1024;

/// What is wanted of a part of the node.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Maintenance, in which requests wait or get a page.
    On {
        /// They wait.
        hold: bool,
        /// The file with the page; `None`: a small one.
        page: Option<PathBuf>,
    },
    /// No maintenance.
    Off,
}

/// What is in maintenance; what cannot be read counts as nothing.
pub fn read(disk: &dyn Disk, places: &Places) -> Marks {
    let text = disk.read(&places.maintenance_file()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes down what is wanted of `*`, a plugin or an app. Returns what was in maintenance before, and
/// a sentence.
pub fn change(places: &Places, key: &str, wanted: Wanted) -> Result<(Marks, String), Diagnostic> {
    let before = read(&RealDisk, places);
    let mut marks = before.clone();
    let whom = if key == ALL { "every app" } else { key };
    let said = match wanted {
        Wanted::On { hold, page } => {
            let since_ms = now_ms();
            let page = page.map(|file| copy(places, key, &file, since_ms)).transpose()?;
            marks.begin(key, Mark { hold, page, since_ms });
            match hold {
                true => format!("{whom} is in maintenance: its requests wait"),
                false => format!("{whom} is in maintenance: its requests get 503"),
            }
        }
        Wanted::Off => match marks.end(key) {
            Ok(true) => format!("{whom} is in maintenance no longer"),
            Ok(false) => format!("{whom} was not in maintenance"),
            Err(larger) => return Err(larger_is_on(key, &larger)),
        },
    };
    write(places, &marks)?;
    Ok((before, said))
}

/// Writes down what is in maintenance, and removes the pages of what is not any more.
pub fn write(places: &Places, marks: &Marks) -> Result<(), Diagnostic> {
    let text = serde_json::to_vec(marks).unwrap_or_default();
    RealDisk.write(&places.maintenance_file(), &text)
}

/// The plugin is gone: one of that name which comes later is not in maintenance.
pub fn forget(places: &Places, plugin: &str) -> Result<(), Diagnostic> {
    let mut marks = read(&RealDisk, places);
    match marks.end(plugin) {
        Ok(true) => write(places, &marks),
        _ => Ok(()),
    }
}

/// Removes the pages that no mark names: fronts that have an earlier table do not need them any more.
pub fn remove_old_pages(places: &Places) {
    let marks = read(&RealDisk, places);
    let entries = std::fs::read_dir(places.maintenance_pages()).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if !marks.0.values().any(|mark| mark.page.as_ref() == Some(&path)) {
            // One that stays does no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A copy of a page, with a name of its own: that of before may still be shown.
fn copy(places: &Places, key: &str, file: &Path, now_ms: u64) -> Result<PathBuf, Diagnostic> {
    let refused = |why: String| {
        Err(Diagnostic::error(format!("{} cannot be the page", file.display()))
            .kind(Kind::Usage)
            .because(why)
            .help("name a file with a small page in HTML"))
    };
    let length = match std::fs::metadata(file) {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => return refused("it is no file".into()),
        Err(why) => return refused(why.to_string()),
    };
    if length > PAGE_MAX {
        return refused(format!("it has {length} bytes, and may have {PAGE_MAX}"));
    }
    let content = std::fs::read(file).map_err(|why| disk::failed("read", file, why))?;
    let dir = places.maintenance_pages();
    disk::create_dir(&dir)?;
    let end = file.extension().and_then(|end| end.to_str()).unwrap_or("html");
    let name = if key == ALL { "all" } else { key };
    let copy = dir.join(format!("{name}-{now_ms}.{end}"));
    disk::write(&copy, &content)?;
    Ok(copy)
}

fn larger_is_on(key: &str, larger: &str) -> Diagnostic {
    let (whole, command) = match larger {
        ALL => ("the node".to_string(), "mfserv maintenance off".to_string()),
        plugin => (format!("the plugin {plugin}"), format!("mfserv maintenance off {plugin}")),
    };
    Diagnostic::error(format!("the maintenance of {key} alone cannot end"))
        .kind(Kind::Refused)
        .because(format!("{whole} is in maintenance as a whole"))
        .help(format!("`{command}` ends that"))
}
