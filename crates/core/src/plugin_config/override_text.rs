//! The file in which an administrator overrides what a plugin sets.

/// The text of `config/plugins/NAME.ini` made from the text of the plugin's
/// `config.ini`: every section but `[general]` and `[internal]`, the comments, and
/// each public key commented out. Private keys, and the comments right above
/// them, are left out.
pub fn override_text(name: &str, own_text: &str) -> String {
    let mut writer = Writer::new(name);
    for line in own_text.strip_prefix('\u{feff}').unwrap_or(own_text).lines() {
        writer.take(line);
    }
    writer.finish()
}

struct Writer {
    text: String,
    /// Comments that may belong to the key below them.
    comments: Vec<String>,
    /// The section is written.
    section_kept: bool,
    /// A key was read: its indent and whether it is written.
    key: Option<(usize, bool)>,
}

impl Writer {
    fn new(name: &str) -> Self {
        let text = format!(
            "# Overrides of the configuration of the plugin {name}, on this node.\n\
             #\n\
             # Every key that is meant to be changed is below, commented out with the value of\n\
             # the plugin. To change one, remove the # and the blank before it. The file\n\
             # /etc/metwork.config.d/mfserv/plugins/{name}.ini wins over this one.\n"
        );
        Self { text, comments: Vec::new(), section_kept: false, key: None }
    }

    fn take(&mut self, line: &str) {
        let trimmed = line.trim();
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        if trimmed.starts_with('#') {
            self.comments.push(trimmed.to_string());
        } else if trimmed.is_empty() {
            self.blank();
        } else if let Some((_, kept)) = self.key.filter(|(key_indent, _)| indent > *key_indent) {
            if kept {
                self.write(&format!("#     {trimmed}"));
            }
        } else if let Some(header) = trimmed.strip_prefix('[') {
            self.section(trimmed, header.trim_end_matches(']'));
        } else {
            self.key(trimmed, indent);
        }
    }

    fn section(&mut self, line: &str, name: &str) {
        self.section_kept = !matches!(name, "general" | "internal") && !name.starts_with('_');
        self.key = None;
        if self.section_kept {
            if !self.text.ends_with("\n\n") {
                self.write("");
            }
            self.write_comments();
            self.write(line);
        }
        self.comments.clear();
    }

    fn key(&mut self, line: &str, indent: usize) {
        let kept = self.section_kept && !line.starts_with('_');
        self.key = Some((indent, kept));
        if kept {
            self.write_comments();
            match line.split_once('=') {
                Some((key, value)) => {
                    let pair = format!("# {}={}", key.trim(), value.trim());
                    self.write(pair.trim_end());
                }
                None => self.write(&format!("# {line}")),
            }
        }
        self.comments.clear();
    }

    /// Comments followed by a blank line belong to the section, not to a key.
    fn blank(&mut self) {
        if self.section_kept || !self.comments.is_empty() {
            if self.section_kept {
                self.write_comments();
                if !self.text.ends_with("\n\n") {
                    self.write("");
                }
            }
            self.comments.clear();
        }
    }

    fn write_comments(&mut self) {
        for comment in std::mem::take(&mut self.comments) {
            self.write(&comment);
        }
    }

    fn write(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn finish(mut self) -> String {
        if self.section_kept {
            self.write_comments();
        }
        while self.text.ends_with("\n\n") {
            self.text.pop();
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini::{Dialect, has_active_line, parse};

    const OWN: &str = "\
# About the file

[general]
# the version
_version=1
public_in_general=1

# The main app
[app_main]
# secret
_cmd_and_args=foo
    --bar
# how many
# processes
numprocesses = 4


# a lone comment

timeout=0
custom_list=a
    b
# end
[internal]
disable_nginx_conf=1
[_hidden]
x=1
[custom]
foo=bar
";

    #[test]
    fn public_keys_are_commented_out_and_private_ones_gone_with_their_comments() {
        let text = override_text("foo", OWN);
        let body = text.split_once("this one.\n").unwrap().1;
        assert_eq!(
            body,
            "\n# The main app\n[app_main]\n# how many\n# processes\n# numprocesses=4\n\n\
             # a lone comment\n\n# timeout=0\n# custom_list=a\n#     b\n\n[custom]\n# foo=bar\n"
        );
    }

    #[test]
    fn the_file_sets_nothing_and_can_be_parsed() {
        let text = override_text("foo", OWN);
        assert!(!has_active_line(&text));
        let document = parse(&text, "foo.ini", Dialect::Plugin).unwrap();
        assert_eq!(document.sections.len(), 2);
    }
}
