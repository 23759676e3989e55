//! Which file a URL path names: text in, a relative path out. No file is looked at.

/// Files whose names begin with a dot are hidden, but this directory is public by its
/// purpose (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Appends to `relative` the path below the root that the normalised rest of a URL path
/// names, without a `/` at either end: `/a//b/` gives `a/b`, `/` gives nothing (the root
/// itself). False, with `relative` of no use, if a segment is not the name of a file
/// (`..`), or if it is hidden (`.git`) and `dotfiles` is false.
pub fn below(rest: &str, dotfiles: bool, relative: &mut String) -> bool {
    let begin = relative.len();
    for segment in rest.split('/').filter(|segment| !segment.is_empty()) {
        let first = relative.len() == begin;
        let hidden = segment.starts_with('.') && !(first && segment == WELL_KNOWN);
        let is_name = segment != "." && segment != ".." && !segment.contains('\0');
        if !is_name || (hidden && !dotfiles) {
            return false;
        }
        if !first {
            relative.push('/');
        }
        relative.push_str(segment);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rest_leads_out_of_the_root_or_to_a_hidden_file() {
        for (rest, plain, all) in [
            ("", Some(""), Some("")),
            ("/", Some(""), Some("")),
            ("/a//b", Some("a/b"), Some("a/b")),
            ("/a/b/", Some("a/b"), Some("a/b")),
            ("/..", None, None),
            ("/a/../..", None, None),
            ("/a/.", None, None),
            ("/a\0", None, None),
            ("/.git/config", None, Some(".git/config")),
            ("/a/.b", None, Some("a/.b")),
            ("/...", None, Some("...")),
            ("/.well-known/x", Some(".well-known/x"), Some(".well-known/x")),
            ("/.well-known/.x", None, Some(".well-known/.x")),
            ("/a/.well-known", None, Some("a/.well-known")),
            ("/.well-knownx", None, Some(".well-knownx")),
        ] {
            for (dotfiles, expected) in [(false, plain), (true, all)] {
                let mut relative = String::new();
                let found = below(rest, dotfiles, &mut relative).then_some(relative.as_str());
                assert_eq!(found, expected, "{rest:?}");
            }
        }
    }
}
