//! Which file a path names: text in, a place below the root out. No file is looked at.

/// Directories whose names begin with a dot are hidden, but this one is public by its
/// purpose (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Appends to `place` the relative path that the normalised rest of a URL path names:
/// no `/` at either end, single ones between, so empty for the root itself. False, with
/// `place` of no use, where a segment could be understood as something else than the
/// name of a file, or is hidden and `dotfiles` does not ask for hidden ones.
pub fn below(rest: &str, dotfiles: bool, place: &mut String) -> bool {
    let begin = place.len();
    for segment in rest.split('/').filter(|segment| !segment.is_empty()) {
        let first = place.len() == begin;
        let hidden = segment.starts_with('.') && !(first && segment == WELL_KNOWN);
        let is_name = segment != "." && segment != ".." && !segment.contains('\0');
        if !is_name || (hidden && !dotfiles) {
            return false;
        }
        if !first {
            place.push('/');
        }
        place.push_str(segment);
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
                let mut place = String::new();
                let found = below(rest, dotfiles, &mut place).then_some(place.as_str());
                assert_eq!(found, expected, "{rest:?}");
            }
        }
    }
}
