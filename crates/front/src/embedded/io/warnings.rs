//! What an operator should know of: limits that were met, and what the front does not do.
//!
//! Each is a sentence with a count. Daemons get them with the counters, and `mfserv status`
//! shows them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use mfserv_core::wire::front::Warned;
use mfserv_platform::sync::lock;

use super::clock;

/// The most different sentences; some of them name apps.
const SENTENCES_MAX: usize = 256;

/// The sentences, with how often and when.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<BTreeMap<String, Warned>>);

impl Warnings {
    /// It has happened once more. True the first time.
    pub fn count(&self, sentence: &str) -> bool {
        let mut all = lock(&self.0);
        let last_ms = clock::unix_ms();
        if let Some(known) = all.get_mut(sentence) {
            *known = Warned { count: known.count + 1, last_ms, ..*known };
            return false;
        }
        let is_new = all.len() < SENTENCES_MAX;
        if is_new {
            all.insert(sentence.into(), Warned { count: 1, last_ms, ..Warned::default() });
        }
        is_new
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<String, Warned> {
        lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sentence_is_counted_and_there_is_a_limit_on_different_ones() {
        let warnings = Warnings::default();
        let first: Vec<bool> = ["a", "b", "a"].iter().map(|text| warnings.count(text)).collect();
        assert_eq!(first, [true, true, false]);
        for number in 0..1000 {
            warnings.count(&number.to_string());
        }
        let all = warnings.all();
        assert_eq!((all["a"].count, all["b"].count, all.len()), (2, 1, SENTENCES_MAX));
        assert!(all["a"].last_ms > 1_600_000_000_000);
    }
}
