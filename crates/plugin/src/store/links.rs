//! The links in `var/plugins`: what is installed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mfserv_core::names::check_plugin_name;
use mfserv_core::{Diagnostic, Kind, Severity};
use serde::{Deserialize, Serialize};

use super::claim::{Claim, Owner, lock};
use super::releases;
use crate::archive::read_metadata;
use crate::generate::{Purpose, place_of, remove_made};
use crate::home::Home;
use crate::label;
use mfserv_platform::disk;

/// Where an installed plugin comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A package: the release of this number.
    Packed(u32),
    /// A developer's directory.
    Dev,
    /// A plugin that comes with mfserv.
    Internal,
}

/// An installed plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Its real directory: what workers run in.
    pub dir: PathBuf,
    /// The link `var/plugins/NAME`.
    pub link: PathBuf,
    /// `_version` of the package; `dev_link` for a developer's directory; `error` if it can't be read.
    pub version: String,
    /// `_release`, in the same way.
    pub release: String,
    /// Why it can't be used, if it can't.
    pub problem: Option<Diagnostic>,
}

/// What is installed, by name. Broken ones are in the list, with their problem. A directory
/// that is there and can't be read is an error, and not an empty list.
pub fn list(home: &Home) -> Result<Vec<Installed>, Diagnostic> {
    list_of(home, &home.plugins())
}

/// The same, for another base directory of plugins.
pub fn list_of(home: &Home, plugins: &Path) -> Result<Vec<Installed>, Diagnostic> {
    let entries = match fs::read_dir(plugins) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(plugins, e)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name != "base" && !name.starts_with('.')).collect();
    names.sort();
    Ok(names.into_iter().map(|name| look(home, plugins, name)).collect())
}

fn unreadable(path: &Path, error: std::io::Error) -> Diagnostic {
    disk::failed("read", path, error).help("be the user whose plugins these are")
}

/// The installed plugin of a name. Refused with kind [`Kind::Failed`] if there is none.
pub fn current(home: &Home, plugin: &str) -> Result<Installed, Diagnostic> {
    let link = home.link(plugin);
    let there = match fs::symlink_metadata(&link) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Err(unreadable(&link, e)),
        found => found.is_ok(),
    };
    if check_plugin_name(plugin).is_err() || !there {
        let all = list(home)?;
        if let Some(one) = all.iter().find(|one| one.name == plugin) {
            // It was made by hand, and is no name that our files could have.
            return Err(Diagnostic::error(format!("{plugin:?} is no name of a plugin"))
                .because(one.problem.as_ref().map_or("it cannot be used", |p| p.what.as_str()))
                .help(format!("remove {} by hand, then mfserv reload", one.link.display())));
        }
        let names: Vec<String> = all.into_iter().map(|one| one.name).collect();
        let error =
            Diagnostic::error(format!("the plugin {plugin} is not installed")).kind(Kind::Usage);
        return Err(match names.is_empty() {
            true => error,
            false => error.help(format!("installed: {}", names.join(", "))),
        });
    }
    Ok(look(home, &home.plugins(), plugin.into()))
}

/// Makes the link of a plugin again that something has removed, to the release in this
/// directory. False if nothing was to be done: the link is there, the directory is no release,
/// or an operation changes the plugin.
pub fn restore_link(home: &Home, plugin: &str, dir: &Path, owner: &Owner) -> bool {
    let link = home.link(plugin);
    let is_gone = || disk::is_gone(&link);
    let number = releases::number_of(home, plugin, dir).filter(|_| dir.is_dir() && is_gone());
    let Some(number) = number else { return false };
    let Ok(_claim) = lock(home, plugin, owner) else { return false };
    let target = releases::link_target(plugin).join(number.to_string());
    is_gone() && disk::relink(&link, &target).is_ok()
}

fn look(home: &Home, plugins: &Path, name: String) -> Installed {
    let link = plugins.join(&name);
    let (dir, problem) = match fs::canonicalize(&link) {
        Ok(dir) => {
            let problem = problem_of(&dir, &name);
            (dir, problem)
        }
        Err(e) => {
            let dir = said_by(home, &name, &link);
            let problem = gone(home, &name, &dir, e);
            (dir, Some(problem))
        }
    };
    let origin = origin(home, &name, &dir);
    let (version, release) = match (&problem, origin) {
        (Some(_), _) => ("error".into(), "error".into()),
        (None, Origin::Dev) if link.is_symlink() => ("dev_link".into(), "dev_link".into()),
        (None, Origin::Internal) => (env!("CARGO_PKG_VERSION").into(), "1".into()),
        (None, Origin::Dev | Origin::Packed(_)) => packed_version(&dir),
    };
    Installed { name, origin, dir, link, version, release, problem }
}

/// Where a link leads whose end is not there: for a release, its directory.
fn said_by(home: &Home, name: &str, link: &Path) -> PathBuf {
    let Ok(target) = fs::read_link(link) else { return link.to_owned() };
    let number = target.strip_prefix(releases::link_target(name)).ok().and_then(number_in);
    match number {
        Some(number) => home.release(name, number),
        None => link.parent().map_or(target.clone(), |plugins| plugins.join(&target)),
    }
}

fn number_in(path: &Path) -> Option<u32> {
    path.to_str()?.parse().ok()
}

fn gone(home: &Home, name: &str, dir: &Path, error: std::io::Error) -> Diagnostic {
    if error.kind() != ErrorKind::NotFound {
        return unreadable(dir, error);
    }
    let help = match origin(home, name, dir) {
        Origin::Packed(_) => format!(
            "`mfserv releases {name}` lists the others, `mfserv rollback {name} NUMBER` goes to \
             one, `mfserv install FILE` makes a new one"
        ),
        Origin::Dev | Origin::Internal => {
            format!(
                "put it back; or link another one: `mfserv dev DIR`; or `mfserv uninstall {name}`"
            )
        }
    };
    Diagnostic::error(format!("the directory of plugin {name} has gone"))
        .kind(Kind::BadConfiguration)
        .because(format!("its link leads to {}", dir.display()))
        .help(help)
}

fn problem_of(dir: &Path, name: &str) -> Option<Diagnostic> {
    match label::read_name(dir) {
        Err(problem) => Some(problem),
        Ok(label) if label != name => Some(
            Diagnostic::error(format!("the plugin in {} is not {name}", dir.display()))
                .kind(Kind::BadConfiguration)
                .because(format!("its .layerapi2_label says {label}")),
        ),
        Ok(_) => None,
    }
}

fn origin(home: &Home, name: &str, dir: &Path) -> Origin {
    if let Some(number) = releases::number_of(home, name, dir) {
        return Origin::Packed(number);
    }
    match fs::canonicalize(home.internal(name)).is_ok_and(|internal| internal == dir) {
        true => Origin::Internal,
        false => Origin::Dev,
    }
}

fn packed_version(dir: &Path) -> (String, String) {
    read_metadata(dir)
        .map(|said| (said.version, said.release))
        .unwrap_or_else(|| ("error".into(), "error".into()))
}

impl Claim {
    /// Whether [`Claim::link`] may be done with this directory; nothing is changed. True when
    /// it is done already.
    pub fn may_link(&self, dir: &Path) -> Result<bool, Diagnostic> {
        let dir = fs::canonicalize(dir).map_err(|e| disk::failed("read", dir, e))?;
        let name = label::read_name(&dir)?;
        if name != self.plugin {
            return Err(Diagnostic::error(format!(
                "this directory is not the plugin {}",
                self.plugin
            ))
            .because(format!("its .layerapi2_label says {name}")));
        }
        let link = self.home.link(&name);
        if fs::symlink_metadata(&link).is_err() {
            return Ok(false);
        }
        let there = look(&self.home, &self.home.plugins(), name.clone());
        if there.dir == dir {
            return Ok(true);
        }
        if there.origin != Origin::Dev || !link.is_symlink() {
            return Err(Diagnostic::error(format!("the plugin {name} is already installed"))
                .kind(Kind::Refused)
                .because(format!("from {}", there.dir.display()))
                .help(format!("mfserv uninstall {name}")));
        }
        Ok(false)
    }

    /// Makes a developer's directory the current plugin of its name; returns it. Done again with
    /// the same directory, nothing changes. A packed plugin of that name refuses.
    pub fn link(&self, dir: &Path) -> Result<Installed, Diagnostic> {
        if !self.may_link(dir)? {
            let dir = fs::canonicalize(dir).map_err(|e| disk::failed("read", dir, e))?;
            disk::create_dir(&self.home.plugins())?;
            disk::relink(&self.home.link(&self.plugin), &dir)?;
        }
        current(&self.home, &self.plugin)
    }

    /// What is installed; an error when it is not.
    pub fn current(&self) -> Result<Installed, Diagnostic> {
        current(&self.home, &self.plugin)
    }

    /// Where a plugin came from that has been unlinked: one that has releases, from a package.
    pub fn origin_before(&self) -> Origin {
        let numbers = releases::releases(&self.home, &self.plugin);
        numbers.last().map_or(Origin::Dev, |last| Origin::Packed(last.number))
    }

    /// Removes the link of the plugin, and no file of it: from here it is not
    /// installed any more. Returns what was installed.
    pub fn unlink(&self) -> Result<Installed, Diagnostic> {
        let installed = current(&self.home, &self.plugin)?;
        self.remember_variables()?;
        disk::remove(&self.home.link(&self.plugin))?;
        Ok(installed)
    }

    /// What is left of the plugin after [`Claim::unlink`], once nothing runs of it: its
    /// releases and temporary files; its overrides if no line of them is active; with `clean`
    /// its data, its overrides, the releases in which the app has left files, and what was made of the
    /// app to build it. Of a developer's directory nothing is removed. Returns what is said of what stays.
    pub fn remove_unlinked(
        &self,
        origin: Origin,
        clean: bool,
    ) -> Result<Vec<Diagnostic>, Diagnostic> {
        let overrides = self.home.override_file(&self.plugin);
        if matches!(origin, Origin::Packed(_)) && (clean || !has_active_line(&overrides)) {
            disk::remove(&overrides)?;
            disk::remove(&overrides.with_extension("ini.new"))?;
        }
        self.keep_variables(clean)?;
        let mut kept = releases::remove_releases(self, clean)?;
        let data = self.home.plugin_data(&self.plugin);
        match clean {
            true => {
                disk::remove(&data)?;
                // A command that builds it is a reason to leave that alone, and the rest is done.
                let left = remove_made(&self.home, &self.plugin).err();
                kept.extend(
                    left.map(|problem| Diagnostic { severity: Severity::Warning, ..problem }),
                );
            }
            // an empty one says nothing
            false => drop(fs::remove_dir(&data)),
        }
        Ok(kept)
    }

    /// Removes what was kept of a plugin that is not installed any more: releases in which the
    /// app has left files, its data, the overrides. False when it is installed, or nothing was
    /// kept.
    pub fn remove_kept(&self) -> Result<bool, Diagnostic> {
        let (home, plugin) = (&self.home, self.plugin.as_str());
        let places = [
            home.releases_of(plugin),
            home.plugin_data(plugin),
            home.override_file(plugin),
            home.variables_file(plugin),
            place_of(home, plugin, Purpose::Dev),
            place_of(home, plugin, Purpose::Deploy),
        ];
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        if check_plugin_name(plugin).is_err()
            || is_there(&home.link(plugin))
            || !places.iter().any(|place| is_there(place))
        {
            return Ok(false);
        }
        self.remove_unlinked(Origin::Packed(0), true).map(|_| true)
    }
}

/// True if an override file sets anything.
pub(super) fn has_active_line(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('['))
}
