//! nginx for tests: the one in PATH, or Debian's, unpacked below the target directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::servers::of_debian;

/// The packages of nginx with Lua and other modules, and what they have.
const PACKAGES: &[(&str, &str)] = &[
    ("libpcre3", LIBRARIES),
    ("libluajit2-5.1-2", LIBRARIES),
    ("libnginx-mod-http-ndk", MODULES),
    ("libnginx-mod-http-lua", MODULES),
    ("libnginx-mod-http-echo", MODULES),
    ("libnginx-mod-http-brotli-static", MODULES),
    ("lua-resty-core", LUA),
    ("lua-resty-lrucache", LUA),
];
const LIBRARIES: &str = "usr/lib";
const MODULES: &str = "usr/lib/nginx/modules";
const LUA: &str = "usr/share/lua/5.1";

/// nginx, as a program.
#[derive(Debug, Clone)]
pub struct Nginx {
    /// The program.
    pub program: PathBuf,
    /// The directory of its modules; `None`: its own.
    pub modules: Option<PathBuf>,
}

/// nginx without modules. `target` is the directory in which packages are unpacked. `None` if
/// this machine cannot have it; the reason is printed.
pub fn nginx(target: &Path) -> Option<Nginx> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("nginx")).find(|one| one.exists());
    let program = match found {
        Some(program) => program,
        None => of_debian(target, "nginx", "usr/sbin/nginx")?,
    };
    Some(Nginx { program, modules: None })
}

/// nginx of Debian with Lua, echo and copies of brotli, as a script in a directory of its own. `None` if this machine
/// cannot have it; the reason is printed.
///
/// # Panics
/// When the files cannot be made.
pub fn nginx_with_lua(target: &Path) -> Option<Nginx> {
    let real = of_debian(target, "nginx", "usr/sbin/nginx")?;
    let dirs: Option<Vec<PathBuf>> =
        PACKAGES.iter().map(|(package, inside)| of_debian(target, package, inside)).collect();
    let dirs = dirs?;
    let with = |what: &'static str| {
        let all = PACKAGES.iter().zip(&dirs);
        all.filter(move |((_, inside), _)| *inside == what).map(|(_, dir)| dir)
    };
    let libraries: Vec<String> = with(LIBRARIES).flat_map(|dir| with_libraries(dir)).collect();
    let lua: Vec<String> = with(LUA).map(|dir| format!("{}/?.lua", dir.display())).collect();
    let made = target.join("servers/nginx-with-lua");
    let modules = made.join("modules");
    fs::create_dir_all(&modules).expect("a directory for modules");
    for module in with(MODULES).flat_map(|dir| fs::read_dir(dir).expect("modules")) {
        // Relative: a copy of the target directory works too. Another test may have made it.
        let module = module.expect("a module").path();
        let below = module.strip_prefix(target.join("servers")).expect("a file of a package");
        let _ = symlink(Path::new("../..").join(below), modules.join(module.file_name()?));
    }
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} LUA_PATH='{};;' exec {} \"$@\"\n",
        libraries.join(":"),
        lua.join(";"),
        real.display()
    );
    let program = made.join("nginx");
    if fs::read_to_string(&program).ok().as_ref() != Some(&script) {
        let fresh = made.join(format!("nginx.{}", std::process::id()));
        fs::write(&fresh, script).expect("a script");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::rename(&fresh, &program).expect("the script has its place");
    }
    Some(Nginx { program, modules: Some(modules) })
}

/// The directory of libraries of this machine's kind below `usr/lib`.
fn with_libraries(lib: &Path) -> Vec<String> {
    // Debian puts some below /lib.
    let both = [lib.to_owned(), lib.join("../../lib")];
    let below = both.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let dirs = below.map(|entry| entry.path()).filter(|path| path.is_dir());
    dirs.map(|path| path.display().to_string()).collect()
}
