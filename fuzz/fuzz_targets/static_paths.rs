//! Whatever is asked for, what is looked for lies below the root, and is not hidden.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mfserv_core::route;
use mfserv_front::embedded::place;

fuzz_target!(|raw: &[u8]| {
    let Ok(raw) = std::str::from_utf8(raw) else { return };
    let Ok(path) = route::normalise(raw) else { return };
    for dotfiles in [false, true] {
        let mut relative = String::new();
        if !place::below(&path, dotfiles, &mut relative) {
            continue;
        }
        assert!(!relative.contains('\0') && !relative.starts_with('/'));
        for (number, segment) in relative.split('/').enumerate() {
            assert!(!matches!(segment, "." | ".."), "{relative:?}");
            assert!(!segment.is_empty() || relative.is_empty(), "{relative:?}");
            let public = number == 0 && segment == ".well-known";
            assert!(dotfiles || public || !segment.starts_with('.'), "{relative:?}");
        }
    }
});
