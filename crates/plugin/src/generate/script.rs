//! The scripts that run the lines of a Procfile: written, and read again for commands that run
//! beside them.

use std::path::Path;

use crate::label::read_small;

const FIRST: &str = "#!/bin/sh\n";
const OR_EXIT: &str = " || exit 1\n";
/// Whoever has set the variable is obeyed.
const TRUST: &str = "export FORWARDED_ALLOW_IPS=\"${FORWARDED_ALLOW_IPS-*}\"\n";

/// A script that runs one line, in a directory below the plugin's.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// The directory; empty for the plugin's own.
    pub dir: String,
    /// The line, without the `exec` that we have put into it.
    pub line: String,
    /// Its server is told to believe what the front says in X-Forwarded-*.
    pub trusts_front: bool,
}

impl Script {
    /// The script of a plugin's command, if it is one of these.
    pub fn read(plugin: &Path, program: &str) -> Option<Script> {
        let name = program.strip_prefix("bin/")?;
        let text = read_small(&plugin.join("bin").join(name)).ok()?;
        let text = text.strip_prefix(FIRST)?;
        let entered = text.strip_prefix("cd ").and_then(|rest| rest.split_once(OR_EXIT));
        let (dir, text) = entered.unwrap_or(("", text));
        let trusted = text.strip_prefix(TRUST);
        let (text, trusts_front) = (trusted.unwrap_or(text), trusted.is_some());
        let line = text.strip_suffix('\n').filter(|line| !line.contains('\n'))?;
        let (assigned, rest) = line.split_at(assignments(line));
        let rest = rest.strip_prefix("exec ").unwrap_or(rest);
        Some(Script { dir: dir.into(), line: format!("{assigned}{rest}"), trusts_front })
    }

    /// Its text.
    pub(super) fn text(&self) -> String {
        let enter = match &self.dir[..] {
            "" => String::new(),
            dir => format!("cd {dir}{OR_EXIT}"),
        };
        // The program is the worker then, and gets its signals.
        let (assigned, rest) = self.line.split_at(assignments(&self.line));
        let is_several = self.line.contains(['&', ';', '|', '\n', '{'])
            // Where such a value ends is for a shell to say.
            || !assigned.is_empty() && self.line.contains(['`', '(']);
        let (assigned, rest) = match is_several {
            true => ("", self.line.clone()),
            false => (assigned, format!("exec {rest}")),
        };
        let trust = if self.trusts_front { TRUST } else { "" };
        format!("{FIRST}{enter}{trust}{assigned}{rest}\n")
    }
}

/// How much of a line is variables that are set for its command (`A=1 B="x y" `). The shell takes them
/// before `exec`, not after it.
fn assignments(line: &str) -> usize {
    let mut end = 0;
    loop {
        let rest = &line[end..];
        let is_name = |name: &str| {
            let sign = |c: char| c.is_ascii_alphanumeric() || c == '_';
            name.chars().all(sign) && name.starts_with(|c: char| !c.is_ascii_digit())
        };
        let Some((_, value)) = rest.split_once('=').filter(|(name, _)| is_name(name)) else {
            return end;
        };
        let Some(length) = first_word(value) else { return end };
        let after = &value[length..];
        let command = after.trim_start();
        if command.is_empty() {
            return end;
        }
        end = line.len() - command.len();
    }
}

/// The bytes of the first word, which may have quotes in it; `None` if one is not closed.
fn first_word(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match (quote, sign) {
            (None, ' ' | '\t') => return Some(at),
            (None, '\'' | '"') => quote = Some(sign),
            (Some(open), _) if open == sign => quote = None,
            (None | Some('"'), '\\') => drop(signs.next()),
            _ => {}
        }
    }
    quote.is_none().then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_replaces_the_shell_after_the_variables_that_its_line_sets() {
        for (line, wanted) in [
            ("gunicorn a:b", "exec gunicorn a:b"),
            ("A=1 b", "A=1 exec b"),
            ("A=1  B=\"x y\" C='=' python w.py D=1", "A=1  B=\"x y\" C='=' exec python w.py D=1"),
            ("A=x\\ y b", "A=x\\ y exec b"),
            ("./x --a=b", "exec ./x --a=b"),
            ("A=1 b && c", "A=1 b && c"),
            ("A=$(date) b", "A=$(date) b"),
            ("gunicorn -w $(nproc) a:b", "exec gunicorn -w $(nproc) a:b"),
        ] {
            let trusts_front = line.starts_with("gunicorn");
            let script = Script { dir: "main".into(), line: line.into(), trusts_front };
            let trust = if trusts_front { TRUST } else { "" };
            assert_eq!(script.text(), format!("#!/bin/sh\ncd main || exit 1\n{trust}{wanted}\n"));
            let home = tempfile::tempdir().unwrap();
            std::fs::create_dir(home.path().join("bin")).unwrap();
            std::fs::write(home.path().join("bin/web"), script.text()).unwrap();
            assert_eq!(Script::read(home.path(), "bin/web"), Some(script), "{line}");
        }
        assert_eq!(Script::read(Path::new("/nowhere"), "bin/web"), None);
    }
}
