//! The program nginx: what it can, checking a configuration, starting it, and its processes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::EndReason;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// `nginx -V` has so long.
const BUILD_PATIENCE: Duration = Duration::from_secs(20);
/// Modules that MFSERV's users find in their nginx, in the order in which they are loaded.
const MODULES: [&str; 4] = ["ndk_http_module.so", LUA, "ngx_http_echo_module.so", BROTLI_STATIC];
const LUA: &str = "ngx_http_lua_module.so";
const BROTLI_STATIC: &str = "ngx_http_brotli_static_module.so";

/// The first version with `ssl_reject_handshake` and `ssl_conf_command`.
const TLS_SINCE: [u32; 3] = [1, 19, 4];

/// What a program of this name can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// `nginx/1.22.1`.
    pub version: String,
    /// Modules that can be loaded.
    pub modules: Vec<PathBuf>,
    /// One of these is Lua.
    pub has_lua: bool,
    /// It can take the address of a client from a header.
    pub has_real_ip: bool,
    /// The compressed copies beside files that it can send.
    pub copies: Copies,
    /// It speaks TLS, and knows the directives that are written.
    pub has_tls: bool,
}

/// Kinds of compressed copies beside files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// `.gz`
    pub gzip: bool,
    /// `.br`
    pub brotli: bool,
}

/// The program, and what it inherits.
pub struct Program {
    /// Its path, or its name in PATH.
    pub path: PathBuf,
    /// Where it looks for files that a configuration names without a directory.
    pub prefix: PathBuf,
}

impl Program {
    /// Asks the program what it is. `modules`: the directory of its modules; `None`: its own.
    pub async fn build(&self, modules: Option<&Path>) -> Result<Build, Diagnostic> {
        let cannot = |why: &dyn std::fmt::Display| {
            Diagnostic::error(format!("{} cannot be the front", self.path.display()))
                .because(why)
                .help(
                    "install nginx (Debian: nginx-extras, with Lua), name the program as \
                     [front] nginx_program, or write [front] kind=embedded",
                )
        };
        let mut command = self.command(Path::new("stderr"));
        command.arg("-V").kill_on_drop(true);
        // Of a program that is no nginx it may be long.
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|why| cannot(&why))?;
        let output = tokio::time::timeout(BUILD_PATIENCE, child.wait_with_output()).await;
        let output = output
            .map_err(|_| cannot(&format!("it does not answer within {BUILD_PATIENCE:?}")))?
            .map_err(|why| cannot(&why))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        match parse_build(&text, modules) {
            Some(build) if output.status.success() => Ok(build),
            _ => {
                let first = text.lines().next().unwrap_or("nothing");
                Err(cannot(&format!("it is no nginx: asked for its version (-V) it says {first}")))
            }
        }
    }

    /// Checks a configuration, for so long; the error is what nginx says, `None` if it says
    /// nothing in time. The process has begun when this returns.
    pub fn check(
        &self,
        config: &Path,
        sockets: &[&OwnedFd],
        patience: Duration,
    ) -> std::io::Result<impl Future<Output = Result<(), Option<String>>> + use<>> {
        let mut command = self.command(Path::new("stderr"));
        command.arg("-t").arg("-c").arg(config).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = spawn(command, sockets)?;
        Ok(async move {
            let output = match tokio::time::timeout(patience, child.wait_with_output()).await {
                Ok(output) => output.map_err(|why| Some(why.to_string()))?,
                Err(_) => return Err(None),
            };
            match output.status.success() {
                true => Ok(()),
                false => Err(Some(String::from_utf8_lossy(&output.stderr).into_owned())),
            }
        })
    }

    /// Starts nginx with a configuration. It says in `log` why it refuses that.
    pub fn start(
        &self,
        config: &Path,
        sockets: &[&OwnedFd],
        log: &Path,
    ) -> std::io::Result<Master> {
        let mut command = self.command(log);
        command.arg("-c").arg(config);
        Master::of(spawn(command, sockets)?)
    }

    fn command(&self, log: &Path) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "this process reads no byte of a client, and nginx is its child so that it \
                      ends with it"
        )]
        let mut command = Command::new(&self.path);
        command.arg("-p").arg(&self.prefix).arg("-e").arg(log).stdin(Stdio::null());
        command
    }
}

/// The master process of nginx.
#[derive(Clone)]
pub struct Master {
    /// Its id.
    pub pid: Pid,
    end: watch::Receiver<Option<End>>,
}

/// How a process has ended.
#[derive(Debug, Clone)]
pub struct End {
    /// In the words of the system: `exit status: 1`.
    pub said: String,
    /// As the daemon says it.
    pub why: EndReason,
}

impl End {
    fn of(status: std::io::Result<ExitStatus>) -> Self {
        let Ok(status) = status else {
            return Self { said: "it is gone".into(), why: EndReason::UnknownAdopted };
        };
        let code = || EndReason::Exited { code: status.code().unwrap_or_default() };
        let why = status.signal().map_or_else(code, |signal| EndReason::Signalled { signal });
        Self { said: status.to_string(), why }
    }
}

impl Master {
    /// Looks after a child that has just been started.
    fn of(mut child: Child) -> std::io::Result<Self> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| std::io::Error::other("it has ended"))?;
        let (ended, end) = watch::channel(None);
        tokio::task::spawn_local(async move {
            ended.send_replace(Some(End::of(child.wait().await)));
        });
        Ok(Self { pid, end })
    }

    /// How it has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end.borrow().clone()
    }

    /// Waits for its end.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut end = self.end.clone();
        async move {
            // An error: the task that waits has ended, with this process.
            let _ = end.wait_for(Option::is_some).await;
        }
    }
}

/// Starts a process that inherits these sockets.
fn spawn(mut command: Command, sockets: &[&OwnedFd]) -> std::io::Result<Child> {
    let inherited = Inherited::new(&mut command, sockets);
    let child = command.spawn();
    drop(inherited);
    child
}

/// While it lives, a process that is started inherits these sockets, and is told so in nginx's
/// way: `NGINX=3;4;`. (No other process is started meanwhile: this one has one thread that does.)
struct Inherited<'a>(&'a [&'a OwnedFd]);

impl<'a> Inherited<'a> {
    fn new(command: &mut Command, sockets: &'a [&'a OwnedFd]) -> Self {
        let numbers: String =
            sockets.iter().map(|socket| format!("{};", socket.as_raw_fd())).collect();
        command.env("NGINX", numbers);
        set_flags(sockets, FdFlags::empty());
        Self(sockets)
    }
}

impl Drop for Inherited<'_> {
    fn drop(&mut self) {
        set_flags(self.0, FdFlags::CLOEXEC);
    }
}

fn set_flags(sockets: &[&OwnedFd], flags: FdFlags) {
    for socket in sockets {
        // A descriptor that is open has flags that can be set.
        let _ = rustix::io::fcntl_setfd(socket.as_fd(), flags);
    }
}

fn parse_build(text: &str, modules: Option<&Path>) -> Option<Build> {
    let version = text.lines().find_map(|line| line.strip_prefix("nginx version: "))?;
    let own = || {
        let (_, rest) = text.split_once("--modules-path=")?;
        Some(PathBuf::from(rest.split_whitespace().next()?))
    };
    let dir = modules.map(Path::to_owned).or_else(own);
    let found = MODULES.iter().filter_map(|name| Some(dir.as_ref()?.join(name)));
    let modules: Vec<PathBuf> = found.filter(|path| path.exists()).collect();
    let is_there = |name: &str| modules.iter().any(|path| path.ends_with(name));
    let copies = Copies {
        gzip: text.contains("http_gzip_static_module"),
        brotli: is_there(BROTLI_STATIC) || text.split(['\'', ' ']).any(adds_brotli),
    };
    Some(Build {
        version: version.trim().to_string(),
        has_lua: is_there(LUA),
        copies,
        modules,
        has_real_ip: text.contains("http_realip_module"),
        has_tls: text.contains("http_ssl_module") && number(version) >= TLS_SINCE,
    })
}

/// The numbers of `nginx/1.22.1`.
fn number(version: &str) -> [u32; 3] {
    let mut numbers = [0; 3];
    let text = version.split_once('/').map_or("", |(_, text)| text);
    for (place, part) in numbers.iter_mut().zip(text.split(['.', ' '])) {
        *place = part.parse().unwrap_or(0);
    }
    numbers
}

/// A process that is a child of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// A worker that has been told to end, and goes on with its requests.
    pub is_leaving: bool,
}

/// The processes of nginx that are children of this one, the oldest first.
pub fn children(parent: Pid) -> Vec<Process> {
    let parent = u32::try_from(parent.as_raw_nonzero().get()).unwrap_or_default();
    let all = mfserv_platform::proc::children(Path::new("/proc"), &[parent]);
    let ours = all.into_iter().filter(|one| one.state != 'Z');
    let started = |pid| mfserv_platform::proc::started_s(Path::new("/proc"), pid);
    let mut found: Vec<_> = ours.filter_map(|one| Some((started(one.pid)?, one))).collect();
    found.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.pid.cmp(&other.1.pid)));
    let process = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let is_leaving = line.contains("worker process is shutting down");
        line.starts_with("nginx: ").then_some(Process { pid, is_leaving })
    };
    found.into_iter().filter_map(|(_, one)| process(one.pid)).collect()
}

/// Sends a signal. A process that has ended needs none.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// True for an argument that compiles the module in which sends copies: the source of both modules
/// of brotli is one directory, `ngx_brotli`, with this one in `static`.
fn adds_brotli(argument: &str) -> bool {
    let source = argument.strip_prefix("--add-module=").map(Path::new);
    source.is_some_and(|source| {
        source.ends_with("ngx_brotli") || source.ends_with("ngx_brotli/static")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_says_its_version_and_where_its_modules_are() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "nginx version: nginx/1.22.1\nbuilt with OpenSSL\nconfigure arguments: \
             --with-http_realip_module --modules-path={} --x",
            dir.path().display()
        );
        let bare = parse_build(&text, None).unwrap();
        assert_eq!((&*bare.version, bare.has_lua, bare.has_real_ip), ("nginx/1.22.1", false, true));
        assert_eq!(bare.copies, Copies::default());
        std::fs::write(dir.path().join("ngx_http_lua_module.so"), "").unwrap();
        std::fs::write(dir.path().join("ndk_http_module.so"), "").unwrap();
        let with = parse_build(&text, None).unwrap();
        assert!(!with.has_tls);
        let newer = |version: &str| {
            let text = text.replace("1.22.1", version) + "--with-http_ssl_module";
            parse_build(&text, None).unwrap().has_tls
        };
        assert_eq!(["1.18.0", "1.19.4", "1.29.1 (Ubuntu)"].map(newer), [false, true, true]);
        assert!(with.has_lua && with.modules[0].ends_with("ndk_http_module.so"), "{with:?}");
        assert!(!parse_build(&text, Some(Path::new("/nowhere"))).unwrap().has_lua);
        let copies = |more: &str| parse_build(&format!("{text} {more}"), None).unwrap().copies;
        let of = |gzip, brotli| Copies { gzip, brotli };
        assert_eq!(copies("--with-http_gzip_static_module"), of(true, false));
        assert_eq!(copies("--add-module=/src/ngx_brotli --y"), of(false, true));
        assert_eq!(copies("--add-module=/src/ngx_brotli/static/"), of(false, true));
        assert_eq!(copies("--add-module=/src/ngx_brotli/filter"), of(false, false));
        assert_eq!(copies("--add-module=/build/nginx-brotli/headers-more"), of(false, false));
        assert_eq!(copies("--add-dynamic-module=/src/ngx_brotli"), of(false, false));
        std::fs::write(dir.path().join("ngx_http_brotli_static_module.so"), "").unwrap();
        assert_eq!(copies(""), of(false, true));
        assert_eq!(parse_build("sh: not found", None), None);
    }
}
