//! Whatever a `_redirects` says and a client asks for, a redirect stays on this host or leads to one
//! that the file writes out, breaks no head, and never leads back to the same path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mfserv_core::route;
use mfserv_core::route::redirects::{Action, Asked, RULES_MAX, Redirects};

/// What no file has, so that a host with it is the client's.
const MARK: &str = "evil";

fuzz_target!(|raw: &[u8]| {
    let cut = raw.iter().position(|&byte| byte == 0).unwrap_or(raw.len());
    let (text, asked) = (&raw[..cut], raw.get(cut + 1..).unwrap_or_default());
    let (rules, problems) = Redirects::parse(text);
    let lines = text.split(|&byte| byte == b'\n').count();
    assert!(problems.len() <= lines && problems.iter().all(|one| one.line as usize <= lines));
    assert!(problems.iter().all(|one| !one.reason.is_empty() && !one.help.is_empty()));
    assert!(problems.len() < RULES_MAX || lines >= RULES_MAX);
    let mut parts = asked.splitn(2, |&byte| byte == b'?');
    let mut path = b"/".to_vec();
    path.extend(parts.next().unwrap_or_default());
    let query = parts.next();
    let Ok(path) = route::normalise(&path) else { return };
    let has_mark = String::from_utf8_lossy(text).contains(MARK);
    for prefix in ["", "/a site"] {
        let asked = Asked { prefix, rest: &path, query };
        let Some(found) = rules.find(asked) else { continue };
        let Action::Redirect { status, location } = found.action else { continue };
        assert!((301..=308).contains(&status));
        assert!(location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{location}");
        if location.starts_with('/') {
            assert!(!location.starts_with("//"), "{location}");
            let end = location.find(['?', '#']).unwrap_or(location.len());
            assert_ne!(&location[..end], format!("{prefix}{path}"), "it leads to itself");
        } else {
            let host = location.split_once("://").unwrap().1;
            let host = host.split(['/', '?', '#']).next().unwrap();
            assert!(!host.is_empty() && !host.contains('@'), "{location}");
            assert!(has_mark || !host.contains(MARK), "{location}");
        }
    }
});
