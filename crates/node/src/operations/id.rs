//! The name of an operation.

use std::fmt;
use std::io::Read as _;
use std::str::FromStr;

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::clock;
use serde::{Deserialize, Serialize};

/// The most characters of an id.
const MAX_LEN: usize = 64;

/// The id of an operation: 1 to 64 of `a-z`, `0-9` and `-`. An asker may choose it: the same id
/// submitted again joins the operation instead of starting another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperationId(String);

impl OperationId {
    /// A new id, made from the time (milliseconds, base 36) and 32 random bits:
    /// `m5k2x9qf-3fa91c07`. Ids sort by time.
    pub fn new() -> OperationId {
        OperationId(format!("{}-{:08x}", base36(clock::now_ms()), random()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for OperationId {
    fn default() -> Self {
        OperationId::new()
    }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while digits.is_empty() || number > 0 {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
    }
    digits.into_iter().rev().collect()
}

fn random() -> u32 {
    let mut bytes = [0u8; 4];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u32::from_ne_bytes(bytes),
        // Two operations of one process are then told apart by their time alone.
        Err(_) => std::process::id(),
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<OperationId> for String {
    fn from(id: OperationId) -> String {
        id.0
    }
}

impl TryFrom<String> for OperationId {
    type Error = Diagnostic;

    fn try_from(text: String) -> Result<Self, Diagnostic> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match (1..=MAX_LEN).contains(&text.len()) && text.chars().all(allowed) {
            true => Ok(OperationId(text)),
            false => Err(Diagnostic::error(format!("{text:?} is not the id of an operation"))
                .kind(Kind::Usage)
                .because("an id has 1 to 64 of a-z, 0-9 and -")),
        }
    }
}

impl FromStr for OperationId {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Self, Diagnostic> {
        text.to_string().try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_has_no_special_characters_and_is_never_made_twice() {
        let ids: Vec<OperationId> = (0..100).map(|_| OperationId::new()).collect();
        for id in &ids {
            assert_eq!(id.as_str().parse::<OperationId>().unwrap(), *id);
        }
        let mut distinct = ids.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), ids.len());
        for bad in ["", "A", "a b", "../x", &"x".repeat(65)] {
            assert_eq!(bad.parse::<OperationId>().unwrap_err().kind, Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn a_later_id_sorts_after_an_earlier_one() {
        let text = |ms| base36(ms);
        assert!(text(1_700_000_000_000) < text(1_700_000_000_001));
        assert!(text(1_700_000_000_035) < text(1_800_000_000_000));
    }
}
