//! The app of the bench `slots`: single-slot workers that sleep as asked and keep a diary.

use std::fs;
use std::path::PathBuf;

use mfserv_core::Diagnostic;
use mfserv_core::names::WatcherName;

use super::arrivals::Arrival;
use crate::node::Node;

/// The plugin's name.
pub const NAME: &str = "mixed";
/// The template's app is replaced by this one; its command stays (bjoern_wrapper.py, so
/// one slot per worker).
const APP: &str = include_str!("programs/mixed.py");

/// A request inside the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handled {
    /// The request.
    pub id: u64,
    /// The worker, counted from 0.
    pub worker: usize,
    /// When the app began, nanoseconds of the monotonic clock.
    pub begin_ns: u64,
    /// When the app ended.
    pub end_ns: u64,
}

/// Makes the plugin with this many workers, builds and links it.
pub fn install(node: &Node, workers: usize) -> Result<(), Diagnostic> {
    let dir = node.make("python3_raw_wsgi", NAME)?;
    write(dir.join("main/wsgi.py"), APP)?;
    let overrides = format!("[app_main]\nnumprocesses = {workers}\n");
    write(node.path("config/plugins").join(format!("{NAME}.ini")), &overrides)?;
    node.link(&dir)
}

fn write(path: PathBuf, text: &str) -> Result<(), Diagnostic> {
    let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
    parent
        .and_then(|()| fs::write(&path, text))
        .map_err(|e| Diagnostic::error(format!("cannot write {}", path.display())).because(e))
}

/// What is asked for: a sleep as long as the app shall take.
pub fn target(id: u64, arrival: &Arrival) -> String {
    format!("/{NAME}?id={id}&us={}", arrival.service.as_micros())
}

/// The sockets of the workers, once all of them are ready.
pub fn sockets(node: &Node, workers: usize) -> Result<Vec<PathBuf>, Diagnostic> {
    let status = node.status()?;
    let wanted = format!("app.{NAME}.main");
    let is_ours = |name: &WatcherName| name.as_str() == wanted;
    let ready = status.watchers.iter().find(|w| is_ours(&w.name)).map_or(0, |w| w.ready as usize);
    if ready != workers {
        return Err(Diagnostic::error(format!("{ready} of {workers} workers are ready"))
            .help("the node's own log may say why"));
    }
    let paths = (1..=workers).map(|n| node.path(&format!("var/app_{NAME}_main_{n}.socket")));
    let real = paths.map(|path| {
        fs::canonicalize(&path)
            .map_err(|e| Diagnostic::error(format!("no socket {}", path.display())).because(e))
    });
    real.collect()
}

/// What the workers have written down so far.
pub fn handled(node: &Node) -> Result<Vec<Handled>, Diagnostic> {
    let place = node.path("var/data").join(NAME);
    let entries = fs::read_dir(&place)
        .map_err(|e| Diagnostic::error(format!("no diaries in {}", place.display())).because(e))?;
    let mut diaries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    diaries.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("diary-")));
    diaries.sort();
    let mut handled = Vec::new();
    for (worker, diary) in diaries.iter().enumerate() {
        let text = fs::read_to_string(diary)
            .map_err(|e| Diagnostic::error("cannot read a diary").because(e))?;
        handled.extend(text.lines().filter_map(|line| parse(line, worker)));
    }
    Ok(handled)
}

fn parse(line: &str, worker: usize) -> Option<Handled> {
    let mut numbers = line.split(' ').map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Some(Handled { id: next()?, worker, begin_ns: next()?, end_ns: next()? })
}
