//! Symbolic links of a package that lead to each other and never to a file.

use std::collections::BTreeMap;

/// How many links Linux follows on the way to one file.
const FOLLOWED: usize = 40;

/// Returns the first of these links (path → target, each admitted alone) that leads to itself,
/// or over more links than the kernel follows. Example: `a` → `b`, `b` → `a`.
pub(super) fn find_cycle(links: &BTreeMap<String, String>) -> Option<&str> {
    links.keys().map(String::as_str).find(|link| !ends(link, links))
}

fn ends(link: &str, links: &BTreeMap<String, String>) -> bool {
    let reversed = |path: &str| -> Vec<String> {
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
        parts.rev().map(str::to_string).collect()
    };
    // the parts that are still to be walked, the next one last
    let mut todo = reversed(link);
    let mut at: Vec<String> = Vec::new();
    let mut followed = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        if let Some(target) = links.get(&at.join("/")) {
            followed += 1;
            if followed > FOLLOWED {
                return false;
            }
            at.pop();
            todo.extend(reversed(target));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_to_itself_is_found_over_others_and_over_directories() {
        let links = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            all.iter().map(|(path, target)| (path.to_string(), target.to_string())).collect()
        };
        for good in [
            &[("a", "b"), ("b", "c")][..],
            &[("x/a", "../b"), ("b", "x/c")],
            &[("a", "a1/b"), ("a1/b", "../c")],
        ] {
            assert_eq!(find_cycle(&links(good)), None, "{good:?}");
        }
        for bad in [
            &[("a", "a")][..],
            &[("a", "b"), ("b", "a")],
            &[("x/a", "../b"), ("b", "x/a")],
            &[("a", "b/c"), ("b", "a")],
        ] {
            assert!(find_cycle(&links(bad)).is_some(), "{bad:?}");
        }
        let chain: Vec<(String, String)> =
            (0..50).map(|n| (format!("l{n}"), format!("l{}", n + 1))).collect();
        assert!(find_cycle(&chain.into_iter().collect()).is_some());
    }
}
