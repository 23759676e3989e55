//! Why nginx refuses a configuration, for people.

use std::path::Path;

use super::text::Text;

/// What nginx says of a configuration, without paths that are gone: `unknown directive "x" (line
/// 3 of it)`.
pub fn explained(said: &str, copy: &Path, text: &Text) -> String {
    let of_weight = |line: &&str| line.contains("[emerg]") || line.contains("[crit]");
    let line = said.lines().find(of_weight).or(said.lines().next()).unwrap_or("nothing");
    // `nginx: [emerg] …` or, as in a log, `DATE TIME [emerg] PID#THREAD: …`.
    let line = line.split_once("] ").map_or(line, |(_, rest)| rest);
    let is_ids = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '#');
    let line = line.split_once(": ").filter(|(ids, _)| is_ids(ids)).map_or(line, |(_, rest)| rest);
    let place = format!(" in {}:", copy.display());
    let Some((what, number)) = line.rsplit_once(&place) else { return line.to_string() };
    match number.parse().ok().and_then(|number| text.owner(number)) {
        Some((_, inside)) => format!("{what} (its line {inside})"),
        None => what.to_string(),
    }
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
        text.fragment(&Piece { id, fragment: &fragment });
        let copy = Path::new("/x/nginx.conf.check");
        let said = |line| {
            format!("nginx: [emerg] unknown directive \"bad\" in /x/nginx.conf.check:{line}\n")
        };
        assert_eq!(explained(&said(4), copy, &text), "unknown directive \"bad\" (its line 2)");
        let as_in_a_log = said(4).replace("nginx: [emerg] ", "2026/01/31 12:00:00 [emerg] 5#5: ");
        assert_eq!(explained(&as_in_a_log, copy, &text), explained(&said(4), copy, &text));
        assert_eq!(explained(&said(1), copy, &text), "unknown directive \"bad\"");
        assert_eq!(explained("strange\n", copy, &text), "strange");
    }
}
