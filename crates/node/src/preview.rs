//! The preview of an installation: what it would do. Nothing is written, and no program of the
//! package is run.

mod ports;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_core::ini::{self, Dialect, Document};
use mfserv_core::keys::FRONT_KIND;
use mfserv_core::plan::{Loaded, Plan, PluginInput, split_command};
use mfserv_core::plugin_spec::{CommandSpec, PluginSpec};
use mfserv_core::route::Target;
use mfserv_plugin::archive::{self, Inspected, Kind as MemberKind, Limits, Metadata};
use mfserv_plugin::build::{PYTHON_SOURCES, WHEELS_MARK, check_wheels, frozen_requirements};
use mfserv_plugin::python2::{SOURCE_FILES, is_python2};
use mfserv_plugin::store::{self, Forecast};
use mfserv_plugin::{Home, base, dangers, label, python};
use serde::Serialize;

use crate::configure::{self, Module};
use crate::installed::{self, Texts};
use crate::places::Places;
use crate::taking;

/// The exact versions of the Python packages of a plugin, and where these are packed: for Python 3,
/// for Python 2.
const PACKAGES: [(&str, &str); 2] = [
    ("python3_virtualenv_sources/requirements3.txt", "python3_virtualenv_sources/src/"),
    ("python2_virtualenv_sources/requirements2.txt", "python2_virtualenv_sources/src/"),
];

/// What the installation of a package would do.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// The plugin.
    pub name: String,
    /// What the package says about itself.
    pub package: Metadata,
    /// The program that made it; `null` for a package of MFSERV.
    pub builder: Option<String>,
    /// The sizes of the package and of its release.
    pub sizes: Sizes,
    /// The number of the release that it would become.
    pub number: u32,
    /// Where that release would be.
    pub dir: PathBuf,
    /// The release that it would replace.
    pub replaces: Option<Replaced>,
    /// The old releases that would be removed.
    pub removes: Vec<u32>,
    /// The interpreters that it was built with, by language.
    pub interpreters: BTreeMap<String, String>,
    /// The installation would run its `postinstall`.
    pub postinstall: bool,
    /// The paths that are kept outside of its releases.
    pub persistent_paths: Vec<PathBuf>,
    /// The plugins that it depends on.
    pub dependencies: Vec<Dependency>,
    /// The apps.
    pub apps: Vec<App>,
    /// The extra daemons.
    pub extra_daemons: Vec<Command>,
    /// The lines of its crontab.
    pub jobs: Vec<String>,
    /// The address of the front that would serve it.
    pub served_at: Option<String>,
    /// The ports that its commands name.
    pub ports: Vec<u16>,
    /// Keys with which it could break other plugins.
    pub dangers: Vec<String>,
    /// Problems. With an error among them the package would be refused.
    pub problems: Vec<Diagnostic>,
}

/// Sizes, bytes.
#[derive(Debug, Serialize)]
pub struct Sizes {
    /// The package.
    pub packed_bytes: u64,
    /// Its release, without the environments that are built from it.
    pub unpacked_bytes: u64,
    /// The files of its release.
    pub files: u64,
    /// The free space.
    pub free_bytes: Option<u64>,
}

/// A release that would be replaced.
#[derive(Debug, Serialize)]
pub struct Replaced {
    /// `_version` of it.
    pub version: String,
    /// `_release` of it.
    pub release: String,
    /// Its directory.
    pub dir: PathBuf,
}

/// A plugin that is depended on.
#[derive(Debug, Serialize)]
pub struct Dependency {
    /// Its name.
    pub plugin: String,
    /// Whether it may be missing.
    pub optional: bool,
    /// Whether it is installed.
    pub installed: bool,
}

/// A program that would be kept running.
#[derive(Debug, Serialize)]
pub struct Command {
    /// Its name, without `app_` or `extra_daemon_`.
    pub name: String,
    /// How many of it.
    pub workers: u32,
    /// The command, as written; empty = none.
    pub command: String,
}

/// An app.
#[derive(Debug, Serialize)]
pub struct App {
    /// Its program.
    #[serde(flatten)]
    pub command: Command,
    /// The prefixes of the URLs that its workers answer.
    pub routes: Vec<String>,
    /// Prefixes of URLs, and the directory whose files answer them.
    pub files: Vec<(String, PathBuf)>,
}

/// Previews the installation of a package. The whole package is checked, as an installation does.
pub fn of_package(places: &Places, file: &Path) -> Result<Preview, Diagnostic> {
    let marks = PACKAGES.map(|(_, wheels)| format!("{wheels}{WHEELS_MARK}"));
    let wanted = [
        "config.ini",
        "crontab",
        ".plugin_format_version",
        ".layerapi2_dependencies",
        PACKAGES[0].0,
        PACKAGES[1].0,
        marks[0].as_str(),
        marks[1].as_str(),
    ];
    let inspected = archive::inspect(file, Limits::default(), &wanted)?;
    let packed_bytes = std::fs::metadata(file).map_or(0, |found| found.len());
    let module = configure::module(places, &[])?;
    let home = Home::new(places.home());
    let forecast = store::forecast(&home, &inspected.package.name, &inspected);
    let inspection = Inspection { places, home, module, inspected, forecast };
    let mut preview = inspection.of_package(packed_bytes);
    inspection.add_configuration(&mut preview)?;
    Ok(preview)
}

/// The inputs of a preview.
struct Inspection<'a> {
    places: &'a Places,
    home: Home,
    module: Module,
    inspected: Inspected,
    forecast: Forecast,
}

impl Inspection<'_> {
    fn bytes(&self, path: &str) -> Option<&[u8]> {
        self.inspected.texts.get(path).map(Vec::as_slice)
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.bytes(path).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    fn has(&self, path: &str) -> bool {
        self.inspected.paths.contains(path)
    }

    /// The part of the preview that needs no configuration.
    fn of_package(&self, packed_bytes: u64) -> Preview {
        let package = &self.inspected.package;
        let manifest = package.manifest.as_ref();
        let Forecast { number, dir, replaces, removes, free_bytes, problems } =
            self.forecast.clone();
        let replaces = replaces.map(|there| Replaced {
            version: there.version,
            release: there.release,
            dir: there.dir,
        });
        let jobs = installed::jobs::of(self.bytes("crontab").unwrap_or_default());
        let sizes = Sizes {
            packed_bytes,
            unpacked_bytes: self.inspected.bytes,
            files: self.inspected.files,
            free_bytes,
        };
        Preview {
            name: package.name.clone(),
            package: package.metadata.clone(),
            builder: manifest.map(|manifest| manifest.builder.clone()),
            sizes,
            number,
            dir,
            replaces,
            removes,
            interpreters: manifest.map(|m| m.interpreters.clone()).unwrap_or_default(),
            postinstall: self.has_postinstall(),
            persistent_paths: Vec::new(),
            dependencies: self.dependencies(),
            apps: Vec::new(),
            extra_daemons: Vec::new(),
            jobs: jobs.into_iter().map(|(_, line)| line).collect(),
            served_at: None,
            ports: Vec::new(),
            dangers: Vec::new(),
            problems,
        }
    }

    /// Adds what its configuration says, with the overrides of this node.
    fn add_configuration(&self, preview: &mut Preview) -> Result<(), Diagnostic> {
        let name = &self.inspected.package.name;
        let own = match self.own_config() {
            Ok(own) => own,
            Err(problem) => {
                preview.problems.push(problem);
                return Ok(());
            }
        };
        let texts = Texts {
            dir: &self.forecast.dir,
            format_version: self.text(".plugin_format_version").map(str::to_owned),
            config: own,
            is_file: &|path| self.has(path),
            layers: self.text(".layerapi2_dependencies").unwrap_or_default().to_owned(),
            has_python2_sources: SOURCE_FILES.iter().any(|file| self.has(file)),
        };
        let resolved = installed::resolve(Some(&self.home), name, texts, &self.module);
        let (spec, warnings) = match resolved {
            Ok(resolved) => resolved,
            Err(problems) => {
                preview.problems.extend(problems);
                return Ok(());
            }
        };
        let is_nginx = self.module.resolution.config.get(FRONT_KIND) == "nginx";
        preview.dangers = dangers::dangers(&spec, is_nginx);
        preview.persistent_paths = spec.general.persistent_paths.clone();
        let commands = spec.apps.iter().map(|app| &app.command);
        preview.ports = ports::named(
            commands
                .chain(spec.extra_daemons.iter().map(|extra| &extra.command))
                .filter(|command| command.count > 0)
                .map(|command| split_command(&command.command, &[], &[]).unwrap_or_default()),
        );
        preview.problems.extend(self.missing_interpreters(&spec));
        let crontab = self.bytes("crontab").unwrap_or_default();
        let dir = &self.forecast.dir;
        let doubts = installed::jobs::problems(&spec, dir, crontab, &self.module.env);
        preview.problems.extend(doubts);
        let links = &self.inspected.links;
        let is_link = |path: &Path| path.to_str().is_some_and(|path| links.contains(path));
        let kept = store::check_persistent_paths(&spec.general.persistent_paths, &is_link);
        preview.problems.extend(kept.err());
        self.add_plan(spec, warnings, preview)
    }

    fn own_config(&self) -> Result<Option<Document>, Diagnostic> {
        let parse = |bytes| ini::parse_bytes(bytes, "config.ini", Dialect::Plugin);
        self.bytes("config.ini").map(parse).transpose()
    }

    /// Plans the node with and without the package; adds only new problems.
    fn add_plan(
        &self,
        spec: PluginSpec,
        warnings: Vec<Diagnostic>,
        preview: &mut Preview,
    ) -> Result<(), Diagnostic> {
        let mut plugins = installed::configurations(self.places, &self.module, None)?;
        let needed = installed::check_dependencies(
            &spec.name,
            self.direct_dependencies(),
            &self.forecast.dir,
            &plugins,
        );
        preview.problems.extend(needed.err().unwrap_or_default());
        let plan = |plugins| taking::plan(self.places, &self.module, plugins);
        let now = plan(plugins.clone());
        plugins.retain(|plugin| plugin.name != spec.name);
        let without = plan(plugins.clone());
        plugins.push(PluginInput {
            name: spec.name.clone(),
            dir: self.forecast.dir.clone(),
            loaded: Ok(Loaded::without_environment(spec.clone(), warnings)),
        });
        let with = plan(plugins);
        let taken = taking::refuse(&spec.name, &now.newly_taken(&spec.name, &with));
        preview.problems.extend(taken.err());
        let config = &self.module.resolution.config;
        let (plain, tls) = (config.listen_addresses(), config.tls_addresses());
        preview.served_at = plain.first().or(tls.first()).map(|address| address.to_string());
        preview.apps = spec.apps.iter().map(|app| app_of(&app.command, &spec, &with)).collect();
        preview.extra_daemons =
            spec.extra_daemons.iter().map(|extra| command_of(&extra.command)).collect();
        let new = with.problems.into_iter().filter(|problem| !without.problems.contains(problem));
        preview.problems.extend(new);
        Ok(())
    }

    fn has_postinstall(&self) -> bool {
        let Some(manifest) = &self.inspected.package.manifest else {
            return self.has("postinstall");
        };
        manifest.members.iter().any(|member| {
            let executable =
                matches!(member.kind, MemberKind::File { mode, .. } if mode & 0o111 != 0);
            member.path == "postinstall" && executable
        })
    }

    fn direct_dependencies(&self) -> Vec<(String, bool)> {
        label::dependencies_in(self.text(".layerapi2_dependencies").unwrap_or_default())
    }

    fn dependencies(&self) -> Vec<Dependency> {
        let own = &self.inspected.package.name;
        let others = self.direct_dependencies().into_iter().filter(|(plugin, _)| plugin != own);
        let known = |plugin: String, optional| Dependency {
            installed: store::current(&self.home, &plugin).is_ok(),
            plugin,
            optional,
        };
        others.map(|(plugin, optional)| known(plugin, optional)).collect()
    }

    /// Interpreters that are missing, or that its packages were not compiled for.
    fn missing_interpreters(&self, spec: &PluginSpec) -> Vec<Diagnostic> {
        let files = &self.inspected.paths;
        let mut problems = Vec::new();
        let has = |dir: &str| {
            files
                .iter()
                .any(|file| file.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')))
        };
        let is_2 = spec.general.python.as_deref().is_some_and(is_python2);
        if PYTHON_SOURCES.into_iter().any(has) || base::runs_python(spec) {
            let (frozen, packed) = PACKAGES[usize::from(is_2 && has(PYTHON_SOURCES[1]))];
            let mark = self.text(&format!("{packed}{WHEELS_MARK}")).unwrap_or_default();
            let wheels: Vec<&str> =
                files.iter().filter_map(|file| file.strip_prefix(packed)).collect();
            let list = self.forecast.dir.join(frozen);
            let text = std::str::from_utf8(self.bytes(frozen).unwrap_or_default());
            let text = text.map_err(|e| {
                Diagnostic::error(format!("can't read {}", list.display())).because(e)
            });
            let exact = text.and_then(|text| frozen_requirements(text, &list));
            let fits = exact.and_then(|exact| {
                let interpreter = python::find(spec.general.python.as_deref())?;
                check_wheels(&exact, &wheels, mark, &interpreter)
            });
            problems.extend(fits.err());
        }
        if self.has("package.json") && python::on_path("node").is_none() {
            problems.push(
                Diagnostic::error("the interpreter node is not there")
                    .because("the plugin has a package.json")
                    .help("apt-get install nodejs"),
            );
        }
        problems
    }
}

fn command_of(spec: &CommandSpec) -> Command {
    Command { name: spec.name.clone(), workers: spec.count, command: spec.command.clone() }
}

fn app_of(command: &CommandSpec, spec: &PluginSpec, plan: &Plan) -> App {
    let mut app = App { command: command_of(command), routes: Vec::new(), files: Vec::new() };
    let own = |plugin: &str, of: &str| plugin == spec.name && of == command.name;
    for route in plan.table.routes.iter().filter(|route| own(&route.plugin, &route.app)) {
        match &route.target {
            Target::Static { root } | Target::Site { root, .. } => {
                app.files.push((route.label(), root.clone()))
            }
            Target::Upstream { .. } | Target::Fixed { .. } => app.routes.push(route.label()),
        }
    }
    app
}
