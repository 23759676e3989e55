//! The table as texts for people: a commented `config.ini`, and Markdown.

use super::{KEYS, sections};

const HEADER: &str = "\
# Configuration of this mfserv node.
#
# Every key is written below as a comment with its built-in value. To change
# one, remove the # and the blank before it. Files that win over this one:
# /etc/metwork.config.d/mfserv/config.ini, then --set on the command line.
#
# key[NAME]=value is used instead of key=value when the configuration name
# (MFCONFIG) is NAME or begins with NAME_ .
#
# After a change: mfserv check, then mfserv reload or mfserv restart.
# Where a value comes from: mfserv config explain SECTION.KEY
";

/// The `config.ini` that a new home is given: every key, commented out.
pub fn home_config_text() -> String {
    let mut text = String::from(HEADER);
    for section in sections() {
        text.push_str(&format!("\n[{section}]\n"));
        for key in KEYS.iter().filter(|key| key.section == section) {
            let later = if key.obeyed { "" } else { " (no effect in this version)" };
            text.push_str(&format!("# {}: {}{later}\n", key.kind.describe(), key.meaning));
            text.push_str(&format!("# {}={}\n", key.key, key.default.unwrap_or("")));
        }
    }
    text
}

/// The keys of one section as a Markdown table.
pub fn markdown_table(section: &str) -> String {
    let mut text = String::from("| Key | Default | Type | Meaning |\n|---|---|---|---|\n");
    for key in KEYS.iter().filter(|key| key.section == section) {
        let default = key.default.map_or("–".into(), |value| format!("`{value}`"));
        let later = if key.obeyed { "" } else { " *(no effect yet)*" };
        text.push_str(&format!(
            "| `{}` | {default} | {} | {}{later} |\n",
            key.key,
            key.kind.describe(),
            key.meaning
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini::{Dialect, has_active_line, parse};

    #[test]
    fn the_generated_file_has_every_key_and_sets_nothing() {
        let text = home_config_text();
        assert!(!has_active_line(&text));
        let document = parse(&text, "config.ini", Dialect::Module).unwrap();
        assert!(document.sections.iter().all(|section| section.entries.is_empty()));
    }

    #[test]
    fn the_generated_file_with_a_line_uncommented_sets_that_key() {
        let text = home_config_text().replace("# port=18868", "port=80");
        let document = parse(&text, "config.ini", Dialect::Module).unwrap();
        let entries = &document.section("nginx").unwrap().entries;
        assert_eq!((&*entries[0].key, &*entries[0].value), ("port", "80"));
    }
}
