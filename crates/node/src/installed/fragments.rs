//! What plugins bring along for nginx.

use mfserv_core::Diagnostic;
use mfserv_core::keys::{FRONT_FRAGMENTS, FRONT_KIND};
use mfserv_core::route::Fragments;
use mfserv_plugin::environment::{Placed, variables};
use mfserv_plugin::fragments;

use super::Around;

/// What a plugin brings along for nginx, where that is the front.
pub(super) fn of(
    around: &Around<'_>,
    placed: Placed<'_>,
    dependencies: &[Placed<'_>],
) -> Result<Fragments, Vec<Diagnostic>> {
    let config = &around.module.resolution.config;
    let allowed = config.get(FRONT_FRAGMENTS);
    let is_named = |name: &str| name.trim() == placed.spec.name;
    let is_allowed = allowed.trim() == "all" || allowed.split(',').any(is_named);
    let is_nginx = config.get(FRONT_KIND) == "nginx";
    if !is_nginx || !is_allowed || !fragments::names_any(placed.spec) {
        return Ok(Fragments::default());
    }
    let env = variables(around.home, placed, dependencies, None, &around.module.env);
    let places = (&*around.home.plugins(), placed.dir);
    fragments::read(places, placed.spec, &env).map_err(|problem| vec![problem])
}
