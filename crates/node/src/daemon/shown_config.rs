//! `tmp/config_auto/config.ini`: the resolved configuration of the node, for people.

use mfserv_core::layers::Value;

use super::node::Node;
use crate::configure::{self, Module};
use crate::places::Places;
use crate::render;

/// The resolved configuration as a file of the same form, after its first lines: every key with its
/// value, and above it where that comes from.
pub(super) fn text(places: &Places, module: &Module) -> String {
    let site = configure::site_dir().join("mfserv/config.ini");
    let mut text = String::from("# The files, the strongest first:\n");
    for file in [site, places.config_file()] {
        let missing = if file.exists() { "" } else { " (there is none)" };
        text += &format!("#   {}{missing}\n", file.display());
    }
    let variant = module.env.get("MFCONFIG").map_or("", String::as_str);
    text += &format!("# Variant: {variant}\n");
    // Those of a section stand together: a key without a default comes after all that have one.
    let mut values: Vec<&Value> = module.resolution.values.iter().collect();
    let mut sections: Vec<&str> = values.iter().map(|value| value.section.as_str()).collect();
    sections.dedup();
    let place = |value: &Value| sections.iter().position(|section| *section == value.section);
    values.sort_by_key(|value| place(value));
    let mut section = "";
    for value in values {
        if value.section != section {
            section = &value.section;
            text += &format!("\n[{section}]\n");
        }
        // A value may have several lines: those after the first are indented.
        let lines = value.value.replace('\n', "\n    ");
        text += &format!("# {}\n{} = {lines}\n", value.origin, value.key);
    }
    text
}

impl Node {
    /// Writes the file if something in it has changed. A disk that is full does without.
    pub(super) fn show_configuration(&self, generation: u64, text: String) {
        let Ok(mut shown) = self.shown_config.lock() else { return };
        if shown.as_ref() == Some(&text) {
            return;
        }
        let head = format!(
            "# The configuration that is in force, made by mfserv {} with plan {generation} at {}.\n\
             # It is for people: a change of it changes nothing, and it is made again when a value changes.\n",
            env!("CARGO_PKG_VERSION"),
            render::time(self.parts.world.clock.now_ms()),
        );
        let file = self.parts.options.places.shown_config();
        // Some values may be passwords.
        let _ = self.parts.world.disk.replace(&file, 0o600, (head + &text).as_bytes());
        *shown = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mfserv_core::ini::{self, Dialect};
    use mfserv_core::module_config;

    use super::*;

    #[test]
    fn what_is_shown_has_each_value_with_its_origin_and_means_the_same_when_it_is_read() {
        let own =
            "[nginx]\nport = 80\n[log]\nsyslog = null\n[my]\nlist = a\n  b\n[front]\nown = 1\n";
        let resolve = |text: &str| {
            let document = ini::parse(text, "own.ini", Dialect::Module).unwrap();
            module_config::resolve(&[document], &[], &BTreeMap::new(), "GENERIC")
        };
        let env = BTreeMap::from([("MFCONFIG".to_string(), "GENERIC".to_string())]);
        let module = Module { resolution: resolve(own), env };
        let home = tempfile::tempdir().unwrap();
        let shown = text(&Places::choose(Some(home.path())).unwrap(), &module);
        assert!(shown.contains("# own.ini:2\nport = 80\n"), "{shown}");
        assert!(shown.contains("# built-in default\ntimeout = 60\n"), "{shown}");
        assert!(shown.contains("config/config.ini (there is none)\n# Variant: GENERIC\n"));
        let values = |resolution: &module_config::Resolution| -> Vec<(String, String)> {
            let all = resolution.values.iter();
            let mut all: Vec<_> = all.map(|it| (it.key.clone(), it.value.clone())).collect();
            all.sort();
            all
        };
        assert_eq!(values(&resolve(&shown)), values(&module.resolution));
    }
}
