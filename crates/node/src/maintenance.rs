//! The file `var/maintenance.json`: which apps are in maintenance (`mfserv maintenance`), with the
//! pages that are shown meanwhile beside it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::maintenance::{ALL, Mark, Marks};
use mfserv_core::plan::Plan;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::clock::now_ms;
use mfserv_platform::disk::{self, Disk, Lock, RealDisk};

use crate::places::Places;

/// How long another command that changes it is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
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

/// What is in maintenance.
///
/// # Errors
/// That is not known.
pub fn read(disk: &dyn Disk, places: &Places) -> Result<Marks, Diagnostic> {
    let path = places.maintenance_file();
    let unknown = |why: String| {
        Diagnostic::error("it is not known which apps are in maintenance")
            .kind(Kind::Refused)
            .because(format!("{}: {why}", path.display()))
            .help(
                "until it can be read, what was in maintenance stays so; `mfserv maintenance off` \
                 ends all of it",
            )
    };
    match disk.read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|why| unknown(why.to_string())),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Marks::default()),
        Err(why) => Err(unknown(why.to_string())),
    }
}

/// The plugin (`PLUGIN`) or the app (`PLUGIN.APP`) that is meant; before it may be `app.`, as in the
/// names of watchers.
pub fn part(plan: &Plan, name: &str) -> Result<String, Diagnostic> {
    let has = |plugin: &str| plan.plugins.iter().any(|one| one.name == plugin);
    let routes = plan.table.routes.iter();
    let is_known = |key: &str| match key.split_once('.') {
        None => has(key),
        Some((plugin, app)) => {
            has(plugin) && routes.clone().any(|route| route.plugin == plugin && route.app == app)
        }
    };
    let names = spellings(name);
    if let Some(key) = names.iter().find(|key| is_known(key)) {
        return Ok(key.clone());
    }
    let plugin = names.iter().filter_map(|key| key.split_once('.')).find(|(one, _)| has(one));
    let known: BTreeSet<String> = match plugin {
        Some((plugin, _)) => {
            let own = routes.filter(|route| route.plugin == plugin);
            own.map(|route| format!("{plugin}.{}", route.app)).collect()
        }
        None => plan.plugins.iter().map(|one| one.name.clone()).collect(),
    };
    Err(unknown_app(name, &Vec::from_iter(known)))
}

/// There is no app or plugin of this name.
pub fn unknown_app(name: &str, known: &[String]) -> Diagnostic {
    let unknown = Diagnostic::error(format!("no app is called {name}")).kind(Kind::Usage);
    unknown.help(match known.is_empty() {
        true => "no plugin of this node has a program".into(),
        false => format!("there are: {}", known.join(", ")),
    })
}

/// What is meant, if that or something in it is in maintenance; also of what is gone.
pub fn marked(places: &Places, name: &str) -> Option<String> {
    let marks = read(&RealDisk, places).ok()?;
    spellings(name).into_iter().find(|key| marks.has(key))
}

/// The keys that a name may mean: first as it is, since a plugin may be called `app`.
fn spellings(name: &str) -> Vec<String> {
    let dotted = name.replace('/', ".");
    let short = dotted.strip_prefix("app.").map(str::to_string);
    std::iter::once(dotted).chain(short).collect()
}

/// Writes down what is wanted of `*`, a plugin or an app. Returns what was in maintenance before, and
/// a sentence.
pub fn change(places: &Places, key: &str, wanted: Wanted) -> Result<(Marks, String), Diagnostic> {
    let _lock = lock(places)?;
    let ends_all = key == ALL && matches!(wanted, Wanted::Off);
    let before = match read(&RealDisk, places) {
        // Nothing of it has to be known.
        Err(_) if ends_all => Marks::default(),
        before => before?,
    };
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

/// For commands without a node, which have no turns: between a look and the change that comes of it,
/// no other one changes it.
fn lock(places: &Places) -> Result<Lock, Diagnostic> {
    let file = places.maintenance_file().with_extension("lock");
    Lock::wait(&file, "what is in maintenance", LOCK_PATIENCE)
}

/// The plugin is gone: one of that name which comes later is not in maintenance, and nobody needs
/// its pages.
pub fn forget(places: &Places, plugin: &str) -> Result<(), Diagnostic> {
    let _lock = lock(places)?;
    let mut marks = read(&RealDisk, places)?;
    if marks.end(plugin) == Ok(true) {
        write(places, &marks)?;
        remove_old_pages(places);
    }
    Ok(())
}

/// Removes the pages that no mark names: fronts that have an earlier table do not need them any more.
/// Within a turn: another operation may have made a page that it has not written down.
pub fn remove_old_pages(places: &Places) {
    let Ok(marks) = read(&RealDisk, places) else { return };
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
