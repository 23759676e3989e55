//! Patterns of the shell, for names.

/// A shell pattern with `*`, `?` and `[…]`, as fnmatch(3) has it.
pub fn matches(pattern: &str, name: &str) -> bool {
    fn rest(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) => {
                // A run of stars is one: what follows is tried at each place.
                let after = &pattern[1..];
                if after.first() == Some(&'*') {
                    return rest(after, name);
                }
                (0..=name.len()).any(|skip| rest(after, &name[skip..]))
            }
            (Some('?'), Some(_)) => rest(&pattern[1..], &name[1..]),
            (Some('['), Some(c)) => match pattern.iter().skip(2).position(|p| *p == ']') {
                None => *c == '[' && rest(&pattern[1..], &name[1..]),
                Some(end) => {
                    let set = &pattern[1..end + 2];
                    in_set(set, *c) && rest(&pattern[end + 3..], &name[1..])
                }
            },
            (Some(p), Some(c)) => p == c && rest(&pattern[1..], &name[1..]),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
    let characters = |text: &str| text.chars().take(200).collect::<Vec<_>>();
    rest(&characters(pattern), &characters(name))
}

/// `abc`, `a-z`, `!abc` between brackets.
fn in_set(set: &[char], c: char) -> bool {
    let (negated, set) = match set.split_first() {
        Some(('!', rest)) => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let mut at = 0;
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' {
            found |= (set[at]..=set[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= set[at] == c;
            at += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn shell_patterns_match_as_in_the_shell() {
        for (pattern, name) in
            [("*", "foo"), ("f*o", "foo"), ("f?o", "foo"), ("[a-f]oo", "foo"), ("foo", "foo")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("f", "foo"),
            ("foo?", "foo"),
            ("[!f]oo", "foo"),
            ("", "foo"),
            ("[", "foo"),
            ("fo[", "foo"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(12), &"b".repeat(60)));
    }
}
