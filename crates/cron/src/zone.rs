//! The zone whose wall clock decides. The one thing that this crate reads.

use std::io;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use crate::problem::Problem;

/// The local zone of this process: `TZ`, else `/etc/localtime`, else UTC, as localtime(5) has it.
/// Read again at most every five minutes.
///
/// # Errors
/// When `TZ` names no zone, or `/etc/localtime` is none: a caller goes on with UTC, and says so.
pub fn local_zone() -> Result<TimeZone, Problem> {
    TimeZone::try_system().or_else(|error| {
        let why = error.to_string();
        // Without /etc/localtime, only a TZ that is wrong is an error.
        if !why.contains("TZ") && is_utc(&Path::new("/etc/localtime").read_link()) {
            return Ok(TimeZone::UTC);
        }
        let help = "set TZ to a name below /usr/share/zoneinfo, such as Europe/Paris, or link \
                    /etc/localtime to one of its files (Debian's package is tzdata)";
        Err(Problem::error("the local time zone is not known", why, help))
    })
}

/// Whether `/etc/localtime`, which cannot be read, stands for UTC: it is not there, or links to
/// it, as in images without a zone database.
fn is_utc(link: &io::Result<PathBuf>) -> bool {
    match link {
        Ok(target) => target.ends_with("UTC"),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_a_zone_database_is_in_utc_unless_it_says_otherwise() {
        let link = |target: &str| Ok(PathBuf::from(target));
        assert!(is_utc(&Err(io::ErrorKind::NotFound.into())));
        assert!(is_utc(&link("/usr/share/zoneinfo/Etc/UTC")));
        assert!(is_utc(&link("../usr/share/zoneinfo/UTC")));
        assert!(!is_utc(&link("/usr/share/zoneinfo/Europe/Paris")));
        // A file, and not a link.
        assert!(!is_utc(&Err(io::ErrorKind::InvalidInput.into())));
    }
}
