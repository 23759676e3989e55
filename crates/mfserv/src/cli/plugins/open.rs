//! `mfserv open`: where an app answers.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::names::WatcherName;
use mfserv_core::status::{PluginStatus, Status, WatcherStatus};
use mfserv_core::{Diagnostic, Kind};
use serde_json::json;

use super::app_names::{is_directory, no_app, parts};
use super::{env, python};
use crate::cli::report::{self, Outcome};
use crate::cli::{completions, print, print_json, reach};
use mfserv_node::places::Places;

/// Print where an app answers, and open it in a browser.
///
/// The browser is $BROWSER, else xdg-open on a desktop; without either the address is only printed.
#[derive(Debug, Args)]
pub struct Open {
    /// Only print the address.
    #[arg(long)]
    print: bool,
    /// Print the addresses as JSON, and open nothing.
    #[arg(long)]
    json: bool,
    /// The app (`foo.main`), the plugin (`foo`), or its directory.
    #[arg(add = ArgValueCompleter::new(completions::apps_or_directories))]
    app: String,
}

impl Open {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let is_directory = is_directory(&self.app);
        let status = reach::status(places)?;
        let urls = match is_directory {
            true => urls(&status, &env::name_of_directory(places, &self.app)?)?,
            false => urls(&status, &self.app)?,
        };
        if self.json {
            print_json(&json!({ "urls": urls }))?;
            return Ok(Outcome::Done);
        }
        for url in &urls {
            print(&format!("{url}\n"));
        }
        let Some(first) = urls.first().filter(|_| !self.print) else { return Ok(Outcome::Done) };
        if let Err(problem) = browse(first) {
            report::print_problem(&problem);
        }
        Ok(Outcome::Done)
    }
}

/// Where an app or a plugin answers: by TLS first, if the front has that.
fn urls(status: &Status, name: &str) -> Result<Vec<String>, Diagnostic> {
    let (plugin, app) = parts(name);
    let of_plugin = status.plugins.iter().find(|one| one.name == plugin).ok_or_else(|| {
        let names: Vec<&str> = status.plugins.iter().map(|one| one.name.as_str()).collect();
        Diagnostic::error(format!("the node serves no plugin {plugin}"))
            .kind(Kind::Usage)
            .help(format!("it serves {}", names.join(", ")))
    })?;
    let mut served = of_plugin.clone();
    if let Some(app) = app {
        let watcher = web_app(status, name, plugin, app)?;
        let (paths, hosts) = (watcher.path.iter().cloned().collect(), watcher.hosts.clone());
        served = PluginStatus { paths, hosts, ..served };
    }
    // No browser finds a wildcard.
    served.hosts.retain(|host| !host.contains('*'));
    let addresses: Vec<&String> =
        [&status.tls_address, &status.address].into_iter().flatten().collect();
    if addresses.is_empty() {
        return Err(Diagnostic::error("the node has no front")
            .kind(Kind::Refused)
            .because("[nginx] flag or port is 0"));
    }
    let urls: Vec<String> =
        addresses.into_iter().flat_map(|address| served.urls(address)).collect();
    match urls.is_empty() {
        true => Err(Diagnostic::error(format!("{name} answers nowhere"))
            .kind(Kind::Refused)
            .because("it has no route: it is no web app, or its routes are not in force")
            .help("`mfserv status` shows what runs")),
        false => Ok(urls),
    }
}

/// An app that answers requests.
fn web_app<'a>(
    status: &'a Status,
    name: &str,
    plugin: &str,
    app: &str,
) -> Result<&'a WatcherStatus, Diagnostic> {
    let of: Vec<&WatcherStatus> =
        status.watchers.iter().filter(|one| one.plugin.as_deref() == Some(plugin)).collect();
    let find = |own: WatcherName| of.iter().find(|one| one.name == own).copied();
    if let (Some(own), false) = (find(WatcherName::app(plugin, app)), name.starts_with("extra.")) {
        return Ok(own);
    }
    if find(WatcherName::extra(plugin, app)).is_some() {
        return Err(Diagnostic::error(format!("{name} answers nowhere"))
            .kind(Kind::Refused)
            .because("it is an extra daemon: no request is sent to it"));
    }
    let apps = of.iter().filter(|one| one.name.as_str().starts_with("app."));
    Err(no_app(plugin, app, &apps.map(|one| one.name.short()).collect::<Vec<_>>()))
}

/// Starts a browser, if there is one for people here. It lives on after us.
fn browse(url: &str) -> Result<(), Diagnostic> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let asked = set("BROWSER");
    let has_desktop = set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some();
    let usual =
        || Some("xdg-open".to_owned()).filter(|it| has_desktop && python::on_path(it).is_some());
    let Some(browsers) = asked.or_else(usual) else { return Ok(()) };
    let mut failed = Diagnostic::warning("no browser could be started");
    for browser in browsers.split(':') {
        let words = browser.split_whitespace().map(|word| word.replace("%s", url));
        let mut words: Vec<String> = words.collect();
        if !browser.contains("%s") {
            words.push(url.to_owned());
        }
        let Some((program, rest)) = words.split_first() else { continue };
        #[expect(clippy::disallowed_methods, reason = "a browser is started for who asked for it")]
        let mut command = Command::new(program);
        command.args(rest).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(_) => return Ok(()),
            Err(error) => failed = failed.because(format!("{program}: {error}")),
        }
    }
    Err(failed.help("open the address by hand; BROWSER names the program"))
}
