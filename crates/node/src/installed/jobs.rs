//! Jobs of a plugin: the lines of its `crontab`. This version finds and reports them; it does
//! not run them.

use std::io::Read;
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_core::diagnostic::{Location, shown};

use mfserv_core::ini::MAX_BYTES;

/// The `crontab` of a plugin, at most as many bytes of it as of a configuration.
pub fn crontab(dir: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(dir.join("crontab")) {
        // cron(8) could not read it either.
        let _ = file.take(MAX_BYTES as u64).read_to_end(&mut text);
    }
    text
}

/// The lines of a `crontab` that are no comments, with their numbers.
pub fn of(crontab: &[u8]) -> Vec<(u32, String)> {
    let text = String::from_utf8_lossy(crontab);
    let lines = (1..).zip(text.lines().map(str::trim));
    let active = |line: &str| !line.is_empty() && !line.starts_with(['#', '{']);
    lines.filter(|(_, line)| active(line)).map(|(n, line)| (n, shown(line).into_owned())).collect()
}

/// The warning that the lines of a `crontab` are not run.
pub fn ignored(name: &str, dir: &Path, crontab: &[u8]) -> Option<Diagnostic> {
    let (line, _) = of(crontab).into_iter().next()?;
    Some(
        Diagnostic::warning(format!("the crontab of plugin {name} has no effect in this version"))
            .because("mfserv does not run its lines")
            .at(Location::new(dir.join("crontab").to_string_lossy(), line))
            .help("put them into the crontab of the user: crontab -e"),
    )
}
