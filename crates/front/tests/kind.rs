//! The kind of front that is tested, as the environment names it.

use mfserv_front::Kind;

/// The variable with its name.
pub const VARIABLE: &str = "FRONT_KIND";

/// All kinds with their names. The first one is tested where the variable is not set.
pub const KINDS: [(&str, Kind); 2] = [("embedded", Kind::Embedded), ("nginx", Kind::Nginx)];

/// The kind in the environment.
pub fn under_test() -> (&'static str, Kind) {
    let Ok(name) = std::env::var(VARIABLE) else { return KINDS[0] };
    let known = KINDS.into_iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("{VARIABLE}: there is no kind of front {name:?}"))
}
