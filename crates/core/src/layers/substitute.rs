//! The placeholders of values: `{{NAME}}` and, from older files, `@@@NAME@@@`.

use std::collections::{BTreeMap, HashSet};

use minijinja::Environment;

/// Steps that a template may take. A value is a line, not a program.
const FUEL: u64 = 20_000;

/// The longest text that a value may become, bytes.
const MAX_BYTES: usize = 256 * 1024;

/// Renders a value as a Jinja template with the environment as its variables,
/// twice (a variable may itself hold a placeholder), then replaces each
/// `@@@NAME@@@`. Unknown variables are empty. The error is the reason, for
/// people.
pub fn substitute(raw: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let mut text = raw.to_string();
    for _ in 0..2 {
        if looks_like_a_template(&text) {
            text = render(&text, env)?;
        }
    }
    Ok(replace_marks(&text, env))
}

/// The first of these names that a value would be rendered with, as [`substitute`] does it; `None`
/// also where the value cannot be rendered.
pub fn used<'a>(
    raw: &str,
    env: &BTreeMap<String, String>,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let mut names = names.into_iter().collect::<Vec<_>>().into_iter();
    let (mut text, mut used) = (raw.to_string(), HashSet::new());
    for _ in 0..2 {
        if looks_like_a_template(&text) {
            let jinja = Environment::new();
            used.extend(jinja.template_from_str(&text).ok()?.undeclared_variables(false));
            text = render(&text, env).ok()?;
        }
    }
    names.find(|name| used.contains(*name) || text.contains(&format!("@@@{name}@@@")))
}

fn looks_like_a_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

fn render(text: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let mut jinja = Environment::new();
    jinja.set_fuel(Some(FUEL));
    let rendered = jinja.render_str(text, env).map_err(|error| match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    })?;
    if rendered.len() > MAX_BYTES {
        return Err(format!("the rendered value is longer than {MAX_BYTES} bytes"));
    }
    Ok(rendered)
}

/// Replaces every `@@@NAME@@@` whose name is made of `A-Z`, `0-9` and `_`.
fn replace_marks(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("@@@") {
        out.push_str(before);
        match after.split_once("@@@") {
            Some((name, following)) if is_name(name) => {
                out.push_str(env.get(name).map_or("", String::as_str));
                rest = following;
            }
            _ => {
                out.push_str("@@@");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> BTreeMap<String, String> {
        [("A", "1"), ("HOME_DIR", "/home/x"), ("TWICE", "<{{A}}>"), ("THRICE", "{{TWICE}}")]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .into()
    }

    #[track_caller]
    fn becomes(raw: &str, expected: &str) {
        assert_eq!(substitute(raw, &env()).as_deref(), Ok(expected), "{raw}");
    }

    #[test]
    fn variables_are_replaced_and_unknown_ones_are_empty() {
        becomes("plain {unix_socket_path} $(circus.wid)", "plain {unix_socket_path} $(circus.wid)");
        becomes("a{{A}}b{{NOPE}}c", "a1bc");
        becomes("{{ A|int + 1 }}{% if NOPE %}x{% else %}y{% endif %}", "2y");
        becomes("<b>{{HOME_DIR}}&</b>", "<b>/home/x&</b>");
    }

    #[test]
    fn rendering_is_done_twice_and_not_more() {
        becomes("{{TWICE}}", "<1>");
        becomes("{{THRICE}}", "<{{A}}>");
    }

    #[test]
    fn legacy_marks_are_replaced_and_other_signs_left_alone() {
        becomes("ipc://@@@HOME_DIR@@@/var", "ipc:///home/x/var");
        becomes("@@@A@@@-@@@NOPE@@@-@@@A@@@", "1--1");
        becomes("@@@lower@@@ @@@ A", "@@@lower@@@ @@@ A");
        becomes("@@@@@@", "@@@@@@");
    }

    #[test]
    fn a_name_is_used_in_a_placeholder_a_statement_a_mark_and_by_another_variable() {
        let mut env = env();
        env.insert("BY_ANOTHER".into(), "<{{DB}}>".into());
        for text in
            ["{{ DB }}", "{% if DB %}x{% endif %}", "@@@DB@@@", "{{DB|upper}}", "{{BY_ANOTHER}}"]
        {
            assert_eq!(used(text, &env, ["OTHER", "DB"]), Some("DB"), "{text}");
        }
        for text in ["$DB", "{{ A }} DB", "{% set DB = 1 %}{{ DB }}", "{{ DB"] {
            assert_eq!(used(text, &env, ["DB"]), None, "{text}");
        }
    }

    #[test]
    fn a_template_that_is_wrong_endless_or_huge_is_an_error() {
        for bad in [
            "{{ A",
            "{% if %}",
            "{{ A|nofilter }}",
            "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}",
        ] {
            assert!(substitute(bad, &env()).is_err(), "{bad}");
        }
    }
}
