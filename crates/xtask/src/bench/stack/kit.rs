//! The servers of others: fetched and built once, below the target directory. What cannot be had
//! is said, and left out of the table.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mfserv_core::Diagnostic;
use rustix::fs::{FlockOperation, flock};

use super::row::{Kind, Row};
use crate::bench::nginx::Setup;
use crate::{child, interrupt, node};

/// How long an installation may take; bjoern is compiled.
const INSTALLATION: Duration = Duration::from_secs(600);
const NGINX: &[&str] = &["nginx", "libpcre2-8-0"];
const LUA: &[&str] = &[
    "libnginx-mod-http-lua",
    "libnginx-mod-http-ndk",
    "lua-resty-core",
    "lua-resty-lrucache",
    "libluajit2-5.1-2",
    "libluajit2-5.1-common",
    "libpcre3",
];
const LIBEV: &[&str] = &["libev4", "libev-dev"];
const PM2: &str = "pm2@7.0.4";
/// As the template `node` of mfserv has it.
const EXPRESS: &str = "express@^4.16.4";

/// What is there.
#[derive(Debug)]
pub struct Kit {
    dir: PathBuf,
    /// nginx, without modules.
    pub nginx: Setup,
    /// nginx with Lua, if it can be had.
    pub lua: Option<Setup>,
    /// What cannot be had: what, and why.
    pub missing: Vec<(String, String)>,
}

impl Kit {
    /// Fetches what these rows need, with the network; what is there already stays.
    pub fn install(rows: &[Row]) -> Result<Self, Diagnostic> {
        let dir = node::target()?.join("bench-peers");
        fs::create_dir_all(&dir).map_err(unwritable)?;
        let lock = File::create(dir.join("lock")).map_err(unwritable)?;
        interrupt::until("another bench has fetched its peers", INSTALLATION, || {
            flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()
        })?;
        let mut kit = Self { dir, nginx: Setup::default(), lua: None, missing: Vec::new() };
        let wants = |kind: Kind| rows.iter().any(|row| row.kind() == kind);
        kit.install_nginx(wants(Kind::Wsgi))?;
        if wants(Kind::Wsgi) || wants(Kind::Asgi) {
            kit.install_python(rows)?;
        }
        if wants(Kind::Wsgi) {
            kit.install_bjoern()?;
            kit.optional("uWSGI", |kit| kit.pip("uwsgi", &["pyuwsgi==2.0.30.post1"]))?;
        }
        if wants(Kind::Asgi) {
            kit.optional("granian", |kit| kit.pip("granian", &["granian==2.8.9"]))?;
        }
        if wants(Kind::Node) {
            kit.optional("PM2", |kit| kit.npm("pm2", PM2))?;
            kit.optional("Express", |kit| kit.npm("express", EXPRESS))?;
        }
        Ok(kit)
    }

    /// A program of the Python environment.
    pub fn python(&self, program: &str) -> PathBuf {
        self.dir.join("python/bin").join(program)
    }

    /// PM2.
    pub fn pm2(&self) -> PathBuf {
        self.dir.join("pm2/node_modules/.bin/pm2")
    }

    /// Where Node finds the packages of apps.
    pub fn node_modules(&self) -> PathBuf {
        self.dir.join("express/node_modules")
    }

    /// True if something cannot be had here.
    pub fn is_missing(&self, name: &str) -> bool {
        self.missing.iter().any(|(missing, _)| missing == name)
    }

    /// Where the dynamic linker finds what bjoern needs.
    pub fn libraries(&self) -> OsString {
        libraries(&self.dir.join("libev"))
    }

    fn install_nginx(&mut self, with_lua: bool) -> Result<(), Diagnostic> {
        self.optional("nginx of Debian", |kit| kit.debian("nginx", NGINX))?;
        let root = self.dir.join("nginx");
        if self.is_missing("nginx of Debian") {
            // Then that of the machine is taken, if there is one.
            return Ok(());
        }
        let program = Some(root.join("usr/sbin/nginx"));
        self.nginx = Setup { program, libraries: libraries(&root), ..Setup::default() };
        if with_lua {
            self.optional("Lua in nginx", |kit| kit.debian("lua", LUA))?;
        }
        let lua = self.dir.join("lua");
        if with_lua && !self.is_missing("Lua in nginx") {
            let mut both = libraries(&lua);
            both.push(":");
            both.push(&self.nginx.libraries);
            let module = |name: &str| {
                format!("load_module {}/usr/lib/nginx/modules/{name}.so;\n", lua.display())
            };
            let path = lua.join("usr/share/lua/5.1/?.lua");
            self.lua = Some(Setup {
                libraries: both,
                main: module("ndk_http_module") + &module("ngx_http_lua_module"),
                http: format!("lua_package_path '{};;';\n", path.display()),
                ..self.nginx.clone()
            });
        }
        Ok(())
    }

    fn install_python(&self, rows: &[Row]) -> Result<(), Diagnostic> {
        let mut packages: Vec<&str> = rows.iter().flat_map(|row| row.packages()).copied().collect();
        packages.push("gunicorn==27.0.1");
        packages.sort_unstable();
        packages.dedup();
        let venv = self.dir.join("python");
        if !venv.join("bin/pip").exists() {
            let mut command = Command::new("python3");
            child::run(command.args(["-m", "venv"]).arg(venv), INSTALLATION)?;
        }
        self.pip("packages", &packages)
    }

    /// It is compiled, and needs libev for it.
    fn install_bjoern(&mut self) -> Result<(), Diagnostic> {
        self.optional("libev of Debian", |kit| kit.debian("libev", LIBEV))?;
        self.optional("bjoern", |kit| kit.pip("bjoern", &["bjoern==3.2.2"]))
    }

    fn npm(&self, name: &str, package: &str) -> Result<(), Diagnostic> {
        self.once(name, package, |kit| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(kit.dir.join(name));
            child::run(npm.arg(package), INSTALLATION).map(drop)
        })
    }

    /// Installs what the bench can do without: what fails is noted.
    fn optional(
        &mut self,
        name: &str,
        install: impl FnOnce(&Self) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        if let Err(why) = install(self) {
            interrupt::check()?;
            eprintln!("CANNOT BE HAD HERE: {name}\n{why}");
            self.missing.push((name.into(), why.to_string()));
        }
        Ok(())
    }

    fn pip(&self, mark: &str, packages: &[&str]) -> Result<(), Diagnostic> {
        self.once(&format!("python-{mark}"), &packages.join(" "), |kit| {
            let libev = kit.dir.join("libev");
            // The script `pip` names the place where the environment was made, not where it is.
            let mut pip = Command::new(kit.python("python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(packages);
            let usr = libev.join("usr");
            pip.env("CFLAGS", format!("-I{}", usr.join("include").display()));
            pip.env("LDFLAGS", format!("-L{}", usr.join("lib").join(triple()).display()));
            child::run(&mut pip, INSTALLATION).map(drop)
        })
    }

    /// Unpacks packages of Debian; nothing is installed into the machine.
    fn debian(&self, name: &str, packages: &[&str]) -> Result<(), Diagnostic> {
        self.once(name, &packages.join(" "), |kit| {
            let dir = kit.dir.join(name);
            fs::create_dir_all(&dir).map_err(unwritable)?;
            let download = || {
                let mut apt = Command::new("apt-get");
                apt.args(["-q", "download"]).args(packages).current_dir(&dir);
                child::run(&mut apt, INSTALLATION)
            };
            if download().is_err() {
                child::run(Command::new("apt-get").args(["-q", "update"]), INSTALLATION)?;
                download()?;
            }
            for entry in fs::read_dir(&dir).map_err(unwritable)?.flatten() {
                let archive = entry.path();
                if archive.extension().is_some_and(|extension| extension == "deb") {
                    let mut dpkg = Command::new("dpkg");
                    child::run(dpkg.arg("-x").args([&archive, &dir]), INSTALLATION)?;
                    fs::remove_file(&archive).map_err(unwritable)?;
                }
            }
            Ok(())
        })
    }

    /// Installs something unless it is there; `key` says what exactly it is.
    fn once(
        &self,
        name: &str,
        key: &str,
        install: impl FnOnce(&Self) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        let mark = self.dir.join(format!("{name}.installed"));
        if fs::read_to_string(&mark).is_ok_and(|installed| installed == key) {
            return Ok(());
        }
        eprintln!("fetching {key}");
        install(self)?;
        fs::write(&mark, key).map_err(unwritable)
    }
}

/// The directories of libraries in an unpacked package.
fn libraries(root: &Path) -> OsString {
    let dirs = ["usr/lib", "lib"].map(|lib| root.join(lib).join(triple()));
    let mut path = OsString::from(&dirs[0]);
    path.push(":");
    path.push(&dirs[1]);
    path
}

/// Debian's name for this kind of machine.
fn triple() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

fn unwritable(why: std::io::Error) -> Diagnostic {
    Diagnostic::error("cannot write the peers of the bench").because(why)
}
