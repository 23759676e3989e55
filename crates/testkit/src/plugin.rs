//! A plugin directory written by hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A plugin that is being described; [`Plugin::write`] makes its directory.
#[derive(Debug, Clone)]
pub struct Plugin {
    name: String,
    sections: Vec<(String, Vec<(String, String)>)>,
    files: Vec<(String, String)>,
    config: Option<String>,
}

impl Plugin {
    /// A plugin without any app.
    pub fn new(name: &str) -> Self {
        let general = [
            ("_version", "1.0.0"),
            ("_summary", "for a test"),
            ("_license", "BSD"),
            ("_url", "http://localhost"),
            ("_maintainer", "nobody"),
            ("_vendor", "nobody"),
        ];
        let general = general.map(|(key, value)| (key.to_string(), value.to_string()));
        Plugin {
            name: name.into(),
            sections: vec![("general".into(), general.to_vec())],
            files: Vec::new(),
            config: None,
        }
    }

    /// A plugin whose main app is one Python program with the socket as its argument.
    pub fn python(name: &str, program: &str) -> Self {
        Plugin::new(name)
            .file("main.py", program)
            .app("main", "python3 -u {plugin_dir}/main.py {unix_socket_path}")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds an app with one worker.
    pub fn app(self, app: &str, command: &str) -> Self {
        let section = format!("app_{app}");
        self.key(&section, "_cmd_and_args", command).key(&section, "numprocesses", "1")
    }

    /// Sets a key of a section.
    pub fn key(mut self, section: &str, key: &str, value: &str) -> Self {
        let index = self.sections.iter().position(|(name, _)| name == section);
        let index = index.unwrap_or_else(|| {
            self.sections.push((section.into(), Vec::new()));
            self.sections.len() - 1
        });
        let keys = &mut self.sections[index].1;
        match keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value.into(),
            None => keys.push((key.into(), value.into())),
        }
        self
    }

    /// Adds a file.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.into(), text.into()));
        self
    }

    /// Uses this text as config.ini, whatever it is.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.into());
        self
    }

    /// The text of config.ini.
    pub fn config_text(&self) -> String {
        if let Some(text) = &self.config {
            return text.clone();
        }
        let mut text = String::new();
        for (section, keys) in &self.sections {
            text += &format!("[{section}]\n");
            for (key, value) in keys {
                text += &format!("{key} = {value}\n");
            }
            text.push('\n');
        }
        text
    }

    /// Writes it to `parent/NAME`, over what is there.
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn write(&self, parent: &Path) -> PathBuf {
        let dir = parent.join(&self.name);
        let own = [
            (".layerapi2_label".to_string(), format!("plugin_{}@mfserv\n", self.name)),
            (".layerapi2_dependencies".to_string(), "root@mfserv\n".to_string()),
            (".plugin_format_version".to_string(), "2.0.0\n".to_string()),
            ("config.ini".to_string(), self.config_text()),
        ];
        for (path, text) in own.iter().chain(&self.files) {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&dir)).expect("a directory of a plugin");
            fs::write(&path, text).expect("a file of a plugin");
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        }
        dir
    }
}
