//! Where things are in the runtime home, as far as plugins are concerned.

use std::path::{Path, PathBuf};

/// The runtime home: every path that concerns plugins, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home at this absolute path. Nothing is created.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `var/plugins`: one link per installed plugin.
    pub fn plugins(&self) -> PathBuf {
        self.root.join("var/plugins")
    }

    /// `var/plugins/NAME`: the link to the current release or developer's directory.
    pub fn link(&self, plugin: &str) -> PathBuf {
        self.plugins().join(plugin)
    }

    /// `var/releases`.
    pub fn releases(&self) -> PathBuf {
        self.root.join("var/releases")
    }

    /// `var/releases/NAME`.
    pub fn releases_of(&self, plugin: &str) -> PathBuf {
        self.releases().join(plugin)
    }

    /// `var/releases/NAME/N`.
    pub fn release(&self, plugin: &str, number: u32) -> PathBuf {
        self.releases_of(plugin).join(number.to_string())
    }

    /// `var/data/NAME`: what outlives the releases of a plugin.
    pub fn plugin_data(&self, plugin: &str) -> PathBuf {
        self.root.join("var/data").join(plugin)
    }

    /// `var/base`: the base environments.
    pub fn base(&self) -> PathBuf {
        self.root.join("var/base")
    }

    /// `tmp/NAME`: the TMPDIR of a plugin.
    pub fn tmp_of(&self, plugin: &str) -> PathBuf {
        self.root.join("tmp").join(plugin)
    }

    /// `var/env/NAME.json`: the administrator's variables, and their history.
    pub fn variables_file(&self, plugin: &str) -> PathBuf {
        self.root.join("var/env").join(format!("{plugin}.json"))
    }

    /// `config/plugins/NAME.ini`: the administrator's overrides.
    pub fn override_file(&self, plugin: &str) -> PathBuf {
        self.root.join("config/plugins").join(format!("{plugin}.ini"))
    }

    /// `var/internal/NAME`: plugins that come with mfserv, written out.
    pub fn internal(&self, plugin: &str) -> PathBuf {
        self.root.join("var/internal").join(plugin)
    }
}
