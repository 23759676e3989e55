//! Patterns of the shell, for names.

/// A shell pattern with `*`, `?` and `[…]`, as fnmatch(3) has it. No pattern is slow: when what
/// follows the last star does not fit, that star alone takes more.
pub fn matches(pattern: &str, name: &str) -> bool {
    let [pattern, name] = [pattern, name].map(|text| text.chars().collect::<Vec<char>>());
    let (mut at, mut read) = (0, 0);
    // What follows the last star, and the first character that the star does not take.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&'*') {
            at += 1;
            star = Some((at, read));
            continue;
        }
        let Some(c) = name.get(read) else { return at == pattern.len() };
        match (one(&pattern[at..], *c), star) {
            (Some(length), _) => {
                at += length;
                read += 1;
            }
            (None, Some((after, taken))) => {
                star = Some((after, taken + 1));
                (at, read) = (after, taken + 1);
            }
            (None, None) => return false,
        }
    }
}

/// How much of a pattern, which begins with no star, stands for this character; `None` if it is
/// another one.
fn one(pattern: &[char], c: char) -> Option<usize> {
    let first = pattern.first()?;
    // A bracket that is not closed is a bracket; a closing one that comes first is in the set.
    let end = (*first == '[').then(|| pattern.iter().skip(2).position(|p| *p == ']')).flatten();
    match (first, end) {
        (_, Some(end)) => in_set(&pattern[1..end + 2], c).then_some(end + 3),
        ('?', None) => Some(1),
        (first, None) => (*first == c).then_some(1),
    }
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
        for (pattern, name) in [
            ("*", "foo"),
            ("*", ""),
            ("f*o", "foo"),
            ("f**o*", "foo"),
            ("*oo", "foooo"),
            ("*a?c*c", "aabbabcxc"),
            ("f?o", "foo"),
            ("[a-f]oo", "foo"),
            ("*[!f]o", "foo"),
            ("[]x]", "]"),
            ("[", "["),
            ("foo", "foo"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("f", "foo"),
            ("foo?", "foo"),
            ("[!f]oo", "foo"),
            ("", "foo"),
            ("[", "foo"),
            ("fo[", "foo"),
            ("*a?c", "aabbabcxc"),
            ("f*?", "f"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_at_once() {
        // What tries each place for each star does not end in years.
        let (pattern, name) = ("*a".repeat(12), "a".repeat(60));
        assert!(matches(&pattern, &name) && !matches(&(pattern + "b"), &name));
    }
}
