//! A channel has a bound, or a comment that says why it is bounded in fact.

use crate::tidy::source::{Kind, Token};
use crate::tidy::{Finding, Source};

const MESSAGE: &str = "this channel has no bound: give it one, or say in a comment directly above why it is bounded in fact";

pub fn check(source: &Source) -> Vec<Finding> {
    let code = source.code();
    (0..code.len())
        .filter(|&at| is_unbounded(&code, at))
        .map(|at| code[at].line)
        .filter(|&line| source.ships(line) && !source.is_explained(line))
        .map(|line| Finding::new(&source.path, line, MESSAGE))
        .collect()
}

/// `unbounded_channel(`, or `mpsc::channel()` of the standard library, at this place.
fn is_unbounded(code: &[&Token], at: usize) -> bool {
    let next = |ahead: usize| code.get(at + ahead).map_or("", |token| token.text.as_str());
    let of_mpsc = at >= 3 && code[at - 3].text == "mpsc";
    // `channel::<T>()` and `channel()`: what is called without an argument.
    let arguments = || {
        let open = (at..code.len()).find(|&i| matches!(code[i].text.as_str(), "(" | ";" | "{"));
        open.is_some_and(|open| {
            code[open].text == "(" && code.get(open + 1).is_some_and(|token| token.text == ")")
        })
    };
    code[at].kind == Kind::Word
        && match code[at].text.as_str() {
            "unbounded_channel" => matches!(next(1), "(" | ":"),
            "channel" => of_mpsc && matches!(next(1), "(" | ":") && arguments(),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_without_a_bound_or_a_comment_is_found() {
        let text = "use tokio::sync::mpsc::unbounded_channel;\n\
                    fn a() {\n\
                    let (a, b) = mpsc::unbounded_channel();\n\
                    // One message a worker at most.\n\
                    let (a, b) = mpsc::unbounded_channel::<u8>();\n\
                    let (a, b) = std::sync::mpsc::channel();\n\
                    let (a, b) = mpsc::channel(8);\n\
                    let (a, b) = oneshot::channel();\n\
                    let (a, b) = mpsc::channel::<u8>();\n\
                    }";
        let lines: Vec<usize> = check(&Source::new("crates/node/src/a.rs", text))
            .into_iter()
            .map(|finding| finding.line)
            .collect();
        assert_eq!(lines, [3, 6, 9]);
    }
}
