//! Tables with double lines around them.

/// A table: `title` in its upper border, the first row above a line if `heading`.
pub fn table(title: &str, rows: &[Vec<String>], heading: bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|c| width(c)).max())
        .map(|widest| widest.unwrap_or(0) + 2)
        .collect();
    let border = |left: &str, cross: &str, right: &str| {
        let bars: Vec<String> = widths.iter().map(|width| "═".repeat(*width)).collect();
        format!("{left}{}{right}\n", bars.join(cross))
    };
    let mut top = border("╔", "╦", "╗");
    let room = top.chars().count().saturating_sub(3);
    let title: String = title.chars().take(room).collect();
    let after = top.chars().skip(1 + title.chars().count()).collect::<String>();
    top = format!("╔{title}{after}");
    let mut text = top;
    for (index, row) in rows.iter().enumerate() {
        text += &row_lines(row, &widths);
        if heading && index == 0 {
            text += &border("╠", "╬", "╣");
        }
    }
    text + &border("╚", "╩", "╝")
}

/// A row, on as many lines as its highest cell.
fn row_lines(row: &[String], widths: &[usize]) -> String {
    let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(1).max(1);
    let mut text = String::new();
    for index in 0..height {
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let line = cell.lines().nth(index).unwrap_or_default();
            let fill = " ".repeat(width.saturating_sub(line.chars().count() + 1));
            text += &format!("║ {line}{fill}");
        }
        text += "║\n";
    }
    text
}

/// A text on lines of at most `width` characters, broken at blanks where there are any.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        for piece in word.chars().collect::<Vec<_>>().chunks(width) {
            let piece: String = piece.iter().collect();
            let Some(last) = lines.last_mut() else { continue };
            let length = last.chars().count();
            if length == 0 {
                *last = piece;
            } else if length + 1 + piece.chars().count() <= width {
                *last += " ";
                *last += &piece;
            } else {
                lines.push(piece);
            }
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_title_in_the_border_and_a_line_below_its_heading() {
        let row = |cells: &[&str]| cells.iter().map(|cell| cell.to_string()).collect::<Vec<_>>();
        let text = table("Three (1)", &[row(&["Name", "Version"]), row(&["foo", "1\n2"])], true);
        let expected = "\
╔Three (1)═══════╗
║ Name ║ Version ║
╠══════╬═════════╣
║ foo  ║ 1       ║
║      ║ 2       ║
╚══════╩═════════╝
";
        assert_eq!(text, expected);
    }

    #[test]
    fn long_values_are_wrapped_at_blanks_and_very_long_words_are_cut() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("abcdefgh", 3), "abc\ndef\ngh");
        assert_eq!(wrapped("", 3), "");
    }
}
