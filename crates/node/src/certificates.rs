//! The certificates of a node, as its front would find them.
//!
//! Commands look at them in a process of their own, which ends. The daemon reads no key: only the
//! front does, and refuses settings that it cannot use.

use mfserv_core::{Diagnostic, Kind};

use crate::configure::Module;

/// Reads the certificates and keys of the configuration, and returns what is doubtful.
///
/// # Errors
/// Kind `BadConfiguration` if the front could serve nobody over TLS: which file is wrong, and why.
pub fn inspect(module: &Module) -> Result<Vec<Diagnostic>, Diagnostic> {
    let Some(settings) = module.resolution.config.tls_settings() else { return Ok(Vec::new()) };
    let help = "correct [nginx] ssl_certificate and ssl_certificate_key, or write https_port=null";
    let found = mfserv_front::inspect_tls(&settings).map_err(|why| {
        Diagnostic::error(format!("nobody could be served over TLS on port {}", settings.port))
            .kind(Kind::BadConfiguration)
            .because(why)
            .help(help)
    })?;
    let say = |problem: Diagnostic| problem.kind(Kind::BadConfiguration);
    let broken = found.faults.into_iter().map(|fault| say(Diagnostic::error(fault)));
    let soon = found.notes.into_iter().map(|note| say(Diagnostic::warning(note)));
    Ok(broken.chain(soon).collect())
}
