//! Hosts of no app. The front behind nginx knows them; nginx has to know those of this machine, where
//! it answers itself, and to end a connection when the front says so.

use std::collections::BTreeSet;

use mfserv_core::route::UnknownHost;

use super::Writer;
use crate::embedded::{EDGE_END, host_names};
use crate::nginx::text::{Text, literally, quoted};

impl Writer<'_> {
    /// Whether the host is none of this machine's, for what nginx answers itself.
    pub(super) fn unknown_hosts(&self, text: &mut Text) {
        let server = self.server;
        if server.unknown_host.status().is_none() || self.pieces.is_empty() {
            return;
        }
        text.block("map $host $mfserv_is_stranger", |text| {
            text.line("default 1;");
            text.line("\"~^(.*\\.)?localhost$\" 0;");
            text.line("\"~^127\\.[0-9]+\\.[0-9]+\\.[0-9]+$\" 0;");
            text.line("\"[::1]\" 0;");
            let names: BTreeSet<String> =
                host_names().iter().map(|name| name.to_ascii_lowercase()).collect();
            for name in names.iter().filter(|name| !name.is_empty() && *name != "localhost") {
                text.line(format!("{} 0;", quoted(&format!("~^{}$", literally(name)))));
            }
        });
    }

    /// In a server: what nginx does when the front wants no answer sent. No client can ask for it, and
    /// it needs none of the directives that fragments may have too.
    pub(super) fn silent_end(&self, text: &mut Text) {
        if self.server.unknown_host == UnknownHost::Close {
            text.block(&format!("location {EDGE_END}"), |text| text.line("return 444;"));
        }
    }

    /// In a location without a host that nginx answers itself.
    pub(super) fn no_strangers(&self, text: &mut Text) {
        if let Some(status) = self.server.unknown_host.status() {
            text.line(format!("if ($mfserv_is_stranger) {{ return {status}; }}"));
        }
    }
}
