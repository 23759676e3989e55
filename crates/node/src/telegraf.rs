//! Telegraf, where the configuration asks for it in place of the built-in agent.

use std::path::{Path, PathBuf};

use mfserv_core::keys::TELEGRAF_PROGRAM;
use mfserv_core::plan::RoleProgram;
use mfserv_core::telegraf::{self, Program};
use mfserv_core::{Diagnostic, Kind};

use crate::configure::Module;
use crate::inspect::is_executable;
use crate::places::Places;

/// How it is started; `None` if it is not asked for. `role`: how roles are started.
///
/// # Errors
/// The program is not there. Nothing else depends on it.
pub fn program(
    places: &Places,
    module: &Module,
    role: impl FnOnce(Vec<String>) -> RoleProgram,
) -> Result<Option<Program>, Diagnostic> {
    let config = &module.resolution.config;
    if !telegraf::is_wanted(config) {
        return Ok(None);
    }
    let name = config.get(TELEGRAF_PROGRAM);
    let path = module.env.get("PATH").map_or("", String::as_str);
    let program = find(places.home(), &name, path).ok_or_else(|| missing(&name))?;
    let words = ["telegraf".into(), "--program".into(), program.to_string_lossy().into_owned()];
    let own = crate::program().to_string_lossy().into_owned();
    let host = module.env.get("MFHOSTNAME").cloned().unwrap_or_else(|| "localhost".into());
    Ok(Some(Program {
        role: role([own].into_iter().chain(words).collect()),
        host,
        socket: places.points_socket(),
        // The file is also there where the kernel was started without it.
        pressure: std::fs::read("/proc/pressure/cpu").is_ok(),
    }))
}

fn find(home: &Path, name: &str, path: &str) -> Option<PathBuf> {
    let places: Vec<PathBuf> = match name.contains('/') {
        true => vec![home.join(name)],
        false => std::env::split_paths(path).map(|dir| dir.join(name)).collect(),
    };
    places.into_iter().find(|place| is_executable(place))
}

fn missing(name: &str) -> Diagnostic {
    Diagnostic::error(format!("Telegraf is not started: the program {name} is not there"))
        .kind(Kind::BadConfiguration)
        .because(match name.contains('/') {
            true => "[telegraf] agent=telegraf, and there is no such executable file",
            false => "[telegraf] agent=telegraf, and it is in no directory of the PATH",
        })
        .help(
            "install it, or write its path into [telegraf] program, then `mfserv reload`; \
             [telegraf] agent=builtin needs no program",
        )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_program_is_found_on_the_path_or_where_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (home, bin) = (dir.path().join("home"), dir.path().join("bin"));
        let program = bin.join("telegraf");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(&program, "").unwrap();
        let path = format!("/no/such:{}", bin.display());
        assert_eq!(find(&home, "telegraf", &path), None, "it is not executable");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(&home, "telegraf", &path), Some(program.clone()));
        assert_eq!(find(&home, "telegraf", "/no/such"), None);
        assert_eq!(find(&home, program.to_str().unwrap(), ""), Some(program));
        assert_eq!(find(&home, bin.to_str().unwrap(), ""), None, "a directory is no program");
    }
}
