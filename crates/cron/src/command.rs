//! The command of an entry: `%` ends it and begins its input.

/// The command and its input. Outside of both, `\%` is `%`; the first other `%` ends the command,
/// each later one is a newline.
pub(crate) fn split(text: &str) -> (String, String) {
    let mut command = String::with_capacity(text.len());
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == '%' && !escaped {
            return (command, input(&text[at + 1..]));
        }
        // Of a command, cron(8) reads `\\` as `\` too; of its input it does not.
        if escaped && matches!(c, '%' | '\\') {
            command.pop();
        }
        command.push(c);
        escaped = c == '\\' && !escaped;
    }
    (command, String::new())
}

/// What the command reads: ends in a newline unless it is empty.
fn input(text: &str) -> String {
    let mut input = String::with_capacity(text.len() + 1);
    let mut backslash = false;
    for c in text.chars() {
        match (c, backslash) {
            ('%', true) => {
                input.pop();
                input.push('%');
            }
            ('%', false) => input.push('\n'),
            _ => input.push(c),
        }
        backslash = c == '\\';
    }
    if !input.is_empty() && !input.ends_with('\n') {
        input.push('\n');
    }
    input
}
