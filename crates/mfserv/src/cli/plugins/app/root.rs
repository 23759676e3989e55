//! Whether an app is served at `/` of the node.

use mfserv_core::Diagnostic;
use mfserv_core::route::Route;
use mfserv_node::places::Places;
use mfserv_node::{configure, installed, taking};
use mfserv_plugin::Progress;

use super::App;

/// Whether an app is served at `/` of the node, unless options of it say that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Where no other plugin is.
    IfFree,
    /// In any case: it takes it from others, or nobody knows yet who is there.
    Always,
}

impl App {
    /// Whether it is served at `/`; says it if another plugin is there.
    pub(super) fn is_at_root(
        &self,
        places: &Places,
        root: Root,
        steps: &mut dyn Progress,
    ) -> Result<bool, Diagnostic> {
        if self.lasting.no_root || root == Root::Always {
            return Ok(!self.lasting.no_root);
        }
        let Some(Holder { plugin: holder, has_taken_it }) = root_holder(places, &self.name)? else {
            return Ok(true);
        };
        if has_taken_it {
            // It asks for it as before: else nobody would be there once the other one is gone.
            steps.notice(
                Diagnostic::warning(format!("{} does not get the requests of /", self.name))
                    .because(format!("{holder} has taken / from it"))
                    .help(format!(
                        "--take-route takes / back; it comes back by itself when {holder} is \
                         uninstalled, or deployed with --no-root"
                    )),
            );
            return Ok(true);
        }
        if !self.is_site() {
            steps.notice(
                Diagnostic::warning(format!("{} is not served at /", self.name))
                    .because(format!(
                        "{holder} is; {} is served at /{0}/ and, on this machine, at \
                         http://{0}.localhost",
                        self.name
                    ))
                    .help("--take-route takes / from it"),
            );
        }
        Ok(false)
    }
}

/// Who has the route `/` in place of an app.
struct Holder {
    plugin: String,
    /// The current release of the app asks for `/`, too.
    has_taken_it: bool,
}

/// The other plugin that has the route `/`.
fn root_holder(places: &Places, name: &str) -> Result<Option<Holder>, Diagnostic> {
    let module = configure::module(places, &[])?;
    let plan = taking::plan(places, &module, installed::configurations(places, &module, None)?);
    let is_root = |route: &&Route| route.prefix == "/" && route.host.is_none();
    let root = plan.table.routes.iter().find(|route| is_root(route) && route.plugin != name);
    let has_taken_it = plan.given_up.iter().any(|route| is_root(&route) && route.plugin == name);
    Ok(root.map(|route| Holder { plugin: route.plugin.clone(), has_taken_it }))
}
