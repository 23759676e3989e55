//! From requirements to exact versions: `requirements3.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use mfserv_core::{Diagnostic, Kind};

use super::direct::Directs;
use super::requirements::{self, Requirements};
use super::sources::{MADE_FROM, Sources, package_name};
use crate::base;
use crate::label::read_bounded;
use crate::progress::Progress;
use crate::python::{Rules, Toolbox};
use mfserv_platform::disk;

/// The text of requirements3.txt, made again when anything that it was made from has changed. A
/// list that a build has made says what it was made from, so that a checkout, which gives all
/// files new times, resolves nothing; one of somebody else is older than its sources or not.
pub(super) fn freeze(
    sources: &Sources,
    loose: &Requirements,
    directs: &mut Directs<'_>,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let inputs = sources.inputs(loose);
    if let Ok(text) = read_bounded(&sources.frozen, requirements::LONGEST) {
        let made_from = text.lines().find(|line| line.starts_with(MADE_FROM));
        let current = match made_from {
            _ if loose.files.is_empty() => true,
            Some(line) => line.trim_end() == inputs,
            None => !loose.files.iter().any(|file| is_older(&sources.frozen, file)),
        };
        if current {
            return Ok(text);
        }
    } else if sources.frozen.is_file() {
        // Too long, or not to be read: the error says which.
        return read_bounded(&sources.frozen, requirements::LONGEST)
            .map_err(|e| disk::failed("read", &sources.frozen, e));
    }
    let lines = match loose.wanted.is_empty() {
        true => String::from("# no packages\n"),
        false => resolve(sources, loose, directs, toolbox, progress)?,
    };
    let text = format!("{inputs}\n{lines}");
    disk::write(&sources.frozen, text.as_bytes())?;
    Ok(text)
}

/// The exact versions of all packages. Those of packages from elsewhere are made into wheels
/// first, and the tool resolves with these.
pub(super) fn resolve(
    sources: &Sources,
    loose: &Requirements,
    directs: &mut Directs<'_>,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let rules = sources.rules(loose);
    let mut origins = BTreeMap::new();
    let mut list = loose.options.join("\n") + "\n";
    let markers = loose.wanted.iter().map(|one| one.origin.as_ref().map_or("", |o| &o.marker));
    let holds = toolbox.holds(&markers.collect::<Vec<_>>(), progress)?;
    for (wanted, holds) in loose.wanted.iter().zip(holds) {
        match &wanted.origin {
            None => list += &format!("{}\n", wanted.text),
            Some(_) if !holds => {}
            Some(origin) => {
                let made = directs.wheel(origin, &rules, progress)?;
                let line = origin.frozen(&made.name, &address_of_file(&made.wheel));
                list += &format!("{}\n", line.split(" ;").next().unwrap_or_default());
                let _ = origins.insert(made.name.clone(), origin.frozen(&made.name, &made.address));
            }
        }
    }
    progress.step(&format!("resolving the Python requirements with {}", toolbox.name()));
    let resolved = resolve_list(sources, loose, &list, rules, toolbox, progress)?;
    let exact = resolved.lines().filter(|line| !line.trim_start().starts_with(['#', '-']));
    let exact = exact.filter(|line| !line.trim().is_empty()).map(|line| {
        let name = package_name(line.trim());
        let sums = loose.wanted.iter().filter(|one| one.name().as_ref() == Some(&name));
        let sums = sums.flat_map(|one| &one.sums).map(|sum| format!(" --hash={sum}"));
        let line = origins.get(&name).map_or(line.trim(), String::as_str);
        line.to_string() + &sums.collect::<String>() + "\n"
    });
    Ok(exact.collect())
}

/// Resolves a list. The versions of what the layers of MFSERV had are constraints, so that a
/// plugin and the framework share what they can, and a plugin that asks for others gets them:
/// first without the constraints of what it pins itself, then without all. With `override`
/// there are none.
fn resolve_list(
    sources: &Sources,
    loose: &Requirements,
    list: &str,
    mut rules: Rules,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    disk::create_dir(&toolbox.home.base())?;
    let file = disk::beside(&toolbox.home.base().join("requirements.txt"), "new");
    let constraints = disk::beside(&toolbox.home.base().join("constraints.txt"), "new");
    let pinned = loose.pinned();
    let kept = |but: &BTreeSet<String>| -> Vec<&str> {
        base::constraints(toolbox.interpreter)
            .filter(|line| !but.contains(&package_name(line)))
            .collect()
    };
    let attempts = match sources.override_mark.exists() {
        true => vec![Vec::new()],
        false => vec![kept(&BTreeSet::new()), kept(&pinned), Vec::new()],
    };
    rules.constraints = Some(constraints.clone());
    let mut result = Err(Diagnostic::error("nothing was resolved"));
    for (number, attempt) in attempts.iter().enumerate() {
        if number > 0 && attempts[number - 1] == *attempt {
            continue;
        }
        let own = loose.constraints.iter().map(String::as_str);
        let text: Vec<&str> = attempt.iter().copied().chain(own).collect();
        disk::write(&constraints, (text.join("\n") + "\n").as_bytes())?;
        disk::write(&file, list.as_bytes())?;
        result = toolbox.freeze(&file, &rules, progress);
        match &result {
            Ok(_) if number > 0 => progress.step(
                "the plugin asks for other versions than the base environment has: it gets its own",
            ),
            Err(error) if is_conflict(error) => continue,
            Ok(_) | Err(_) => {}
        }
        break;
    }
    let _ = fs::remove_file(&file);
    let _ = fs::remove_file(&constraints);
    result
}

/// Versions do not go together, or there is none that is asked for.
fn is_conflict(error: &Diagnostic) -> bool {
    let text = error.because.join("\n");
    let signs =
        ["No solution found", "ResolutionImpossible", "conflict", "No matching distribution"];
    error.kind == Kind::Failed && signs.iter().any(|sign| text.contains(sign))
}

/// `file:///…`
fn address_of_file(file: &Path) -> String {
    let mut address = String::from("file://");
    for byte in file.as_os_str().as_encoded_bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b"/-_.+~!".contains(b) => {
                address.push(char::from(*b))
            }
            b => address += &format!("%{b:02X}"),
        }
    }
    address
}

pub(super) fn is_older(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    match (time(file), time(than)) {
        (Some(file), Some(than)) => file < than,
        (None, _) => true,
        (_, None) => false,
    }
}
