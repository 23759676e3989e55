//! By what a client comes back to the worker that it has had.

use serde::{Deserialize, Serialize};

/// The cookie of apps that name none.
const COOKIE: &str = "mfserv_worker";

/// What tells one client of an app from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Affinity {
    /// A cookie that the front sets.
    Cookie {
        /// Its name.
        name: String,
    },
    /// The address of the client.
    Ip,
}

impl Affinity {
    /// Reads `cookie`, `cookie:NAME` or `ip`. An error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = match text.split_once(':') {
            None if text == "ip" => return Ok(Affinity::Ip),
            None if text == "cookie" => COOKIE,
            Some(("cookie", name)) => name,
            _ => return Err(format!("{text:?} is not possible here")),
        };
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let has_rules = ["__Host-", "__Secure-"].iter().any(|prefix| name.starts_with(prefix));
        if has_rules {
            return Err(format!("browsers refuse {name:?} in clear: take another name"));
        }
        match !name.is_empty() && name.chars().all(is_token) {
            true => Ok(Affinity::Cookie { name: name.into() }),
            false => Err(format!("{name:?} is no name of a cookie")),
        }
    }
}
