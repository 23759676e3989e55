//! How a front of a kind is started, and ended with all that it has started.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

use mfserv_testkit::Nginx;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::kind;
use crate::world::{Front, World};

/// nginx, if this machine can have it.
pub fn nginx() -> Option<&'static Nginx> {
    static NGINX: OnceLock<Option<Nginx>> = OnceLock::new();
    NGINX.get_or_init(|| mfserv_testkit::nginx(target())).as_ref()
}

/// The same with Lua.
fn nginx_with_lua() -> Option<&'static Nginx> {
    static NGINX: OnceLock<Option<Nginx>> = OnceLock::new();
    NGINX.get_or_init(|| mfserv_testkit::nginx_with_lua(target())).as_ref()
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// The program of a front, in a process group of its own. `slows`: checks of nginx last as long as
/// this file is there.
pub fn command(kind: &str, has_lua: bool, slows: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfserv-front-under-test"));
    if kind == "nginx" {
        let nginx = if has_lua { nginx_with_lua() } else { nginx() };
        let nginx = nginx.expect("nginx can be had");
        match slows {
            Some(file) => command.env("FRONT_NGINX", wrapper(&nginx.program, file)),
            None => command.env("FRONT_NGINX", &nginx.program),
        };
        if let Some(modules) = &nginx.modules {
            command.env("FRONT_NGINX_MODULES", modules);
        }
    }
    command.process_group(0);
    command
}

/// A program that is nginx, but for its checks of configurations: they last as long as this file is
/// there.
fn wrapper(nginx: &Path, file: &Path) -> PathBuf {
    let (path, file) = (file.with_extension("sh"), file.display());
    let waits = format!("while [ -e {file} ]; do sleep 0.05; done");
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *\" -t \"*) {waits};; esac\nexec {} \"$@\"\n",
        nginx.display()
    );
    mfserv_platform::disk::replace(&path, 0o700, text.as_bytes()).unwrap();
    path
}

/// Kills a front with what it has started.
pub fn kill_all(front: &mut Child) {
    let _ = kill_process_group(Pid::from_child(front), Signal::KILL);
    let _ = front.kill();
}

/// The process of a front that answers requests: it has the memory, the files and the threads.
fn answering(front: &Child) -> u32 {
    if kind::under_test().0 != "nginx" {
        return front.id();
    }
    let all = mfserv_platform::proc::processes(Path::new("/proc"));
    let below = all.iter().filter(|process| process.parent == front.id());
    let is_behind = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--control")
    };
    below.map(|process| process.pid).find(is_behind).expect("a front behind nginx")
}

/// True if the kind of front that is tested does not do what a test says, for a reason that
/// `docs/nginx.md` has below this word.
pub fn differs(word: &str) -> bool {
    let is_nginx = kind::under_test().0 == "nginx";
    let docs = include_str!("../../../docs/nginx.md");
    assert!(docs.contains(&format!("| `{word}` |")), "docs/nginx.md has no difference {word}");
    if is_nginx {
        eprintln!("not promised behind nginx: {word} (docs/nginx.md)");
    }
    is_nginx
}

impl World {
    /// For nginx with Lua; `None` in the runs with other kinds, and where it cannot be had.
    pub fn with_lua() -> Option<Self> {
        let (kind, _) = kind::under_test();
        nginx_with_lua().filter(|_| kind == "nginx")?;
        let mut world = Self::new();
        world.has_lua = true;
        Some(world)
    }

    /// The same, with checks that last as long as there is a file, which there is.
    pub fn with_slow_checks() -> Option<(Self, PathBuf)> {
        let mut world = Self::with_lua()?;
        let file = world.path("slow");
        std::fs::write(&file, "").unwrap();
        world.slows = Some(file.clone());
        Some((world, file))
    }

    /// `None` where the kind of front does not do what is tested (`docs/nginx.md`).
    pub fn where_holds(word: &str) -> Option<Self> {
        (!differs(word)).then(Self::new)
    }
}

impl Front {
    /// The process that answers.
    pub fn pid(&self) -> u32 {
        answering(&self.child)
    }
}
