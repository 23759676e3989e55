//! A test waits for a condition. One that waits for a time says why no condition would do.

use crate::tidy::code::paths;
use crate::tidy::{Finding, Source};

const MESSAGE: &str = "a test waits for a condition, not for a time: await it, or say in a comment \
                       (on this line or directly above) why only time can pass here";

pub fn check(source: &Source) -> Vec<Finding> {
    paths(source)
        .into_iter()
        .filter(|(_, path)| path == "sleep" || path.ends_with("::sleep"))
        .map(|(line, _)| line)
        .filter(|&line| source.is_test(line) && !source.is_explained(line))
        .map(|line| Finding::new(&source.path, line, MESSAGE))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_in_a_test_is_found_unless_it_says_why() {
        let text = "fn a() {\nstd::thread::sleep(PAUSE);\n// The log rotates by the second.\n\
                    std::thread::sleep(PAUSE);\nsleep(PAUSE); // The log rotates by the second.\n\
                    let asleep = \"sleep\";\n}";
        let lines = |path: &str| -> Vec<usize> {
            check(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
        };
        assert_eq!(lines("crates/front/tests/a.rs"), [2]);
        assert_eq!(lines("crates/testkit/src/a.rs"), [2]);
        assert!(lines("crates/front/src/a.rs").is_empty());
    }
}
