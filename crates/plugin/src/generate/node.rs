//! What the tools of Node build of an app: its packages, and its `build` script.

use std::fs;
use std::path::Path;
use std::time::Instant;

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::last_build::LastBuild;
use super::{CODE, Copied, Purpose, Wanted, built, code, page};
use crate::build::{self, BuildOptions, BuildReport, CommandReport, Part};
use crate::progress::Progress;

/// What the tools of Node have built of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeBuilt {
    /// Its packages; `None` if there are none, or the developer's own are used.
    packages: Option<Part>,
    /// Its `build` script, if it has one.
    script: Option<CommandReport>,
    elapsed_ms: u64,
}

impl NodeBuilt {
    /// Adds it to what was built of the plugin that the app has become.
    pub fn add_to(self, report: &mut BuildReport) {
        report.node = report.node.take().or(self.packages);
        report.command = report.command.take().or(self.script);
        report.elapsed_ms += self.elapsed_ms;
    }
}

/// Builds what the tools of Node build: its packages and its `build` script. Nothing is done if the last
/// build was made of the same and is there still; of what is deployed `copied` says that.
pub fn build_node(
    place: &Path,
    wanted: &Wanted<'_>,
    copied: Option<&Copied>,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<NodeBuilt, Diagnostic> {
    if !wanted.finding.has_node {
        return Ok(NodeBuilt::default());
    }
    let began = Instant::now();
    let built = match wanted.purpose {
        Purpose::Dev => build_here(place, wanted, options, progress)?,
        Purpose::Deploy => {
            let last = copied.and_then(|copied| copied.last_build.as_ref());
            build_copy(place, wanted, last, options, progress)?
        }
    };
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(NodeBuilt { elapsed_ms, ..built })
}

/// Builds in a developer's directory. Packages that are there, and are newer than their list, stay.
fn build_here(
    place: &Path,
    wanted: &Wanted<'_>,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<NodeBuilt, Diagnostic> {
    let dir = wanted.source;
    let mut built = NodeBuilt::default();
    if !code::has_modules(dir) {
        let project = build::NodeProject::open(dir, options, progress)?;
        built.packages = project.packages(progress)?;
    }
    // An installation may have written a lock: it is a source.
    let Some(last) = LastBuild::of(place, (dir, dir), wanted, options)? else { return Ok(built) };
    if !last.is_current {
        last.begins()?;
        let project = build::NodeProject::open(dir, options, progress)?;
        project.build(wanted.finding.member.as_ref(), progress)?;
        page::check(dir, wanted)?;
        last.done(dir, None)?;
    }
    built::publish(place, wanted)?;
    built.script = Some(CommandReport { unchanged: last.is_current });
    Ok(built)
}

/// Builds in the copy of an app that is to be packed.
fn build_copy(
    place: &Path,
    wanted: &Wanted<'_>,
    last: Option<&LastBuild>,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<NodeBuilt, Diagnostic> {
    let dir = &fs::canonicalize(place.join(CODE))
        .map_err(|e| disk::failed("read", &place.join(CODE), e))?;
    let has_script = wanted.finding.build.is_some();
    let report = |packages: Option<Part>, unchanged: bool| {
        let script = has_script.then_some(CommandReport { unchanged });
        NodeBuilt { packages, script, elapsed_ms: 0 }
    };
    if let Some(last) = last.filter(|last| last.is_current) {
        return Ok(report(last.packages(), true));
    }
    let project = build::NodeProject::open(dir, options, progress)?;
    project.bring_back()?;
    let packages = project.packages(progress)?;
    let member = wanted.finding.member.as_ref();
    if has_script {
        project.build(member, progress)?;
    }
    page::check(dir, wanted)?;
    // Of a site only its files are packed.
    if wanted.finding.served().is_none() {
        project.leave_production(member, progress)?;
    }
    last.map_or(Ok(()), |last| last.done(dir, packages.clone()))?;
    Ok(report(packages, false))
}
