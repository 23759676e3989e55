//! Variables whose values are shown nowhere.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Variables of an environment whose values only the process gets that has them. They are apart
/// from the other variables, so that whoever shows an environment does not have them; written to
/// the node's own files, which its user alone can read, they are whole.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The environment of a process: these variables and the others.
    pub fn with(&self, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut whole = env.clone();
        whole.extend(self.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        whole
    }

    /// Without those that are set among these.
    pub fn without(mut self, others: &BTreeMap<String, String>) -> Self {
        self.0.retain(|name, _| !others.contains_key(name));
        self
    }

    /// The names of those that differ.
    pub fn different<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let changed = self.0.iter().filter(|(name, value)| other.0.get(*name) != Some(*value));
        let gone = other.0.keys().filter(|name| !self.0.contains_key(*name));
        changed.map(|(name, _)| name.as_str()).chain(gone.map(String::as_str))
    }
}

impl FromIterator<(String, String)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// The names alone.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_are_shown_and_only_a_process_gets_the_values() {
        let of = |pairs: &[(&str, &str)]| -> Secrets {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let secrets = of(&[("A", "hidden"), ("B", "hidden")]);
        assert_eq!(format!("{secrets:?}"), r#"{"A", "B"}"#);
        let env = BTreeMap::from([("A".to_string(), "1".to_string())]);
        assert_eq!(secrets.with(&env)["A"], "hidden");
        assert_eq!(secrets.clone().without(&env).names().collect::<Vec<_>>(), ["B"]);
        let other = of(&[("B", "other"), ("C", "x")]);
        assert_eq!(secrets.different(&other).collect::<Vec<_>>(), ["A", "B", "C"]);
    }
}
