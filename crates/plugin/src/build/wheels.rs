//! The wheels that a plugin is packed with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mfserv_core::Diagnostic;

use super::direct::{Directs, contents};
use super::frozen::Frozen;
use super::python::WHEELS_MARK;
use super::requirements::Requirements;
use super::sources::{Mark, Sources, names_in};
use crate::label::read_small;
use crate::progress::Progress;
use crate::python::{Rules, Toolbox};
use mfserv_platform::disk;

/// Collects the wheels, unless they are there. True when something was done.
pub(super) fn collect_wheels(
    sources: &Sources,
    frozen: &[Frozen],
    loose: &Requirements,
    directs: &mut Directs<'_>,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<bool, Diagnostic> {
    if frozen.is_empty() {
        disk::remove(&sources.wheels)?;
        return Ok(false);
    }
    let rules = &sources.rules(loose);
    let from_source = sources.to_compile(frozen, toolbox.interpreter);
    let lines: Vec<String> = frozen.iter().map(Frozen::line).collect();
    let inputs = [
        lines.join("\n"),
        loose.options.join("\n"),
        from_source.join(","),
        read_small(&sources.build_constraint).unwrap_or_default(),
        contents(frozen.iter().filter_map(|one| one.origin.as_ref()))?,
    ];
    // No patch version: the wheels are packaged, and good for all of 3.11.
    let wanted = Mark::new(
        &inputs.join("\n# then\n"),
        &toolbox.interpreter.short_version,
        toolbox.interpreter,
    );
    if Mark::read(&sources.wheels, WHEELS_MARK).is_some_and(|mark| mark.is_for(&wanted)) {
        return Ok(false);
    }
    progress.step(&format!("collecting {} Python packages", frozen.len()));
    let rules = Rules { from_source, ..rules.clone() };
    staged(&sources.wheels, |stage| {
        disk::create_dir(stage)?;
        fetch_wheels(frozen, &loose.options, &rules, stage, toolbox, progress)?;
        let mut mark = wanted;
        let markers = frozen.iter().map(|one| one.origin.as_ref().map_or("", |o| &o.marker));
        let holds = toolbox.holds(&markers.collect::<Vec<_>>(), progress)?;
        for (one, _) in frozen.iter().zip(holds).filter(|(_, holds)| *holds) {
            let Some(origin) = &one.origin else { continue };
            let made = directs.wheel(origin, &rules, progress)?;
            let name = made.wheel.file_name().unwrap_or_default();
            fs::copy(&made.wheel, stage.join(name))
                .map_err(|e| disk::failed("copy", &made.wheel, e))?;
            mark.origins.insert(one.text.clone(), name.to_string_lossy().into_owned());
        }
        if frozen.iter().any(|one| !one.sums.is_empty()) {
            mark.made = sums_of(stage)?;
        }
        mark.write(stage, WHEELS_MARK)
    })?;
    Ok(true)
}

/// The wheels of what the index has. pip checks the sums of what it fetches.
fn fetch_wheels(
    frozen: &[Frozen],
    options: &[String],
    rules: &Rules,
    stage: &Path,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let from_index = frozen.iter().filter(|one| one.origin.is_none());
    let lines: Vec<String> = from_index.map(Frozen::line).collect();
    if lines.is_empty() {
        return Ok(());
    }
    // These only matter where versions are chosen.
    let of_resolution = ["--pre", "-c ", "--require-hashes"];
    let options = options.iter().filter(|one| !of_resolution.iter().any(|no| one.starts_with(no)));
    let all: Vec<&str> =
        options.map(String::as_str).chain(lines.iter().map(String::as_str)).collect();
    disk::create_dir(&toolbox.home.base())?;
    let list = disk::beside(&toolbox.home.base().join("wheels.txt"), "new");
    disk::write(&list, (all.join("\n") + "\n").as_bytes())?;
    let result = toolbox.wheels(&list, stage, rules, progress);
    let _ = fs::remove_file(&list);
    result
}

/// The SHA-256 of each file of a directory.
fn sums_of(dir: &Path) -> Result<BTreeMap<String, String>, Diagnostic> {
    use sha2::{Digest, Sha256};
    let sum = |name: String| {
        let file = dir.join(&name);
        let bytes = fs::read(&file).map_err(|e| disk::failed("read", &file, e))?;
        Ok((name, disk::hex(&Sha256::digest(bytes))))
    };
    names_in(dir).into_iter().map(sum).collect()
}

/// Fills a stage beside `place` and puts it there in one step; on error nothing is left.
pub(super) fn staged(
    place: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    disk::sweep_beside(place);
    let stage = disk::beside(place, "stage");
    disk::remove(&stage)?;
    let result = fill(&stage).and_then(|()| disk::swap_in(&stage, place));
    if result.is_err() {
        let _ = disk::remove(&stage);
    }
    result
}
