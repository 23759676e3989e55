//! What node-gyp leaves beside the native modules that it has compiled: its notes name
//! the paths of this machine, and nobody needs them to run the module.

use std::fs;
use std::path::Path;

use mfserv_core::Diagnostic;

use mfserv_platform::disk;

/// What is only there to compile again, in the `build` directory of a package.
const NOTES: &[&str] =
    &["Makefile", "config.gypi", "Release/.deps", "Release/obj", "Release/obj.target"];

/// Removes the notes of node-gyp below `node_modules`; links are not followed.
pub(super) fn remove_notes(modules: &Path) -> Result<(), Diagnostic> {
    let mut todo = vec![modules.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))?;
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            let compiled = entry.file_name() == "build"
                && path.join("config.gypi").is_file()
                && path.join("Makefile").is_file();
            match compiled {
                true => remove_from(&path)?,
                false => todo.push(path),
            }
        }
    }
    Ok(())
}

fn remove_from(build: &Path) -> Result<(), Diagnostic> {
    for name in NOTES {
        disk::remove(&build.join(name))?;
    }
    let entries = fs::read_dir(build).map_err(|e| disk::failed("read", build, e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".target.mk") || name.ends_with(".Makefile") {
            disk::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notes_of_a_compilation_go_and_the_module_stays() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        let kept =
            ["a/build/Release/a.node", "b/build/Makefile", "b/build/Release/obj/x", "c/index.js"];
        kept.iter().for_each(|path| write(path));
        for name in
            ["Makefile", "config.gypi", "a.target.mk", "binding.Makefile", "Release/.deps/a.d"]
        {
            write(&format!("a/build/{name}"));
        }
        write("a/build/Release/obj.target/a.o");
        remove_notes(folder.path()).unwrap();
        assert!(kept.iter().all(|path| folder.path().join(path).is_file()));
        let left: Vec<_> = fs::read_dir(folder.path().join("a/build")).unwrap().flatten().collect();
        assert_eq!((left.len(), left[0].file_name().to_str()), (1, Some("Release")));
        assert_eq!(fs::read_dir(folder.path().join("a/build/Release")).unwrap().count(), 1);
    }
}
