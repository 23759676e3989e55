//! nginx itself: having it take a configuration, and starting it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroI32;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::EndReason;
use mfserv_core::route::ServerSettings;
use mfserv_platform::disk;
use rustix::process::Signal;
use tokio::time::Instant;

use super::again::Again;
use super::config::{Site, with_revision};
use super::inner::restrict;
use super::others;
use super::pieces::PieceId;
use super::program::{Master, Process, Program, children, signal};
use super::refusal::{Refusal, Stage};
use super::said::Said;
use super::search::Refused;
use super::text::Text;
use super::tls::Certificates;
use super::vitals::Vitals;
use crate::embedded::{CopiedCertificates, ErrorLog};

/// nginx reads its configuration anew at most once in so long; changes meanwhile are one.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);
/// nginx has so long to have a configuration that `nginx -t` has accepted. It is longer than that
/// has: a name that is slow to resolve takes as long again.
const TAKE_PATIENCE: Duration = Duration::from_secs(10);
/// When nginx has said that it refuses a configuration, it has so long to show that it has it.
const REFUSED_PATIENCE: Duration = Duration::from_millis(200);
/// So often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// nginx, as a child of this process.
pub struct Nginx {
    pub(super) program: Program,
    pub(super) site: Site,
    /// The listening sockets of the node.
    listeners: Vec<OwnedFd>,
    own: OwnedFd,
    /// Where the configuration is.
    pub(super) config: PathBuf,
    /// Where people find it when nginx has taken it.
    shown: PathBuf,
    pub(super) certificates: Certificates,
    /// Certificates that nginx refuses.
    pub(super) refused_tls: Option<CopiedCertificates>,
    pub(super) errors: ErrorLog,
    /// What nginx has taken last.
    pub(super) in_force: Option<Taken>,
    /// The settings in force, where no plugin has a fragment.
    pub(super) plain: Option<ServerSettings>,
    revision: u64,
    last_reload: Option<Instant>,
    /// Fragments that nginx refuses.
    pub(super) refused: BTreeMap<PieceId, Refused>,
    /// The fragments of the last table, those that are refused too.
    pub(super) offered: BTreeMap<PieceId, String>,
    /// Something is in force.
    pub serves: Rc<Cell<bool>>,
    /// It obeys an older table, since it refuses the last one.
    pub(super) is_behind: bool,
    pub(super) again: Again,
    /// The process; `None` before the first table.
    pub(super) master: Option<Master>,
    /// Workers whose master has died.
    pub(super) orphans: Vec<Process>,
    /// Whether it goes on.
    pub vitals: Rc<Vitals>,
}

/// A configuration that nginx has taken.
pub struct Taken {
    /// Its text, without its revision.
    pub text: String,
    /// The fragments in it.
    pub fragments: BTreeMap<PieceId, String>,
    revision: u64,
}

impl Taken {
    /// What is taken for being in force where no nginx runs.
    pub fn assumed(fragments: BTreeMap<PieceId, String>) -> Self {
        Self { text: String::new(), fragments, revision: 0 }
    }
}

/// That nginx has not taken a configuration.
struct NotTaken {
    why: String,
    /// The one of before is still in force.
    is_kept: bool,
    /// nginx has said nothing in time.
    is_late: bool,
}

impl NotTaken {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_kept: false, is_late: false }
    }
}

impl Nginx {
    /// Nothing is started before the first table.
    pub fn new(
        (program, site): (Program, Site),
        listeners: Vec<OwnedFd>,
        (config, shown, certificates): (PathBuf, PathBuf, Certificates),
        errors: ErrorLog,
    ) -> Result<Self, Diagnostic> {
        // nginx does so with those that it makes itself: else a worker sleeps in accept(2) when
        // another one has taken the client.
        for listener in &listeners {
            rustix::io::ioctl_fionbio(listener, true).map_err(|why| {
                Diagnostic::error("nginx cannot have the listening sockets").because(why)
            })?;
        }
        let own = bind(&site.own_socket)?;
        Ok(Self {
            program,
            site,
            listeners,
            own,
            config,
            shown,
            certificates,
            refused_tls: None,
            errors,
            in_force: None,
            serves: Rc::default(),
            plain: None,
            revision: 0,
            last_reload: None,
            refused: BTreeMap::new(),
            offered: BTreeMap::new(),
            is_behind: false,
            again: Again::default(),
            master: None,
            orphans: Vec::new(),
            vitals: Rc::default(),
        })
    }

    /// Waits for the end of the master; for ever, if there is none.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let ended = self.master.as_ref().map(Master::ended);
        async {
            match ended {
                Some(ended) => ended.await,
                None => std::future::pending().await,
            }
        }
    }

    /// What a process of nginx inherits.
    pub(super) fn sockets(&self) -> Vec<&OwnedFd> {
        self.listeners.iter().chain([&self.own]).collect()
    }

    /// Has nginx take a configuration that `nginx -t` has accepted. If it does not, what was in
    /// force before is in force again.
    pub(super) async fn take(
        &mut self,
        text: &Text,
        fragments: BTreeMap<PieceId, String>,
    ) -> Result<(), Refusal> {
        let is_in_force = self.in_force.as_ref().is_some_and(|taken| taken.text == text.text());
        if is_in_force && self.master.is_some() {
            return Ok(());
        }
        if let Some(last) = self.last_reload {
            tokio::time::sleep_until(last + RELOAD_PAUSE).await;
        }
        if let Err(not_taken) = self.try_to_take(text.text()).await {
            let mut refusal = Refusal::new(Stage::Take, &not_taken.why, &self.config, text);
            refusal.is_slow = not_taken.is_late;
            self.restore(not_taken.is_kept).await;
            return Err(refusal);
        }
        let (text, revision) = (text.text().to_string(), self.revision);
        if let Err(why) =
            disk::replace(&self.shown, 0o600, with_revision(&text, revision).as_bytes())
        {
            self.errors.report(&format!("{} cannot be written: {why}", self.shown.display()));
        }
        self.in_force = Some(Taken { text, fragments, revision });
        self.serves.set(true);
        Ok(())
    }

    /// Starts nginx again with the configuration in force. False if that is not possible: then
    /// nothing is in force.
    pub async fn restart(&mut self) -> bool {
        self.note_end();
        let Some(text) = self.in_force.as_ref().map(|taken| taken.text.clone()) else {
            return false;
        };
        match self.try_to_take(&text).await {
            Ok(()) => true,
            Err(not_taken) => {
                self.errors.report(&format!("nginx cannot be started again: {}", not_taken.why));
                self.kill().await;
                self.in_force = None;
                self.serves.set(false);
                false
            }
        }
    }

    /// Has what was in force before be in force again.
    async fn restore(&mut self, is_kept: bool) {
        let Some(taken) = self.in_force.as_ref() else { return self.kill().await };
        let text = taken.text.clone();
        if is_kept {
            // nginx was told to read another one, and has refused it.
            self.revision = taken.revision;
            let _ = self.write(&with_revision(&text, self.revision));
            if self.says_revision().await {
                return;
            }
        }
        if self.master.is_some() && self.try_to_take(&text).await.is_ok() {
            return;
        }
        self.kill().await;
        self.restart().await;
    }

    async fn kill(&mut self) {
        if let Some(master) = self.master.take() {
            signal(master.pid, Signal::KILL);
            master.ended().await;
        }
    }

    async fn try_to_take(&mut self, text: &str) -> Result<(), NotTaken> {
        let cannot = |why: Diagnostic| NotTaken::because(one_line(&why));
        self.last_reload = Some(Instant::now());
        self.revision += 1;
        self.write(&with_revision(text, self.revision)).map_err(cannot)?;
        let mut said = Said::from_now(&self.site.log_dir.join("nginx_error.log"));
        match &self.master {
            Some(master) => {
                let master = master.pid;
                let old: BTreeSet<_> =
                    children(master).into_iter().map(|one| one.pid.as_raw_nonzero()).collect();
                self.end_oldest(master);
                signal(master, Signal::HUP);
                self.has_taken(&old, &mut said).await
            }
            None => {
                self.orphans = children(rustix::process::getpid());
                self.start().map_err(cannot)?;
                self.has_taken(&BTreeSet::new(), &mut said).await?;
                // They have served meanwhile, and go on with what they have.
                self.orphans.iter().for_each(|orphan| signal(orphan.pid, Signal::QUIT));
                Ok(())
            }
        }
    }

    fn write(&self, text: &str) -> Result<(), Diagnostic> {
        // A cleaner of old files may have been there.
        disk::create_dir(&self.program.prefix)?;
        disk::replace(&self.config, 0o600, text.as_bytes())
            .map_err(|why| disk::failed("write", &self.config, why))
    }

    fn start(&mut self) -> Result<(), Diagnostic> {
        // nginx removes it when it ends.
        if disk::is_gone(&self.site.own_socket) {
            self.own = bind(&self.site.own_socket)?;
        }
        let log = self.site.log_dir.join("nginx_error.log");
        let started = self.program.start(&self.config, &self.sockets(), &log);
        let cannot = |why| {
            Diagnostic::error(format!("{} cannot be started", self.program.path.display()))
                .because(why)
        };
        let master = started.map_err(cannot)?;
        self.vitals.watch(&master);
        self.master = Some(master);
        Ok(())
    }

    /// Waits until new workers answer with the last revision, and the old ones accept nobody.
    async fn has_taken(
        &mut self,
        old: &BTreeSet<NonZeroI32>,
        said: &mut Said,
    ) -> Result<(), NotTaken> {
        let (mut end, mut why) = (Instant::now() + TAKE_PATIENCE, None);
        while let Some(master) = &self.master {
            let pid = master.pid;
            if let Some(end) = master.end() {
                match end.why {
                    EndReason::Signalled { .. } => self.note_end(),
                    // It refuses the configuration.
                    _ => self.master = None,
                }
                let why = why.or_else(|| said.refusal(pid));
                let why = why.unwrap_or_else(|| format!("it has ended: {}", end.said));
                return Err(NotTaken::because(why));
            }
            let accepts =
                |one: &Process| old.contains(&one.pid.as_raw_nonzero()) && !one.is_leaving;
            let answers = self.says_revision().await;
            if answers && !children(pid).iter().any(accepts) {
                return Ok(());
            }
            if why.is_none() {
                why = said.refusal(pid);
                if why.is_some() {
                    end = Instant::now() + REFUSED_PATIENCE;
                }
            }
            if Instant::now() >= end && answers {
                self.errors.report("workers of nginx do not end: they accept clients as before");
                return Ok(());
            }
            if Instant::now() >= end {
                let (is_late, is_kept) = (why.is_none(), why.is_some() && !old.is_empty());
                let late = || format!("it does not answer within {} s", TAKE_PATIENCE.as_secs());
                return Err(NotTaken { why: why.unwrap_or_else(late), is_kept, is_late });
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(NotTaken::because("it does not run"))
    }

    async fn says_revision(&self) -> bool {
        others::revision(&self.site.own_socket).await == Some(self.revision)
    }
}

/// Makes the socket on which nginx answers this process.
fn bind(path: &Path) -> Result<OwnedFd, Diagnostic> {
    let cannot =
        |why| Diagnostic::error(format!("nginx cannot listen on {}", path.display())).because(why);
    disk::remove(path)?;
    let listener = UnixListener::bind(path).map_err(cannot)?;
    restrict(path).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let socket = listener.as_fd().try_clone_to_owned().map_err(cannot)?;
    Ok(socket)
}

fn one_line(problem: &Diagnostic) -> String {
    problem.because.first().unwrap_or(&problem.what).clone()
}
