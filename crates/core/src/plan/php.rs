//! php-fpm behind `php_wrapper`: how many requests it handles at a time, and how long one may take.

use std::collections::BTreeMap;

use super::command::split_command;
use crate::route::Slots;

/// The command of MFSERV for apps of PHP.
const WRAPPER: &str = "php_wrapper";
const CORES_TWICE: &str = "MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2";
/// How many processes a php-fpm has at least and at most, unless its plugin says more.
const PROCESSES: [u32; 2] = [4, 32];

/// Tells `php_wrapper` how many requests php-fpm handles at a time; 0: as its own file says.
pub const PROCESSES_VARIABLE: &str = "MFSERV_PHP_PROCESSES";
/// Tells `php_wrapper` how long a request may take, seconds.
pub const TIMEOUT_VARIABLE: &str = "MFSERV_PHP_TIMEOUT";

/// Whether a command starts php-fpm by `php_wrapper`.
pub fn is_php_wrapper(command: &str) -> bool {
    split_command(command, &[], &[]).is_ok_and(|argv| is_wrapper(&argv))
}

pub(super) fn is_wrapper(argv: &[String]) -> bool {
    argv.first().is_some_and(|word| word == WRAPPER)
}

/// How many requests a php-fpm handles at a time: as many as it has processes. What would come above
/// would wait in a queue of php-fpm that nobody sees.
pub(super) fn slots(env: &BTreeMap<String, String>) -> Slots {
    let cores_twice = env.get(CORES_TWICE).and_then(|number| number.parse().ok());
    let [least, most] = PROCESSES;
    Slots::Finite { per_worker: cores_twice.unwrap_or(least).saturating_mul(2).clamp(least, most) }
}

/// What `php_wrapper` is told.
pub(super) fn variables(slots: Slots, timeout_s: u64) -> [(String, String); 2] {
    let processes = match slots {
        Slots::Finite { per_worker } => per_worker,
        Slots::Unlimited => 0,
    };
    [
        (PROCESSES_VARIABLE.into(), processes.to_string()),
        (TIMEOUT_VARIABLE.into(), timeout_s.to_string()),
    ]
}
