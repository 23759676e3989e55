//! An existing app, which is no plugin: found, and made one in the runtime home.

mod choice;
mod root;

use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::names::check_plugin_name;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::build::{self, BuildOptions};
use mfserv_plugin::discover::{self, Finding, Listing, versions};
use mfserv_plugin::generate::{self, Asked, Copied, Lasting, NodeBuilt, Purpose, Wanted};
use mfserv_plugin::sources::Sources;
use mfserv_plugin::{Cancel, Home, Progress};

use super::env::is_plugin;
use super::{build_options, cancel};
use crate::cli::print;
use choice::{ask, can_ask, still_possible};
use mfserv_node::places::Places;
pub use root::Root;

#[derive(Debug, Default, Args)]
pub struct AppArgs {
    /// The name of an app whose directory is no plugin; it is served at /NAME. Else that of the
    /// directory.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What an app is, where several answers are possible: procfile, django, node, static,
    /// program, MODULE:CALLABLE of a Python app, or the file of a Python program. `dev`, `build`,
    /// `release` and `deploy` keep it until another one is given.
    #[arg(long = "as", value_name = "KIND")]
    kind: Option<String>,
}

impl AppArgs {
    /// How the plugin of an app in this directory is called.
    pub fn name_in(&self, dir: &Path) -> Result<String, Diagnostic> {
        match &self.name {
            Some(name) => check_plugin_name(name).map(|()| name.clone()).map_err(|because| {
                Diagnostic::error(format!("the name {name:?} is not valid"))
                    .kind(Kind::Usage)
                    .because(because)
            }),
            None => generate::name_of(&dir.canonicalize().unwrap_or_else(|_| dir.to_owned())),
        }
    }

    /// Refuses options of an app where no app is named.
    pub fn refuse_without_directory(&self) -> Result<(), Diagnostic> {
        match self.name.is_none() && self.kind.is_none() {
            true => Ok(()),
            false => Err(Diagnostic::error("there is no app to check")
                .kind(Kind::Usage)
                .because("--name and --as are for the app of a directory")
                .help("name the directory: `mfserv check DIR`")),
        }
    }
}

/// Options that a plugin has in its own files.
pub fn refuse_for_plugin(dir: &Path, asked: &Asked) -> Result<(), Diagnostic> {
    let Asked { hosts, no_hosts, persistent, no_persistent, root, packed: _ } = asked;
    let lists = [hosts, no_hosts, persistent, no_persistent];
    match lists.iter().all(|all| all.is_empty()) && root.is_none() {
        true => Ok(()),
        false => Err(Diagnostic::error(format!("{} is a plugin", dir.display()))
            .kind(Kind::Usage)
            .because("options of host names, persistent paths and / are for apps that are none")
            .help(
                "its config.ini says it: _hosts=… and prefix_based_routing_extra_routes=/ of the \
                 app, _persistent_paths=… of [general]",
            )),
    }
}

/// What is said of options that were taken back.
pub fn say_taken_back(name: &str, asked: &Asked) {
    for host in &asked.no_hosts {
        print(&format!("taken back: {name} does not answer at {host} any more\n"));
    }
    for path in &asked.no_persistent {
        print(&format!(
            "taken back: {path} is a part of each release of {name}; what it had there stays in \
             var/data/{name}\n"
        ));
    }
}

/// An app in a directory of its own.
#[derive(Debug, Clone)]
pub struct App {
    /// Its directory, a real path.
    dir: PathBuf,
    finding: Finding,
    /// How its plugin is called.
    pub name: String,
    /// It is built again at each edit.
    pub builds_at_edits: bool,
    /// Its `build` script runs also if nothing has changed.
    pub is_fresh: bool,
    /// Options of deployments.
    lasting: Lasting,
    /// What somebody has chosen it to be run as, now or before.
    chosen: Option<String>,
    /// That was before.
    is_as_before: bool,
    /// The versions that it asks for and does not get, and other warnings.
    unfulfilled: Vec<Diagnostic>,
}

impl App {
    /// The app in a directory; `None` if that is a plugin. `earlier`: whose commands of before have
    /// chosen what it is run as.
    pub fn of(
        dir: &Path,
        args: &AppArgs,
        earlier: Option<(&Places, Purpose)>,
    ) -> Result<Option<App>, Diagnostic> {
        if is_plugin(dir) {
            let asked = args.name.is_some() || args.kind.is_some();
            return match asked {
                false => Ok(None),
                true => Err(Diagnostic::error(format!("{} is a plugin", dir.display()))
                    .kind(Kind::Usage)
                    .because("--name and --as are for apps that are none")
                    .help("its .layerapi2_label has its name, and its config.ini what it runs")),
            };
        }
        let listing = Listing::read(dir)?;
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let readings = discover::readings(&listing);
        let name = args.name_in(&dir);
        let mut unfulfilled = Vec::new();
        let before = earlier.filter(|_| args.kind.is_none()).zip(name.as_ref().ok());
        let before = before.and_then(|((places, purpose), name)| {
            let place = generate::place_of(&Home::new(places.home()), name, purpose);
            still_possible(Lasting::read(&place).read_as?, &readings, &mut unfulfilled)
        });
        let is_as_before = before.is_some();
        let chosen = match (args.kind.clone().or(before), &discover::best(&readings)[..]) {
            (None, best @ [_, _, ..]) if can_ask() => Some(ask(best)?),
            (kind, _) => kind,
        };
        let mut finding = discover::choose(&readings, chosen.as_deref(), &dir)?;
        if let Some(packages) = &finding.python {
            discover::other_lists(&listing, packages)?;
            match versions::python(&listing, &packages.dir) {
                Ok(interpreter) => finding.interpreter = interpreter,
                Err(problem) => unfulfilled.push(problem),
            }
        }
        if listing.has("package.json") {
            build::refuse_member(&dir)?;
            let version = build::node_version(&BuildOptions::new(Home::new(&dir)));
            unfulfilled.extend(version.ok().and_then(|it| versions::node(&listing, it.trim())));
        }
        Ok(Some(App {
            dir,
            finding,
            name: name?,
            builds_at_edits: false,
            is_fresh: false,
            lasting: Lasting::default(),
            chosen,
            is_as_before,
            unfulfilled,
        }))
    }

    /// What was found and why.
    pub fn sentence(&self) -> String {
        let sentence = self.finding.sentence();
        match self.is_as_before {
            true => format!(
                "{sentence}; run as {}, as before (another --as changes that)",
                self.finding.choice
            ),
            false => sentence,
        }
    }

    /// Takes options that stay, and those that earlier commands had.
    pub fn take_options(
        &mut self,
        places: &Places,
        purpose: Purpose,
        asked: &Asked,
    ) -> Result<(), Diagnostic> {
        let found = |path: &&String| self.finding.persistent.contains(path);
        if let Some(path) = asked.no_persistent.iter().find(found) {
            return Err(Diagnostic::error(format!("--no-persist {path} takes nothing back"))
                .kind(Kind::Usage)
                .because("the settings of the app say that its data are there: it stays persistent")
                .help("leave the option out"));
        }
        let place = self.place(places, purpose);
        if purpose == Purpose::Dev {
            // Its own directory is used: whatever the app writes there stays.
            self.lasting = Lasting::with(&place, asked)?;
            self.lasting.read_as = self.chosen.clone();
            return Ok(());
        }
        let kept = generate::kept(&place, &self.dir, &self.finding, asked)?;
        self.unfulfilled.extend(kept.warnings);
        self.lasting = Lasting { read_as: self.chosen.clone(), ..kept.lasting };
        self.finding.persistent = kept.paths;
        Ok(())
    }

    /// Its options are those of later commands, too: it is served with them.
    pub fn keep_options(&self, places: &Places, purpose: Purpose) -> Result<(), Diagnostic> {
        self.lasting.keep(&self.place(places, purpose))
    }

    /// Makes the directory in the home that its plugin is made in.
    pub fn make_place(&self, places: &Places, purpose: Purpose) -> Result<PathBuf, Diagnostic> {
        let place = self.place(places, purpose);
        mfserv_platform::disk::create_dir(&place).map(|()| place)
    }

    fn place(&self, places: &Places, purpose: Purpose) -> PathBuf {
        generate::place_of(&Home::new(places.home()), &self.name, purpose)
    }

    /// Makes the plugin in the home, and builds what the tools of Node build. Returns its
    /// directory and what was built.
    pub fn make(
        &self,
        places: &Places,
        purpose: Purpose,
        named: &[String],
        root: Root,
        steps: &mut dyn Progress,
    ) -> Result<(PathBuf, NodeBuilt), Diagnostic> {
        self.unfulfilled.iter().for_each(|one| steps.notice(one.clone()));
        let wanted = self.wanted(purpose, self.is_at_root(places, root, steps)?, named);
        let usual = build_options(places, &cancel()?);
        let options = BuildOptions { is_fresh: self.is_fresh, ..usual };
        let (place, copied) = generate::generate(&wanted, &options)?;
        say_not_copied(&copied, steps);
        let built = generate::build_node(&place, &wanted, Some(&copied), &options, steps)?;
        Ok((place, built))
    }

    /// Makes the plugin in another home, only to be looked at: nothing is copied and built. Returns
    /// its directory.
    pub fn make_aside(
        &self,
        places: &Places,
        aside: Home,
        steps: &mut dyn Progress,
    ) -> Result<PathBuf, Diagnostic> {
        self.unfulfilled.iter().for_each(|one| steps.notice(one.clone()));
        let root = self.is_at_root(places, Root::IfFree, steps)?;
        let wanted = self.wanted(Purpose::Dev, root, &[]);
        Ok(generate::generate(&wanted, &BuildOptions::new(aside))?.0)
    }

    /// Whether a script builds what is served of it.
    pub fn has_build(&self) -> bool {
        self.finding.build.is_some()
    }

    /// The sources that its build reads.
    pub fn sources(&self) -> Sources {
        Sources::of(&self.dir, self.finding.served())
    }

    /// Builds it again where it is developed, and lets the result serve; if the build fails, what
    /// was built before goes on.
    pub fn build_again(
        &self,
        places: &Places,
        cancel: Cancel,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let home = Home::new(places.home());
        let place = generate::place_of(&home, &self.name, Purpose::Dev);
        let options = BuildOptions { is_fresh: true, ..build_options(places, &cancel) };
        let wanted = self.wanted(Purpose::Dev, false, &[]);
        generate::build_node(&place, &wanted, None, &options, progress).map(drop)
    }

    /// From now on nobody builds it again at edits: the node follows its files itself.
    pub fn leave_to_node(&mut self, places: &Places) -> Result<(), Diagnostic> {
        self.builds_at_edits = false;
        let place = generate::place_of(&Home::new(places.home()), &self.name, Purpose::Dev);
        generate::watch_sources(&place, &self.wanted(Purpose::Dev, false, &[]))
    }

    /// Its paths are the same below any prefix.
    fn is_site(&self) -> bool {
        self.finding.served().is_some()
    }

    /// Makes its own directory a plugin; returns the files that were written.
    pub fn write_into(&self) -> Result<Vec<String>, Diagnostic> {
        generate::write_into(&self.wanted(Purpose::Deploy, true, &[]))
    }

    fn wanted<'a>(&'a self, purpose: Purpose, at_root: bool, named: &'a [String]) -> Wanted<'a> {
        Wanted {
            source: &self.dir,
            finding: &self.finding,
            name: &self.name,
            purpose,
            at_root,
            builds_at_edits: self.builds_at_edits,
            lasting: &self.lasting,
            named,
        }
    }
}

/// Says which files of an app are not in its package, and why.
fn say_not_copied(copied: &Copied, steps: &mut dyn Progress) {
    if !copied.secrets.is_empty() {
        steps.notice(
            Diagnostic::warning(format!("not deployed: {}", copied.secrets.join(", ")))
                .because("it holds secrets, by its name")
                .help(
                    "`--env-file FILE` gives the app the variables of one; --pack FILE \
                     deploys one all the same",
                ),
        );
    }
    if !copied.data.is_empty() {
        steps.log(&format!(
            "not deployed: {} (the app has its own data there)",
            copied.data.join(", ")
        ));
    }
    if !copied.unnamed.is_empty() {
        steps.notice(
            Diagnostic::warning(format!("not deployed: {}", copied.unnamed.join(", ")))
                .because("its name is not UTF-8, as names in packages are")
                .help("rename it if the app needs it"),
        );
    }
}
