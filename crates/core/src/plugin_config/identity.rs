//! The small files that say what a plugin is: label, format version, dependencies.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::exit_code::Kind;
use crate::names::check_plugin_name;

/// Reads the text of `.layerapi2_label`, `plugin_NAME@mfserv`, and returns the name.
pub fn label(text: &str) -> Result<String, Diagnostic> {
    let text = text.trim();
    let shown: String = text.chars().take(120).collect();
    let bad = || Diagnostic::error(format!("bad layerapi2_label: {shown:?}"));
    let name = text.strip_prefix("plugin_").and_then(|rest| rest.strip_suffix("@mfserv"));
    let Some(name) = name else {
        return Err(bad()
            .kind(Kind::BadConfiguration)
            .because("it must start with plugin_ and end with @mfserv => is it really a plugin?")
            .help("write one line: plugin_NAME@mfserv"));
    };
    match check_plugin_name(name) {
        Ok(()) => Ok(name.to_string()),
        Err(reason) => Err(bad()
            .kind(Kind::BadConfiguration)
            .because(reason)
            .help("write one line: plugin_NAME@mfserv")),
    }
}

/// Reads the text of `.plugin_format_version`: at least three numbers with dots
/// between. A part that is not a number counts as 9999.
pub fn format_version(text: &str) -> Result<Vec<u32>, Diagnostic> {
    let text = text.trim();
    let parts: Vec<u32> =
        text.split('.').take(10).map(|part| part.trim().parse().unwrap_or(9999)).collect();
    if parts.len() < 3 {
        let shown: String = text.chars().take(60).collect();
        return Err(Diagnostic::error("bad .plugin_format_version format!")
            .kind(Kind::BadConfiguration)
            .because(format!("{shown:?} has fewer than three parts"))
            .help("write the version of mfserv that the plugin was made with, for example 2.0.0"));
    }
    Ok(parts)
}

/// One line of `.layerapi2_dependencies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The layer: `python3@mfext`, `plugin_OTHER@mfserv`.
    pub label: String,
    /// It is loaded only if it is there (written with a leading `-`).
    pub optional: bool,
}

impl Dependency {
    /// The name of the plugin that it stands for, if it is one.
    pub fn plugin(&self) -> Option<&str> {
        self.label.strip_prefix("plugin_")?.strip_suffix("@mfserv")
    }
}

/// Reads the text of `.layerapi2_dependencies`: one label per line, `#` comments,
/// a leading `-` for optional ones.
pub fn dependencies(text: &str) -> Vec<Dependency> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let optional = line.strip_prefix('-').map(str::trim);
            Dependency { label: optional.unwrap_or(line).into(), optional: optional.is_some() }
        })
        .filter(|dependency| !dependency.label.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_gives_the_name_of_the_plugin() {
        assert_eq!(label("plugin_foo-Bar_1@mfserv\n").as_deref(), Ok("foo-Bar_1"));
        for bad in ["", "foo@mfserv", "plugin_foo@mfdata", "plugin_foo", "plugin_@mfserv"] {
            assert!(label(bad).unwrap_err().what.contains("bad layerapi2_label"), "{bad}");
        }
        assert!(label("plugin_base@mfserv").unwrap_err().because[0].contains("reserved"));
        assert!(label("plugin_../x@mfserv").is_err());
    }

    #[test]
    fn a_format_version_has_three_parts_or_more() {
        assert_eq!(format_version("1.2.3\n").unwrap(), [1, 2, 3]);
        assert_eq!(format_version("integration.x.1.4").unwrap(), [9999, 9999, 1, 4]);
        assert!(format_version("1.2").is_err());
        assert!(format_version("").is_err());
    }

    #[test]
    fn dependencies_are_labels_some_of_them_optional() {
        let text = "# layers\npython3@mfext\n\n- python3_ia@mfext\nplugin_other@mfserv\n-\n";
        let found = dependencies(text);
        let shown: Vec<(&str, bool)> = found.iter().map(|d| (&*d.label, d.optional)).collect();
        assert_eq!(
            shown,
            [("python3@mfext", false), ("python3_ia@mfext", true), ("plugin_other@mfserv", false)]
        );
        assert_eq!(found[2].plugin(), Some("other"));
        assert_eq!(found[0].plugin(), None);
    }
}
