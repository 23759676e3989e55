//! The zone whose wall clock decides.

use jiff::tz::TimeZone;

use crate::problem::Problem;

/// The local zone of this process: `TZ`, else `/etc/localtime`. Read again at most every five
/// minutes.
///
/// # Errors
/// When `TZ` names no zone, or `/etc/localtime` is none: a caller goes on with UTC, and says so.
pub fn local_zone() -> Result<TimeZone, Problem> {
    TimeZone::try_system().map_err(|error| {
        Problem::error(
            "the local time zone is not known",
            error.to_string(),
            "set TZ to a name below /usr/share/zoneinfo, such as Europe/Paris, or link \
             /etc/localtime to one of its files",
        )
    })
}
