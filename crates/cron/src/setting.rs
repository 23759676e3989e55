//! A line that sets a variable: `NAME = value`, either in quotes or not.

use crate::problem::Problem;

/// The name and the value that a line sets. `None`: the line sets nothing. `line` begins with
/// its first character that is no blank.
pub(crate) fn parse(line: &str) -> Option<Result<(&str, &str), Problem>> {
    let (name, rest) = name(line)?;
    let text = rest.trim_start().strip_prefix('=')?.trim_start();
    let value_at = line.len() - text.len();
    if name.is_empty() {
        let why = "there is nothing before the =";
        let help = "write NAME=value, or a schedule and a command";
        return Some(Err(Problem::error("a variable has no name", why, help).at(line, 0)));
    }
    Some(value(line, value_at).map(|value| (name, value)))
}

/// The name, and the rest of the line.
fn name(line: &str) -> Option<(&str, &str)> {
    if let Some(quote) = quote(line) {
        let (name, rest) = line[1..].split_once(quote)?;
        return (!name.contains('=')).then_some((name, rest));
    }
    let end = line.find(|c: char| c == '=' || c.is_ascii_whitespace())?;
    Some(line.split_at(end))
}

fn value(line: &str, at: usize) -> Result<&str, Problem> {
    let text = &line[at..];
    let Some(quote) = quote(text) else { return Ok(text.trim_end()) };
    let Some((value, rest)) = text[1..].split_once(quote) else {
        let what = format!("the quote {quote} is not closed");
        let why = "a value that begins with a quote ends with the same one";
        let help = format!("add {quote} at the end of the value");
        return Err(Problem::error(what, why, help).at(line, at));
    };
    if !rest.trim().is_empty() {
        let what = format!("there is more behind the value: {}", rest.trim());
        let why = "only blanks may follow the closing quote, no comment either";
        let help =
            "put the whole value into quotes of the other kind, and a comment on its own line";
        let behind = line.len() - rest.trim_start().len();
        return Err(Problem::error(what, why, help).at(line, behind));
    }
    Ok(value)
}

fn quote(text: &str) -> Option<char> {
    text.chars().next().filter(|c| matches!(c, '\'' | '"'))
}

/// What is doubtful about a variable that is set.
pub(crate) fn doubts(name: &str, value: &str, line: &str, doubts: &mut Vec<Problem>) {
    let mut doubt = |what: String, why: &str, help: &str| {
        doubts.push(Problem::warning(what, why, help).at(line, 0));
    };
    if name == "LOGNAME" {
        let why = "cron(8) sets it to the user that owns the crontab";
        doubt("LOGNAME has no effect".into(), why, "remove the line");
    }
    if name == "CRON_TZ" {
        let why = "Debian's cron(8) does not know it: all schedules are of the local time zone";
        let help = "remove the line, and write the schedules in local time";
        doubt("CRON_TZ does not change when jobs run".into(), why, help);
    }
    if value.is_empty() && line.trim_end().ends_with('=') {
        let why = "Debian's cron(8) refuses a crontab with such a line";
        let help = format!("write {name}=\"\"");
        doubt(format!("the value of {name} is empty"), why, &help);
    }
    let left = left_as_it_is(value).filter(|_| !line.trim_end().ends_with('\''));
    if let Some(sign) = left {
        let why = "cron(8) replaces neither variables nor ~ in values";
        let help = format!(
            "write the value in full, or set the variable in the command; in \
                            single quotes a {sign} is taken as meant"
        );
        doubt(format!("{name} is set to {value}, with its {sign}"), why, &help);
    }
}

/// The `$` of a `$NAME` or `${NAME}`, or the `~` of a home directory, that a shell would replace.
fn left_as_it_is(value: &str) -> Option<char> {
    let mut behind = value.split('$').skip(1).filter_map(|rest| rest.chars().next());
    if behind.any(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '{')) {
        return Some('$');
    }
    let is_home = |path: &str| path == "~" || path.starts_with("~/");
    value.split(':').any(is_home).then_some('~')
}
