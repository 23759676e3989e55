//! How long a connection waits for its next request.

use std::time::Duration;

use mfserv_core::route::{HeadLimits, ServerSettings};

/// How long an idle connection of nginx is kept: far longer than nginx keeps it.
const EDGE_IDLE: Duration = Duration::from_secs(24 * 3600);

/// How long a client is waited for between requests. A copy of two settings, so that a
/// connection without a request keeps no table alive.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) head: HeadLimits,
}

impl Patience {
    /// The patience of these settings.
    pub fn of(settings: &ServerSettings) -> Self {
        Self {
            header: Duration::from_millis(settings.header_timeout_ms),
            idle: Duration::from_millis(settings.keepalive_timeout_ms),
            head: settings.request_head,
        }
    }

    /// The patience with nginx, which closes its idle connections itself: a request that it sends
    /// must never meet an end that it could not know of.
    pub fn for_edge(self) -> Self {
        Self { idle: EDGE_IDLE, ..self }
    }
}
