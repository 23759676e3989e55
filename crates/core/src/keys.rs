//! Every key of the module's configuration: one table, read by the resolver,
//! by `mfserv config`, by the generated `config.ini` and by the documentation.
//!
//! A row of the table is also a constant that carries the type of the value:
//! `config.get(NGINX_PORT)` is an `Option<u16>`, and compares with nothing else.
//!
//! Keys that have no effect in this version are in the table too: they are accepted and
//! exported, and setting one gives a warning.

mod kinds;
mod reading;
mod table;
mod text;

pub(crate) use reading::{Read, read};
pub use table::*;
pub use text::{home_config_text, markdown_table};

/// What a value may be. Everything is text in the file; this is how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `1` or `0`.
    Flag,
    /// A decimal number with its unit (empty when it only counts).
    Integer {
        /// The smallest accepted.
        min: i64,
        /// The largest accepted.
        max: i64,
        /// What it counts, for people.
        unit: &'static str,
    },
    /// A TCP or UDP port; `0` and `null` mean none.
    Port,
    /// Versions of TLS, as nginx writes them ([`crate::tls::versions`]).
    TlsVersions,
    /// Ciphers of TLS, as OpenSSL writes them ([`crate::tls::ciphers`]).
    TlsCiphers,
    /// A file mode in octal digits; `null` means that it is not set.
    FileMode,
    /// One of a few words, in upper or lower case.
    OneOf {
        /// The words.
        words: &'static [&'static str],
    },
    /// A path of the file system.
    Path,
    /// A path of a URL, beginning with `/`; `null` means none.
    UrlPath,
    /// A host name or address; `null` means none.
    Host,
    /// An address that requests are sent to, `http://…` or `https://…`; `null` means none.
    HttpUrl,
    /// The same, several of them separated by commas.
    HttpUrls,
    /// The name of an index of Elasticsearch, with directives of strftime(3).
    IndexName,
    /// IP addresses to listen on, separated by commas.
    Addresses,
    /// Networks in CIDR form separated by commas; `null` means none.
    Networks,
    /// The name of a program, without a directory; `null` means the usual one.
    Program,
    /// Where a syslog server listens; `null` means none.
    SyslogAddress,
    /// An endpoint of ZeroMQ on this machine; `null` means none.
    Endpoint,
    /// Any text.
    Text,
}

impl Type {
    /// The type in a word or two, for documentation.
    pub fn describe(self) -> String {
        match self {
            Type::Flag => "0/1".into(),
            Type::Integer { unit: "", .. } => "number".into(),
            Type::Integer { unit, .. } => unit.into(),
            Type::Port => "port".into(),
            Type::FileMode => "octal".into(),
            Type::OneOf { words, .. } => words.join(", "),
            Type::Path => "path".into(),
            Type::UrlPath => "URL path".into(),
            Type::Host => "host".into(),
            Type::HttpUrl => "URL".into(),
            Type::HttpUrls => "URLs, comma".into(),
            Type::IndexName => "index".into(),
            Type::Addresses => "IP addresses, comma".into(),
            Type::Networks => "networks, comma".into(),
            Type::Program => "program".into(),
            Type::SyslogAddress | Type::Endpoint => "URL".into(),
            Type::TlsVersions | Type::TlsCiphers => "list".into(),
            Type::Text => "text".into(),
        }
    }
}

/// A key with the Rust type of its value.
pub struct Key<T> {
    row: Row,
    take: fn(&Read) -> T,
}

impl<T> Key<T> {
    /// Its row of the table.
    pub fn row(&self) -> &Row {
        &self.row
    }

    pub(crate) fn take(&self, read: &Read) -> T {
        (self.take)(read)
    }
}

/// One key of the module's configuration, without the type of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub key: &'static str,
    /// The compiled-in value, as it would be written; `None` = not set at all
    /// (nothing is exported).
    pub default: Option<&'static str>,
    /// How it is read.
    pub kind: Type,
    /// What it does, one line.
    pub meaning: &'static str,
    /// It has an effect. If not, another value than the default gives a warning.
    pub obeyed: bool,
}

impl Row {
    /// The environment variable it is exported as, if it is.
    pub fn variable(&self) -> Option<String> {
        crate::export::variable("MFSERV", self.section, self.key)
    }
}

/// True for the name of a program as `python3.12`: no directory, no arguments.
pub fn is_program_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.chars().all(allowed) && !name.starts_with(['.', '-'])
}

/// The key of a section, if there is one.
pub fn find(section: &str, key: &str) -> Option<&'static Row> {
    KEYS.iter().find(|known| known.section == section && known.key == key)
}

/// The known sections, in the order of the table.
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_once_and_its_section_is_in_one_piece() {
        for (index, key) in KEYS.iter().enumerate() {
            let same = |other: &Row| other.section == key.section && other.key == key.key;
            assert_eq!(KEYS.iter().position(same), Some(index), "{}.{}", key.section, key.key);
            assert!(!key.meaning.is_empty() && !key.meaning.contains('\n'));
            assert!(!key.meaning.contains('|'), "the meaning stands in a Markdown table");
        }
        let mut sorted = sections();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), sections().len());
    }

    #[test]
    fn a_key_is_exported_under_its_section_unless_it_is_private() {
        let variable = |section, key| find(section, key).unwrap().variable();
        assert_eq!(variable("nginx", "port").as_deref(), Some("MFSERV_NGINX_PORT"));
        assert_eq!(variable("general", "_python"), None);
    }

    #[test]
    fn the_user_documentation_contains_the_row_of_every_key() {
        let document = include_str!("../../../docs/configuration.md");
        for section in sections() {
            for row in markdown_table(section).lines() {
                assert!(document.contains(row), "docs/configuration.md misses this line:\n{row}");
            }
        }
    }
}
