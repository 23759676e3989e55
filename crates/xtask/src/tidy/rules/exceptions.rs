//! Each exception from a lint, and each test that does not run by itself, says why.

use crate::tidy::source::{Token, closing};
use crate::tidy::{Finding, Source};

pub fn check(source: &Source) -> Vec<Finding> {
    let code = source.code();
    let mut findings = Vec::new();
    for at in 0..code.len() {
        if code[at].text != "#" {
            continue;
        }
        let inner = code.get(at + 1).is_some_and(|token| token.text == "!");
        let open = at + 1 + usize::from(inner);
        let Some(close) = code.get(open).and_then(|_| closing(&code, open)) else { continue };
        let line = code[at].line;
        if let Some(name) =
            unexplained(&code[open + 1..close]).filter(|_| !source.is_explained(line))
        {
            let message =
                format!("`{name}` needs its reason: `reason = \"…\"`, or a comment directly above");
            findings.push(Finding::new(&source.path, line, message));
        }
    }
    findings
}

/// The name of an attribute that is an exception and says no reason.
fn unexplained<'a>(attribute: &[&'a Token]) -> Option<&'a str> {
    let first = attribute.first()?.text.as_str();
    let says = |word: &str| attribute.iter().any(|token| token.text == word);
    match first {
        "allow" | "expect" if !says("reason") => Some(first),
        "ignore" if !says("=") => Some(first),
        "rustfmt" => Some("rustfmt::skip"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_without_its_reason_is_found() {
        let text = "#![allow(a)]\n#[allow(b, reason = \"c\")]\n// Why.\n#[expect(d)]\nfn e() {}\n\
                    #[ignore]\nfn f() {}\n#[ignore = \"slow\"]\nfn g() {}\n#[derive(Debug)]\nstruct H;\n\
                    #[rustfmt::skip]\nconst I: u8 = 1;";
        let lines: Vec<usize> = check(&Source::new("crates/core/src/a.rs", text))
            .into_iter()
            .map(|finding| finding.line)
            .collect();
        assert_eq!(lines, [1, 6, 12]);
    }
}
