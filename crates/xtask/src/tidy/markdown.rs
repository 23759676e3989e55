//! What rules want to know of a Markdown file.

/// A line outside fenced code, with its number.
pub fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        if fence {
            fenced = !fenced;
        }
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// The rows of tables, cell by cell, without their heads and rules.
pub fn rows(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut rows = Vec::new();
    let lines: Vec<(usize, &str)> = prose(text).collect();
    for (index, (number, line)) in lines.iter().enumerate() {
        let is_rule = |line: &str| line.starts_with('|') && line.contains("---");
        let next = lines.get(index + 1).map_or("", |(_, line)| line);
        if line.starts_with('|') && !is_rule(line) && !is_rule(next) {
            let inner = line.trim().trim_matches('|');
            rows.push((*number, inner.split('|').map(|cell| cell.trim().to_string()).collect()));
        }
    }
    rows
}

/// The rows of the tables between a heading and the next one.
pub fn rows_under(text: &str, heading: &str) -> Vec<(usize, Vec<String>)> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let mut from = headings.skip_while(|(_, line)| *line != heading).map(|(number, _)| number);
    let Some(begin) = from.next() else { return Vec::new() };
    let end = from.next().unwrap_or(usize::MAX);
    rows(text).into_iter().filter(|(number, _)| (begin..end).contains(number)).collect()
}

/// The names of a document's headings as GitHub makes anchors of them.
pub fn anchors(text: &str) -> Vec<String> {
    prose(text)
        .filter_map(|(_, line)| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')))
        .filter(|heading| heading.starts_with(' '))
        .map(|heading| anchor(heading.trim()))
        .collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The targets of `[text](target)`, with their lines.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let end = rest.find(')').unwrap_or(rest.len());
            links.push((number, rest[..end].to_string()));
        }
    }
    links
}

/// What stands between backticks, with its line.
pub fn codes(text: &str) -> Vec<(usize, String)> {
    let mut codes = Vec::new();
    for (number, line) in prose(text) {
        codes.extend(line.split('`').skip(1).step_by(2).map(|code| (number, code.to_string())));
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A page\n\n[x](y.md#z) and [u](v)\n\n```\n# [no](link) `no`\n```\n\n| a | b |\n|---|---|\n| `c` | d |\n\n## Who is who?\n";

    #[test]
    fn fenced_code_is_no_prose() {
        assert_eq!(links(PAGE), [(3, "y.md#z".to_string()), (3, "v".to_string())]);
        assert_eq!(codes(PAGE), [(11, "c".to_string())]);
    }

    #[test]
    fn rows_come_without_the_head_of_their_table() {
        assert_eq!(rows(PAGE), [(11, vec!["`c`".to_string(), "d".to_string()])]);
    }

    #[test]
    fn rows_are_those_between_two_headings() {
        assert_eq!(rows_under(PAGE, "# A page").len(), 1);
        assert!(rows_under(PAGE, "## Who is who?").is_empty());
        assert!(rows_under(PAGE, "## Nobody").is_empty());
    }

    #[test]
    fn anchors_are_made_as_github_makes_them() {
        assert_eq!(anchors(PAGE), ["a-page", "who-is-who"]);
    }
}
