//! Whatever path is asked for, what is looked for lies below the root and is not hidden,
//! and what is opened never is the file outside, nor (beneath) reached by a link to it.
#![no_main]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mfserv_core::route::{self, Symlinks};
use mfserv_front::embedded::opening::{self, Effort, Found};
use mfserv_front::embedded::resolve_path;

/// A root with files, links that lead out of it, and what must not be reached.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let world = std::env::temp_dir().join(format!("static_paths.{}", std::process::id()));
    let root = world.join("site");
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::create_dir_all(root.join(".git")).unwrap();
    for inside in ["a/f", "a/b/f", ".git/f", ".f", "f", "..f", "\\f", "%2e%2e"] {
        std::fs::write(root.join(inside), "inside").unwrap();
    }
    for outside in ["f", "canary", "site2"] {
        std::fs::write(world.join(outside), "canary").unwrap();
    }
    // A root may have been made by a process of this number that has gone.
    let _ = symlink("..", root.join("up"));
    let _ = symlink("../../f", root.join("a/f2"));
    let _ = symlink(world.join("f"), root.join("a/b/abs"));
    let _ = symlink("b", root.join("a/in"));
    root
});

fuzz_target!(|raw: &[u8]| {
    let Ok(raw) = std::str::from_utf8(raw) else { return };
    let Ok(path) = route::normalise(raw.as_bytes()) else { return };
    for dotfiles in [false, true] {
        let mut relative = String::new();
        if resolve_path::below(&path, dotfiles, &mut relative) {
            check_place(&relative, dotfiles);
            check_opening(&relative);
        }
    }
});

fn check_place(relative: &str, dotfiles: bool) {
    assert!(!relative.contains('\0') && !relative.starts_with('/'));
    for (number, segment) in relative.split('/').enumerate() {
        assert!(!matches!(segment, "." | ".."), "{relative:?}");
        assert!(!segment.is_empty() || relative.is_empty(), "{relative:?}");
        let public = number == 0 && segment == ".well-known";
        assert!(dotfiles || public || !segment.starts_with('.'), "{relative:?}");
    }
}

fn check_opening(relative: &str) {
    // Links are part of the site where they are followed; without one nothing leads out.
    let by_link = relative.split('/').any(|name| matches!(name, "up" | "f2" | "abs"));
    for symlinks in [Symlinks::Beneath, Symlinks::Follow] {
        let found = opening::open(&ROOT, relative, symlinks, Effort::Disk);
        if let Ok(Found::File(file, version)) = found {
            let content = std::io::read_to_string(std::fs::File::from(file)).unwrap();
            assert_eq!(content.len() as u64, version.length);
            let may_lead_out = by_link && symlinks == Symlinks::Follow;
            assert!(content == "inside" || may_lead_out, "{relative:?}");
        }
    }
}
