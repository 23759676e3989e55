//! Routes of the app `p/a` for tests.

use mfserv_core::route::{Route, Target};

/// A route without a host.
pub fn route(prefix: &str, target: Target) -> Route {
    Route {
        host: None,
        prefix: prefix.into(),
        pattern: false,
        strip_prefix: false,
        maintenance: None,
        error_pages: None,
        target,
        plugin: "p".into(),
        app: "a".into(),
    }
}
