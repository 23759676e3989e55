//! The files of a plugin that is made of an app.

use std::path::Path;

use mfserv_core::plan::{slots_of, split_command};
use mfserv_core::route::{Slots, host};

use super::built::MARK;
use super::script::Script;
use super::servers::{for_socket, trusts_front};
use super::{MADE_BY_US, PluginFile, Purpose, Wanted};
use crate::build::{build_words, node_tool};
use crate::discover::{Interface, Settings, Variable, Web};
use crate::dotenv;
use crate::store::COMPANIONS;

/// What is watched: sources, not what an app writes.
const WATCHED: &str = "\
*.py\n*.html\n*.jinja\n*.jinja2\n*.j2\n*.mako\n*.ejs\n*.pug\n*.hbs\n*.njk\n*.eta\n*.liquid\n*.mustache\n*.tmpl\n*.erb\n*.js\n*.mjs\n*.cjs\n*.ts\n*.tsx\n*.jsx\n*.rb\n*.php\n*.sh\n\
*.toml\n*.ini\n*.yml\n*.yaml\n*.sql\nProcfile\npackage.json\n";
pub(super) const INCLUDES: &str = ".autorestart_includes";
const NOT_WATCHED: &str = "\
node_modules/\n/bin/\n/local/\n/python3_virtualenv_sources/\ndist/\nbuild/\n.git/\n__pycache__/\n";

/// The files, for code in this directory below the plugin's (empty: its own).
pub(super) fn files(wanted: &Wanted<'_>, code: &str) -> Vec<PluginFile> {
    let finding = wanted.finding;
    let mut files = Files { wanted, code, list: Vec::new() };
    files.text(".layerapi2_label", format!("plugin_{}@mfserv\n", wanted.name));
    files.text(".plugin_format_version", format!("{}\n", env!("CARGO_PKG_VERSION")));
    files.text(".releaseignore", release_ignore(wanted, code));
    if finding.served().is_none() {
        // Only where it is developed from somewhere else there are builds, and a note of the last one.
        let has_mark =
            finding.build.is_some() && wanted.purpose == Purpose::Dev && !code.is_empty();
        let watched = match (has_mark, wanted.builds_at_edits) {
            (false, _) => WATCHED.into(),
            (true, false) => format!("{WATCHED}/{MARK}\n"),
            (true, true) => format!("/{MARK}\n"),
        };
        files.text(INCLUDES, watched);
        files.text(".autorestart_excludes", NOT_WATCHED.into());
    }
    if let Some(list) = &finding.python {
        let named = list.file.as_deref().filter(|file| file.ends_with(".txt"));
        let text = named.map_or_else(String::new, |file| {
            let below = Path::new(&list.dir).join(file);
            format!("-r {}\n", files.below(&below.to_string_lossy()))
        });
        files.text("python3_virtualenv_sources/requirements-to-freeze.txt", text);
        files.text("python3_virtualenv_sources/allow_binary_packages", String::new());
        // Its author has tried it with the newest packages, not with those of our base environment.
        files.text("python3_virtualenv_sources/override", String::new());
    }
    let variables = files.variables();
    if !variables.is_empty() {
        files.text(".layerapi2_extra_env", variables);
    }
    if let Some(text) = entry_module(wanted) {
        files.text("mfserv_app.py", text);
    }
    files.programs();
    let config = config(&files);
    files.text("config.ini", config);
    files.list
}

struct Files<'a> {
    wanted: &'a Wanted<'a>,
    code: &'a str,
    list: Vec<PluginFile>,
}

impl Files<'_> {
    fn text(&mut self, path: &str, text: String) {
        self.list.push(PluginFile { path: path.into(), text, is_program: false });
    }

    /// A path of the app, from the plugin's directory.
    fn below(&self, path: &str) -> String {
        match (self.code, path) {
            ("", path) => path.into(),
            (code, "") => code.into(),
            (code, path) => format!("{code}/{path}"),
        }
    }

    /// The variables of the plugin. Those of its node, and those of a `.env` while it is written, go
    /// before them.
    fn variables(&self) -> String {
        let Wanted { finding, purpose, .. } = self.wanted;
        let mut text = String::new();
        if finding.python.is_some() {
            text += &self.python_path();
        }
        // An app that reads its `.env` itself obeys a variable that it has before.
        let is_packed = |file: &String| file.trim_start_matches("./") == dotenv::FILE;
        let own = match self.wanted.named.iter().any(is_packed) {
            true => dotenv::names(self.wanted.source),
            false => Vec::new(),
        };
        for Variable { name, value, is_for_deployments } in &finding.variables {
            if own.iter().any(|own| own == name) || *is_for_deployments && *purpose == Purpose::Dev
            {
                continue;
            }
            // A directory that is a plugin itself is worked on with the same file.
            let is_said = *name == "NODE_ENV" && self.code.is_empty();
            text += if is_said { "# For deployments, with `mfserv env set`: " } else { "" };
            text += &format!("{name}={value}\n");
        }
        text
    }

    /// Where modules are imported from: the app's own directory first. While it is written that
    /// is the developer's, which tracebacks then name.
    fn python_path(&self) -> String {
        let root = match (self.wanted.purpose, self.code) {
            (Purpose::Dev, code) if !code.is_empty() => self.wanted.source.display().to_string(),
            (_, "") => "{MFSERV_CURRENT_PLUGIN_DIR}".into(),
            (_, code) => format!("{{MFSERV_CURRENT_PLUGIN_DIR}}/{code}"),
        };
        // Hooks, too, leave nothing in the developer's directory.
        let quiet = match self.wanted.purpose {
            Purpose::Dev => "PYTHONDONTWRITEBYTECODE=1\n",
            Purpose::Deploy => "",
        };
        let own = match self.module_root() {
            "" | "src" => String::new(),
            dir => format!("{root}/{dir}:"),
        };
        format!("PYTHONPATH={own}{root}:{root}/src:{{PYTHONPATH}}\n{quiet}")
    }

    /// Scripts for the lines of a Procfile, and the hook that runs before a release serves.
    fn programs(&mut self) {
        let finding = self.wanted.finding;
        if let (Some(Web::Command(line)), true) = (&finding.web, self.is_shell()) {
            let line = for_socket(line).unwrap_or_else(|| line.clone());
            self.script("bin/web", &line, trusts_front(&line));
        }
        for program in &finding.programs {
            self.script(&format!("bin/{}", program.name), &program.line, false);
        }
        if !finding.release.is_empty() {
            let steps = finding.release.join(" &&\n");
            self.script("postinstall", &format!("{{\n{steps}\n}} 2>&1"), false);
        }
    }

    fn script(&mut self, path: &str, line: &str, trusts_front: bool) {
        let text = Script { dir: self.code.into(), line: line.into(), trusts_front }.text();
        self.list.push(PluginFile { path: path.into(), text, is_program: true });
    }

    /// Its command is a line for a shell, of somebody else's.
    fn is_shell(&self) -> bool {
        self.wanted.finding.choice == "procfile"
    }

    /// The directory that a Python app's modules are imported from, below the app's.
    fn module_root(&self) -> &str {
        match &self.wanted.finding.web {
            Some(Web::Python { root, .. }) => root,
            _ => "",
        }
    }

    /// Begins a command that runs in the app's directory, or in the one below it that whoever starts
    /// the app goes into.
    fn inside(&self) -> String {
        let below = Some(self.module_root()).filter(|root| *root != "src").unwrap_or_default();
        match &self.below(below)[..] {
            "" => "env".into(),
            dir => format!("env -C {dir}"),
        }
    }
}

fn config(files: &Files<'_>) -> String {
    let Wanted { source, finding, name, .. } = files.wanted;
    let version = finding.version.as_deref().filter(|version| is_version(version));
    let mut text = format!(
        "{MADE_BY_US}{}:\n# {}.\n# `mfserv init` writes this file into that directory; it is yours then.\n\n\
         [general]\n_version={}\n_release=1\n_summary={name}: {}\n_license=Proprietary\n\
         _url=http://localhost/\n_maintainer=unknown\n_vendor=unknown\n\
         _add_plugin_dir_to_python_path={}\n",
        source.file_name().unwrap_or_default().to_string_lossy(),
        finding.sentence().replace(['\n', '{', '}'], " "),
        version.unwrap_or("0.0.1"),
        finding.title,
        u8::from(finding.python.is_some()),
    );
    if let Some(interpreter) = &finding.interpreter {
        text += &format!("_python={interpreter}\n");
    }
    if !finding.persistent.is_empty() {
        let paths: Vec<String> = finding.persistent.iter().map(|path| files.below(path)).collect();
        text += "# Data that outlives a release: it is kept in var/data.\n";
        text += &format!("_persistent_paths={}\n", paths.join(";"));
    }
    if let Some(web) = &finding.web {
        text += &app(files, web);
    }
    for program in &finding.programs {
        let command = format!("bin/{}", program.name);
        text += &match &program.schedule {
            Some(when) => {
                format!("\n[job_{}]\nschedule={when}\n_cmd_and_args={command}\n", program.name)
            }
            None => format!(
                "\n[extra_daemon_{}]\n_cmd_and_args={command}\nnumprocesses=1\n",
                program.name
            ),
        };
    }
    if files.code.is_empty() {
        text += &build(files.wanted);
    }
    text
}

/// The build of a directory that is a plugin itself: nobody else knows of its `build` script then.
fn build(wanted: &Wanted<'_>) -> String {
    if wanted.finding.build.is_none() {
        return "\n# A command that makes a part of what is packed, and what it makes:\n\
                # [build]\n# cmd=make assets\n# out=main/static\n"
            .into();
    }
    let out = match &wanted.finding.made {
        Some(dir) => format!("out={dir}\n"),
        None => "# What it makes is packed, and the command runs only if something has changed:\n\
                 # out=DIRECTORY\n"
            .into(),
    };
    let words = build_words(wanted.source, wanted.finding.member.as_ref()).join(" ");
    format!(
        "\n# Runs when a source has changed, before the plugin is packed or served.\n\
         [build]\ncmd={} {words}\n{out}",
        node_tool(wanted.source)
    )
}

fn app(files: &Files<'_>, web: &Web) -> String {
    let route = routes(files.wanted);
    if let Web::Files { dir, is_single_page } = web {
        let (app, directory) = match files.code {
            "" => (dir.as_str(), String::new()),
            code => (code, format!("/{dir}")),
        };
        let mut text = format!(
            "\n[app_{app}]\n_static_routing=1\n_static_url_prefix=\n_static_directory={}\n",
            directory.trim_end_matches('/')
        );
        if *is_single_page {
            text +=
                "# A path without a file is a route of the page.\n_static_fallback=/index.html\n";
        }
        return text + &route;
    }
    let (command, count) = command(files, web);
    let count = match count {
        Some(count) => format!("numprocesses={count}\n"),
        None => "# One process, as the app may keep things in its memory.\nnumprocesses=1\n".into(),
    };
    let strip = "# It gets its paths without /NAME, and /NAME as its prefix.\n_strip_prefix=1\n";
    let mut text =
        format!("\n[app_main]\n_cmd_and_args={command}\n{count}_static_routing=0\n{strip}{route}");
    if let (Web::Command(line), true) = (web, files.is_shell()) {
        let argv = split_command(line, &[], &[]).unwrap_or_default();
        match slots_of(&argv) {
            (Slots::Finite { per_worker }, keep) => {
                text += "# What its server takes at a time.\n";
                let keep = u8::from(keep);
                text += &format!("_requests_per_worker={per_worker}\n_keep_alive={keep}\n");
            }
            (Slots::Unlimited, true) => {
                text += "# Its server can have several requests on a connection.\n_keep_alive=1\n";
            }
            (Slots::Unlimited, false) => {}
        }
    }
    text
}

/// Where an app is served besides /NAME/.
fn routes(wanted: &Wanted<'_>) -> String {
    let own = host::configured(&format!("{}.localhost", wanted.name));
    let hosts: Vec<&str> = own.iter().chain(&wanted.lasting.hosts).map(String::as_str).collect();
    let own = match hosts.is_empty() {
        true => String::new(),
        false => format!("_hosts={}\n", hosts.join(",")),
    };
    match wanted.at_root {
        true => format!("{own}# It is served at / as well.\nprefix_based_routing_extra_routes=/\n"),
        false => own,
    }
}

/// The command of an app, and how many processes it gets; `None` for one.
fn command(files: &Files<'_>, web: &Web) -> (String, Option<&'static str>) {
    let socket = "\"{unix_socket_path}\"";
    match web {
        Web::Python { interface, module, callable, is_factory, is_django, .. } => {
            let own = if *is_factory || *is_django { "mfserv_app" } else { module };
            let name = if *is_factory || *is_django { "app" } else { callable };
            let kind = if *interface == Interface::Asgi { "--asgi" } else { "--wsgi" };
            let count = match (interface, files.wanted.purpose) {
                (Interface::Asgi, _) => None,
                (Interface::Wsgi, Purpose::Dev) if !files.code.is_empty() => Some("2"),
                (Interface::Wsgi, _) => Some("{{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}"),
            };
            let inside = files.inside();
            let line = format!(
                "{inside} mfserv_worker --timeout={{timeout}} {kind} {own}:{name} {socket}"
            );
            (line, count)
        }
        Web::Command(line) if files.is_shell() && for_socket(line).is_some() => {
            (format!("bin/web {socket}"), None)
        }
        // Without a socket in its command it has PORT, a number.
        Web::Command(_) if files.is_shell() => ("bin/web".into(), None),
        Web::Command(line) => (format!("{} {line}", files.inside()), None),
        Web::Files { .. } => (String::new(), None),
    }
}

/// The module that a worker imports where the app's own has no app yet.
fn entry_module(wanted: &Wanted<'_>) -> Option<String> {
    let Some(Web::Python { module, callable, is_factory, is_django, interface, .. }) =
        &wanted.finding.web
    else {
        return None;
    };
    if *is_django {
        let handler = match interface {
            Interface::Wsgi => "StaticFilesHandler",
            Interface::Asgi => "ASGIStaticFilesHandler",
        };
        let settings = match (&wanted.finding.settings, wanted.purpose) {
            (Some(Settings { developed, .. }), Purpose::Dev) => format!(
                "import os\n\n# As manage.py does, for who works on it.\n\
                 os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"{developed}\")\n"
            ),
            _ => String::new(),
        };
        return Some(format!(
            "\"\"\"Made by mfserv: while DEBUG is on, static files are served as runserver does.\"\"\"\n\n{settings}\
             from {module} import {callable} as app\nfrom django.conf import settings\n\n\
             if settings.DEBUG and \"django.contrib.staticfiles\" in settings.INSTALLED_APPS:\n    \
             from django.contrib.staticfiles.handlers import {handler}\n\n    app = {handler}(app)\n"
        ));
    }
    is_factory.then(|| {
        format!(
            "\"\"\"Made by mfserv: the app that {callable}() makes.\"\"\"\n\n\
             from {module} import {callable}\n\napp = {callable}()\n"
        )
    })
}

fn release_ignore(wanted: &Wanted<'_>, code: &str) -> String {
    let mut text = String::from(
        "/local\n/.mfserv-made-of\n/.mfserv-lasting\n__pycache__\n*.pyc\n.svn\n/.git/\n*.plugin\n",
    );
    let dir = wanted.finding.served().filter(|dir| !dir.is_empty() && !code.is_empty());
    if let Some(dir) = dir {
        text += &format!("/{code}/*\n!/{code}/{dir}\n");
    }
    if code.is_empty() {
        // Of a plugin what is packed is its own directory.
        for path in &data_of(wanted) {
            text += &format!("/{path}\n");
        }
    }
    for named in wanted.named {
        let named = named.trim_start_matches("./");
        text += &match code {
            "" => format!("!/{named}\n"),
            code => format!("!/{code}/{named}\n"),
        };
    }
    text
}

/// The data of the developer, which the deployed app has of its own.
fn data_of(wanted: &Wanted<'_>) -> Vec<String> {
    let with_logs = |path: &String| COMPANIONS.map(|end| format!("{path}{end}"));
    wanted.finding.persistent.iter().flat_map(with_logs).collect()
}

fn is_version(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    !text.is_empty() && text.len() < 50 && text.chars().all(good)
}
