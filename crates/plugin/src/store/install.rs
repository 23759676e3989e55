//! Installing a package: stage it as a release, then commit.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mfserv_core::names::check_plugin_name;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind, missing_variable};

use super::claim::{Claim, Owner, claim_within};
use super::links::{Installed, Origin, current};
use super::staged::Mark;
use super::variables::{History, Variables};
use super::{foreign, persistent, releases};
use crate::archive::{self, Limits, Package};
use crate::base;
use crate::build::environment_from_wheels;
use crate::child::Run;
use crate::dotenv;
use crate::environment::{Placed, environment};
use crate::home::Home;
use crate::progress::{Cancel, Progress, Silent};
use crate::python;
use mfserv_platform::disk;

/// What is run before a release serves: of a plugin, and of an app that is none.
const HOOK: &str = "the postinstall hook";
const RELEASE_STEPS: &str = "the release step of the app";
/// How long the postinstall hook of a plugin may take.
const POSTINSTALL: Duration = Duration::from_secs(1800);

/// What must be known of a plugin directory to run its hooks; found out by the
/// caller, who has the configuration of the module.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its whole configuration, overrides included, valid.
    pub spec: PluginSpec,
    /// What is doubtful in it.
    pub warnings: Vec<Diagnostic>,
    /// The plugins that it depends on, recursively, the nearest first: directory and configuration.
    pub dependencies: Vec<(PathBuf, PluginSpec)>,
    /// The environment of the module.
    pub module: BTreeMap<String, String>,
}

/// Reads and checks the configuration of the plugin in a directory.
pub type Prepare<'a> = dyn Fn(&Path) -> Result<Prepared, Diagnostic> + 'a;

/// How a package is installed.
pub struct InstallOptions<'a> {
    /// Accept that a packed plugin of that name is installed: make a new release of it.
    pub replace: bool,
    /// Accept that this developer's directory is linked under that name: the release takes its place.
    pub replace_link: Option<PathBuf>,
    /// Install it under this name instead of its own.
    pub new_name: Option<String>,
    /// Remove the oldest releases even if the app has left files in them.
    pub clean: bool,
    /// Variables that are set together with the release; those in force stay.
    pub variables: Variables,
    /// What the package may unpack to.
    pub limits: Limits,
    /// Stops the installation.
    pub cancel: Cancel,
    /// Whose operation this is.
    pub owner: Owner,
    /// How long another operation on the same plugin is waited for.
    pub patience: Duration,
    /// Reads and checks the configuration of the unpacked plugin.
    pub prepare: &'a Prepare<'a>,
}

/// A release that is whole and can be started, and is not current. No lock is held: its mark keeps
/// others away from its plugin. Dropped without [`Staged::commit`], and not adopted by an
/// operation (see [`super::adopt`]), it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    home: Home,
    /// The package it comes from.
    pub package: Package,
    /// Its number.
    pub number: u32,
    /// Its directory, the final one.
    pub dir: PathBuf,
    /// Its configuration.
    pub spec: PluginSpec,
    /// What is doubtful in it.
    pub warnings: Vec<Diagnostic>,
    owner: Owner,
    clean: bool,
}

/// Installs a package: [`stage`], then [`Staged::commit`].
pub fn install(
    home: &Home,
    file: &Path,
    options: &InstallOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<(Installed, Vec<Diagnostic>), Diagnostic> {
    stage(home, file, options, progress)?.commit()
}

/// Unpacks a package as the next release of its plugin, builds its environment
/// there from what is packed (no network), checks its configuration and runs its
/// postinstall hook. On any error nothing is left.
pub fn stage(
    home: &Home,
    file: &Path,
    options: &InstallOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<Staged, Diagnostic> {
    progress.step(&format!("reading {}", file.display()));
    let package = archive::read(file)?;
    let name = options.new_name.as_deref().unwrap_or(&package.name);
    check_plugin_name(name).map_err(|because| {
        Diagnostic::error(format!("the plugin name {name:?} is not valid"))
            .kind(Kind::Usage)
            .because(because)
    })?;
    let owner = &options.owner;
    releases::sweep_all(home, owner);
    let claim = claim_within(home, name, owner, options.patience, &options.cancel, progress)?;
    let before = match &options.replace_link {
        Some(dir) if is_linked_to(home, name, dir) => None,
        _ => check_place(home, name, options.replace)?,
    };
    let number = releases::next_number(home, name);
    let dir = home.release(name, number);
    disk::create_dir(&home.releases_of(name))?;
    let attempt = Attempt { home, name, dir: &dir, whole: false };
    progress.step(&format!("unpacking {} {}", package.name, package.metadata.version));
    let package = archive::unpack(file, &dir, options.limits)?;
    if name != package.name {
        disk::write(&dir.join(".layerapi2_label"), format!("plugin_{name}@mfserv\n").as_bytes())?;
    }
    claim.set_with_release(number, &options.variables)?;
    let prepared = (options.prepare)(&dir)?;
    persistent::link(
        &dir,
        before.as_ref().map(|before| before.dir.as_path()).filter(|dir| dir.is_dir()),
        &home.plugin_data(name),
        &prepared.spec.general.persistent_paths,
    )?;
    let complaint = make_ready(home, &dir, &prepared, options, progress)?;
    foreign::record(&dir)?;
    let Prepared { spec, mut warnings, .. } = prepared;
    warnings.extend(complaint);
    let (clean, said) = (options.clean, warnings.clone());
    Mark { owner: owner.clone(), adopted: false, clean, warnings: said }.write(&dir)?;
    attempt.succeeded();
    Ok(Staged {
        home: home.clone(),
        package,
        number,
        dir,
        spec,
        warnings,
        owner: owner.clone(),
        clean,
    })
}

/// The directory of a release being made, removed unless it becomes whole.
struct Attempt<'a> {
    home: &'a Home,
    name: &'a str,
    dir: &'a Path,
    whole: bool,
}

impl Attempt<'_> {
    fn succeeded(mut self) {
        self.whole = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.whole {
            releases::forget(self.home, self.name, self.dir);
        }
    }
}

/// Whether the plugin of that name is a link to this directory.
fn is_linked_to(home: &Home, plugin: &str, dir: &Path) -> bool {
    let link = home.link(plugin);
    let same = |found: PathBuf| fs::canonicalize(dir).is_ok_and(|dir| dir == found);
    link.is_symlink() && fs::canonicalize(link).is_ok_and(same)
}

/// Refuses if something else of that name is installed. Returns the release that
/// will be replaced.
pub(super) fn check_place(
    home: &Home,
    plugin: &str,
    replace: bool,
) -> Result<Option<Installed>, Diagnostic> {
    if fs::symlink_metadata(home.link(plugin)).is_err() {
        return Ok(None);
    }
    let there = current(home, plugin)?;
    let refused =
        Diagnostic::error(format!("plugin: {plugin} is already installed")).kind(Kind::Refused);
    match there.origin {
        Origin::Packed(_) if replace => Ok(Some(there)),
        Origin::Packed(_) => {
            Err(refused.because(format!("version {}, release {}", there.version, there.release)))
        }
        Origin::Dev | Origin::Internal if there.link.is_symlink() => Err(refused
            .because(format!("it is a link to {}", there.dir.display()))
            .help(format!("mfserv uninstall {plugin}"))),
        Origin::Dev | Origin::Internal => Err(refused
            .because(format!("{} is a directory, as MFSERV makes it", there.dir.display()))
            .help(format!(
                "move it away, with what the app has written in it; or remove it: `mfserv \
                 uninstall {plugin}`"
            ))),
    }
}

fn make_ready(
    home: &Home,
    dir: &Path,
    prepared: &Prepared,
    options: &InstallOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<Option<Diagnostic>, Diagnostic> {
    let python = prepared.spec.general.python.as_deref();
    environment_from_wheels(dir, home, python, &options.cancel, progress)?;
    postinstall(home, dir, prepared, &options.cancel, progress)
}

/// Runs the `postinstall` program of a plugin, if it has one, in its environment
/// and directory. Its output is in the error; when it went well, what it has written on
/// standard error is returned as a warning. What it leaves in its process group is ended.
pub fn postinstall(
    home: &Home,
    dir: &Path,
    prepared: &Prepared,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Option<Diagnostic>, Diagnostic> {
    let hook = dir.join("postinstall");
    let executable = fs::metadata(&hook)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    if !executable {
        return Ok(None);
    }
    progress.step("running post-installation plugin tasks");
    let dependencies: Vec<Placed<'_>> =
        prepared.dependencies.iter().map(|(dir, spec)| Placed { dir, spec }).collect();
    let interpreter = python::find(prepared.spec.general.python.as_deref()).ok();
    let base = interpreter.and_then(|interpreter| base::find(home, &interpreter.short_version));
    let plugin = Placed { dir, spec: &prepared.spec };
    let history = History::read(home, &prepared.spec.name)?;
    let set = history.in_force(home, &prepared.spec.name, dir, false);
    let env = environment(home, plugin, &dependencies, base.as_ref(), &prepared.module)?;
    let developers = dotenv::read(home, dir, &env)?.variables;
    #[expect(clippy::disallowed_methods, reason = "an installation runs the hooks of its package")]
    let mut command = Command::new(hook);
    command
        .env_clear()
        .envs(env)
        .envs(developers)
        .envs(set.iter().map(|(name, variable)| (name.clone(), variable.value.clone())))
        .current_dir(dir);
    // The author of an app has no hook, but the line `release:` of a Procfile, or migrations.
    let is_app = foreign::is_made(dir);
    let what = if is_app { RELEASE_STEPS } else { HOOK };
    let failed = |why: Diagnostic| {
        let output = why.because.join("\n");
        match missing_variable::in_output(&output) {
            Some(variable) => why.help(missing_variable::help(&prepared.spec.name, &variable)),
            None if is_app => why.help("what serves now goes on: mend the step, and deploy again"),
            None => why,
        }
    };
    let run = Run { what, limit: POSTINSTALL, cancel };
    let complaints = run.run(command, progress).map_err(failed)?.complaints();
    Ok((!complaints.is_empty()).then(|| {
        Diagnostic::warning(format!("{what} went well, and has written on standard error"))
            .because(complaints)
    }))
}

impl Staged {
    /// Makes the release the current one and removes the oldest beyond those that are kept.
    /// Returns what is installed now and the warnings.
    pub fn commit(mut self) -> Result<(Installed, Vec<Diagnostic>), Diagnostic> {
        let claim = self.claim()?;
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(claim.commit(self.number)?);
        let kept = claim.collect(self.clean);
        warnings.extend(kept.into_iter().filter(|one| !warnings.contains(one)).collect::<Vec<_>>());
        Ok((current(&self.home, &self.spec.name)?, warnings))
    }

    /// Its mark keeps others away: at most somebody is looking.
    fn claim(&self) -> Result<Claim, Diagnostic> {
        let (never, patience) = (Cancel::default(), Duration::from_secs(10));
        claim_within(&self.home, &self.spec.name, &self.owner, patience, &never, &mut Silent)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let mine = Mark::read(&self.dir).is_some_and(|mark| !mark.adopted);
        if !mine || releases::current_release(&self.home, &self.spec.name) == Some(self.number) {
            return;
        }
        match self.claim() {
            Ok(claim) => claim.discard(self.number),
            // The next operation removes it: its stager has ended by then.
            Err(_) => releases::forget_files(&self.home, &self.spec.name, &self.dir),
        }
    }
}
