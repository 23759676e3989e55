//! Why nginx refuses a configuration, for people.

use std::path::Path;

use super::pieces::PieceId;
use super::text::Text;

/// When nginx refuses a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `nginx -t` does not accept it.
    Check,
    /// nginx does not take it, though `nginx -t` accepts it.
    Take,
}

/// That nginx refuses a configuration.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// When.
    pub stage: Stage,
    /// Why, for people.
    pub why: String,
    /// The fragment that has the line which nginx names.
    pub named: Option<PieceId>,
    /// What nginx says, without the line.
    pub what: String,
    /// nginx has not answered in time: that says nothing about the configuration.
    pub is_slow: bool,
}

impl Refusal {
    /// By what nginx says, without paths that are gone: `unknown directive "x" (its line 3)`.
    /// `file`: what nginx has read; `text`: its text.
    pub fn new(stage: Stage, said: &str, file: &Path, text: &Text) -> Self {
        let line = without_head(said);
        let Some((start, end, number)) = place(line, file) else {
            return Self::without_place(stage, line.to_string());
        };
        let owner = text.owner(number);
        let what = line[..start].trim_end_matches([' ', '(']).trim_end_matches(" in");
        let rest = line[end..].trim_start_matches([')', ':']).trim_end();
        let what = if rest.is_empty() { what.to_string() } else { format!("{what}:{rest}") };
        let why = match owner {
            Some((_, inside)) => format!("{what} (its line {inside})"),
            None => what.clone(),
        };
        Self { stage, why, named: owner.map(|(id, _)| id.clone()), what, is_slow: false }
    }

    /// That no line of the configuration is named.
    pub fn without_place(stage: Stage, why: String) -> Self {
        Self { stage, what: why.clone(), why, named: None, is_slow: false }
    }

    /// Why it is this fragment that is left out: a line of another one is none of its lines.
    pub fn why_of(&self, id: &PieceId) -> String {
        match self.named.as_ref().filter(|named| *named != id) {
            Some(named) => {
                format!("{} (together with what plugin {} has)", self.what, named.plugin)
            }
            None => self.why.clone(),
        }
    }
}

/// The line that says why, without `nginx: [emerg] ` or, as in a log, `DATE TIME [emerg]
/// PID#THREAD: `.
fn without_head(said: &str) -> &str {
    let of_weight = |line: &&str| line.contains("[emerg]") || line.contains("[crit]");
    let line = said.lines().find(of_weight).or(said.lines().next()).unwrap_or("nothing");
    let line = line.split_once("] ").map_or(line, |(_, rest)| rest);
    let is_ids = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '#');
    line.split_once(": ").filter(|(ids, _)| is_ids(ids)).map_or(line, |(_, rest)| rest)
}

/// Where a line names a place in a file, and the number there: `in /x/nginx.conf:12`, or in a
/// message of Lua `init_by_lua(nginx.conf:12):2: …`.
fn place(line: &str, file: &Path) -> Option<(usize, usize, usize)> {
    let paths = [file.display().to_string(), file.file_name()?.to_string_lossy().into_owned()];
    paths.iter().find_map(|path| {
        let start = line.rfind(&format!("{path}:"))?;
        let digits = start + path.len() + 1;
        let is_digit = |c: char| c.is_ascii_digit();
        let end = line[digits..].find(|c| !is_digit(c)).map_or(line.len(), |at| digits + at);
        Some((start, end, line[digits..end].parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use mfserv_core::route::Fragment;

    use super::super::pieces::{Piece, PieceId, Place};
    use super::*;

    #[test]
    fn what_nginx_says_leads_to_the_line_of_the_fragment() {
        let fragment = Fragment { file: "a.conf".into(), text: "one;\nbad;".into() };
        let id = PieceId { plugin: "p".into(), place: Place::Http };
        let mut text = Text::default();
        text.line("first;");
        text.fragment(&Piece { id: id.clone(), fragment: &fragment });
        let file = Path::new("/x/nginx.conf");
        let explained = |said: &str| {
            let refusal = Refusal::new(Stage::Check, said, file, &text);
            (refusal.why, refusal.named)
        };
        let said =
            |line| format!("nginx: [emerg] unknown directive \"bad\" in /x/nginx.conf:{line}\n");
        let of_fragment = ("unknown directive \"bad\" (its line 2)".to_string(), Some(id.clone()));
        assert_eq!(explained(&said(4)), of_fragment);
        let as_in_a_log = said(4).replace("nginx: [emerg] ", "2026/01/31 12:00:00 [emerg] 5#5: ");
        assert_eq!(explained(&as_in_a_log), of_fragment);
        assert_eq!(explained(&said(1)), ("unknown directive \"bad\"".into(), None));
        assert_eq!(explained("strange\n"), ("strange".into(), None));
        let lua = "2026/01/31 12:00:00 [error] 5#5: init_by_lua error: \
                   init_by_lua(nginx.conf:3):2: boom";
        let why = "init_by_lua error: init_by_lua:2: boom (its line 1)";
        assert_eq!(explained(lua), (why.into(), Some(id)));
    }
}
