//! The real rsyslog and the real journald, each in a directory of its own.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mfserv_testkit::{servers, skipped, until};
use serde_json::Value;

use crate::PATIENCE;

/// A message as rsyslog has understood it.
pub struct Message {
    pub priority: String,
    pub app: String,
    /// Structured data.
    pub data: String,
    pub text: String,
}

/// rsyslog, unpacked below the target directory.
pub struct Rsyslog {
    program: PathBuf,
    libraries: String,
    dir: PathBuf,
    tcp: u16,
    udp: u16,
    child: Option<Child>,
}

const CONFIG: &str = r#"
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
template(name="fields" type="string" string="%pri%|%app-name%|%structured-data%|%msg%\n")
input(type="imudp" address="127.0.0.1" port="UDP")
input(type="imtcp" address="127.0.0.1" port="TCP")
input(type="imuxsock" Socket="DIR/log" RateLimit.Interval="0")
*.* action(type="omfile" file="DIR/messages" template="fields")
"#;

impl Rsyslog {
    /// Not started yet; `None`, with the reason, where it is not to be had.
    pub fn new(dir: &Path) -> Option<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = servers::of_debian(target, "rsyslog", "usr/sbin/rsyslogd")?;
        let mut below = vec![program.ancestors().nth(3)?.join("usr/lib")];
        for package in ["libestr0", "libfastjson4"] {
            below.push(servers::of_debian(target, package, "usr/lib")?);
        }
        // Below it there is one directory for the kind of machine.
        let of_machine = |dir: &PathBuf| fs::read_dir(dir).unwrap().flatten().map(|it| it.path());
        let libraries: Vec<String> =
            below.iter().flat_map(of_machine).map(|it| it.to_string_lossy().into()).collect();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = CONFIG.replace("UDP", &udp.to_string()).replace("TCP", &tcp.to_string());
        let config = config.replace("DIR", &dir.to_string_lossy());
        fs::write(dir.join("rsyslog.conf"), config).unwrap();
        let libraries = libraries.join(":");
        Some(Self { program, libraries, dir: dir.into(), tcp, udp, child: None })
    }

    pub fn tcp(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.tcp)
    }

    pub fn udp(&self) -> String {
        format!("udp://127.0.0.1:{}", self.udp)
    }

    pub fn unix(&self) -> String {
        format!("unix://{}/log", self.dir.display())
    }

    pub fn start(&mut self) {
        let modules = self.libraries.split(':').map(|dir| format!("{dir}/rsyslog"));
        let modules = modules.into_iter().find(|dir| Path::new(dir).is_dir()).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["-n", "-M", &modules]).arg("-f").arg(self.dir.join("rsyslog.conf"));
        command.arg("-i").arg(self.dir.join("pid")).env("LD_LIBRARY_PATH", &self.libraries);
        command.stdout(Stdio::null()).stderr(fs::File::create(self.dir.join("errors")).unwrap());
        // A killed one leaves its socket.
        let _ = fs::remove_file(self.dir.join("log"));
        self.child = Some(command.spawn().unwrap());
        until("rsyslog listens", PATIENCE, || self.dir.join("log").exists());
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn messages(&self) -> Vec<Message> {
        let text = fs::read(self.dir.join("messages")).unwrap_or_default();
        let message = |line: &str| {
            let mut fields = line.splitn(4, '|').map(str::to_owned);
            let mut next = || fields.next();
            Some(Message {
                priority: next()?,
                app: next()?,
                data: next()?,
                // That of RFC 3164 begins with the blank behind its tag.
                text: next()?.trim_start().to_owned(),
            })
        };
        String::from_utf8_lossy(&text).lines().filter_map(message).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

/// journald of this machine's systemd, with a `/run` of its own.
pub struct Journald {
    child: Child,
}

const JOURNALD: &str = "/lib/systemd/systemd-journald";
/// journald refuses lines of a service beyond 10,000 in 30 s, unless it is told otherwise.
const START: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journald.conf.d \
    /run/log/journal && printf '[Journal]\\nRateLimitIntervalSec=0\\n' \
    > /run/systemd/journald.conf.d/test.conf && exec /lib/systemd/systemd-journald";

impl Journald {
    /// `None`, with the reason, where it cannot be started.
    pub fn start(dir: &Path) -> Option<Self> {
        if !Path::new(JOURNALD).exists() {
            skipped(&format!("what needs journald: there is no {JOURNALD}"));
            return None;
        }
        let errors = dir.join("journald.errors");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", START]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&errors).unwrap());
        let child = command.spawn().map_err(|why| skipped(&format!("what needs journald: {why}")));
        let mut journald = Self { child: child.ok()? };
        let mut has_ended = false;
        until("journald listens, or cannot be started", PATIENCE, || {
            has_ended = journald.child.try_wait().unwrap().is_some();
            has_ended || Path::new(&journald.socket()).exists()
        });
        if has_ended {
            let why = fs::read_to_string(&errors).unwrap_or_default();
            skipped(&format!("what needs journald: it does not start: {}", why.trim()));
            return None;
        }
        Some(journald)
    }

    /// Its files, seen from outside.
    fn root(&self) -> String {
        format!("/proc/{}/root/run", self.child.id())
    }

    pub fn socket(&self) -> String {
        format!("{}/systemd/journal/socket", self.root())
    }

    pub fn suspend(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// The entries that match, as `journalctl` reads them.
    pub fn entries(&self, matching: &str) -> Vec<Value> {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["-D", &format!("{}/log/journal", self.root()), "--quiet", "--all"]);
        let output = journalctl.args(["--output", "json", matching]).output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            // It may be read while it is written.
            let _ = std::io::stderr().write_all(&output.stderr);
        }
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.resume();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
