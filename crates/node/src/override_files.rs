//! The override files of plugins: the operator's word on how many workers an app has, and who may
//! read them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mfserv_core::ini::{Dialect, has_active_line};
use mfserv_core::names::WatcherName;
use mfserv_core::plugin_config::{count_line, with_count, without_count};
use mfserv_core::{Diagnostic, Kind, Location};
use mfserv_platform::{disk, private};
use mfserv_plugin::Home;

use crate::configure;
use crate::places::Places;

/// Writes how many workers an app or extra daemon of the plugin in `dir` has; `None` takes back
/// what was written so. Returns what was done, a sentence.
pub fn write(
    places: &Places,
    dir: &Path,
    watcher: &WatcherName,
    count: Option<u32>,
) -> Result<String, Diagnostic> {
    let plugin = watcher.plugin().unwrap_or_default();
    let kind = if watcher.as_str().starts_with("app.") { "app" } else { "extra_daemon" };
    let section = format!("{kind}_{}", watcher.short());
    let file = Home::new(places.home()).override_file(plugin);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(disk::failed("read", &file, error)),
    };
    let Some(count) = count else { return take_back(&file, &text, &section) };
    let site = configure::site_override(plugin);
    let paths = [dir.join("config.ini"), file.clone(), site.clone()];
    let mut documents = Vec::new();
    for path in &paths {
        documents.extend(configure::read_document(path, Dialect::Plugin)?);
    }
    let line = count_line(&documents, &section, &configure::config_name());
    if let Some(at) = line.at.filter(|at| Path::new(&*at.file) == site) {
        return Err(Diagnostic::error(format!("{watcher} is not scaled"))
            .kind(Kind::Refused)
            .because("the site's file says how many workers it has, and wins")
            .at(at)
            .help("change numprocesses there, then `mfserv reload`"));
    }
    file.parent().map_or(Ok(()), disk::create_dir)?;
    private::write(&file, with_count(&text, &section, &line.key, count)?.as_bytes())?;
    Ok(format!("{}={count} is written to [{section}] of {}", line.key, file.display()))
}

/// Warns of override files that set something and that every user of this machine may read.
pub fn readable_by_all(places: &Places) -> Vec<Diagnostic> {
    let dir = Home::new(places.home()).override_file("x").with_file_name("");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|end| end == "ini"))
        .filter(|file| file.metadata().is_ok_and(|it| it.permissions().mode() & 0o004 != 0))
        .filter(|file| std::fs::read_to_string(file).is_ok_and(|text| has_active_line(&text)))
        .collect();
    files.sort();
    let warning = |file: PathBuf| {
        Diagnostic::warning("every user of this machine may read an override file")
            .because("what it sets may be secret: passwords, keys")
            .at(Location::new(file.to_string_lossy(), 0))
            .help(format!("chmod 600 {}", file.display()))
    };
    files.into_iter().map(warning).collect()
}

fn take_back(file: &Path, text: &str, section: &str) -> Result<String, Diagnostic> {
    match without_count(text, section)? {
        Some(text) => {
            private::write(file, text.as_bytes())?;
            Ok(format!("numprocesses is taken back from [{section}] of {}", file.display()))
        }
        None => Ok(format!("`mfserv scale` has written nothing into [{section}]")),
    }
}
