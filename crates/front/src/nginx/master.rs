//! nginx itself: checking and changing its configuration, starting it, and its end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::route::ServerSettings;
use mfserv_platform::disk;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::Instant;

use super::config::{Site, render};
use super::edge::{Edge, Wanted};
use super::inner::restrict;
use super::pieces::{self, PieceId};
use super::program::{Process, Program, children, signal};
use super::refusal::explained;
use super::tls::Certificates;
use crate::embedded::{CopiedCertificates, ErrorLog};

/// nginx reads its configuration anew at most once in so long; changes meanwhile are one.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);
/// nginx has so long to have a configuration that it has accepted.
const TAKE_PATIENCE: Duration = Duration::from_secs(4);
/// So often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);
/// At most so many sets of old workers go on with their requests; the oldest of more are ended.
const OLD_SETS_MAX: usize = 8;

/// nginx, as a child of this process.
pub struct Nginx {
    program: Program,
    pub(super) site: Site,
    /// The listening sockets of the node.
    listeners: Vec<OwnedFd>,
    own: RefCell<OwnedFd>,
    /// Where the configuration is.
    config: PathBuf,
    pub(super) certificates: Certificates,
    /// Certificates that nginx refuses.
    pub(super) refused_tls: Option<CopiedCertificates>,
    pub(super) errors: ErrorLog,
    /// The configuration in force, with its revision left out.
    in_force: RefCell<Option<String>>,
    /// What was written last.
    written: RefCell<String>,
    /// The settings in force, where no plugin has a fragment.
    pub(super) plain: Option<ServerSettings>,
    revision: Cell<u64>,
    last_reload: Cell<Option<Instant>>,
    /// Fragments that nginx refuses, with their text at that time.
    refused: RefCell<BTreeMap<PieceId, Refused>>,
    /// The process; `None` before the first table.
    pub child: Option<Child>,
}

#[derive(Debug, Clone)]
struct Refused {
    text: String,
    sentence: String,
}

impl Nginx {
    /// Nothing is started before the first table.
    pub fn new(
        (program, site): (Program, Site),
        listeners: Vec<OwnedFd>,
        (config, certificates): (PathBuf, Certificates),
        errors: ErrorLog,
    ) -> Result<Self, Diagnostic> {
        // nginx does so with those that it makes itself: else a worker sleeps in accept(2) when
        // another one has taken the client.
        for listener in &listeners {
            rustix::io::ioctl_fionbio(listener, true).map_err(|why| {
                Diagnostic::error("nginx cannot have the listening sockets").because(why)
            })?;
        }
        let own = RefCell::new(bind(&site.own_socket)?);
        Ok(Self {
            program,
            site,
            listeners,
            own,
            config,
            certificates,
            refused_tls: None,
            errors,
            in_force: RefCell::default(),
            written: RefCell::default(),
            plain: None,
            revision: Cell::default(),
            last_reload: Cell::default(),
            refused: RefCell::default(),
            child: None,
        })
    }

    /// The process id of the master.
    pub fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id()?;
        Pid::from_raw(i32::try_from(id).ok()?)
    }

    /// True if nginx obeys this table already: without fragments, only the settings matter.
    pub fn obeys(&self, wanted: &Wanted) -> bool {
        let settings = self.plain.as_ref().filter(|_| wanted.with_fragments.is_empty());
        self.child.is_some() && settings == Some(&wanted.server)
    }

    /// Has nginx obey a table. The error says why it obeys no table at all.
    pub async fn obey(&mut self, edge: &Edge, wanted: &Wanted) -> Result<(), Diagnostic> {
        self.look_at_certificates(&wanted.server).await;
        let present = pieces::of(&wanted.sections);
        let is_same = |id: &PieceId, refused: &Refused| {
            present.iter().any(|one| one.id == *id && one.fragment.text == refused.text)
        };
        self.refused.borrow_mut().retain(|id, refused| is_same(id, refused));
        let text = self.rendered(wanted, &self.left_out(), 0);
        if self.child.is_some() && self.in_force.borrow().as_ref() == Some(&text) {
            self.note_plain(wanted);
            edge.obeys(wanted.generation, self.sentences());
            return Ok(());
        }
        if let Err(why) = self.find_acceptable(wanted).await {
            if self.child.is_none() {
                return match self.gives_up_tls(&why) {
                    true => Box::pin(self.obey(edge, wanted)).await,
                    false => Err(why),
                };
            }
            // What is in force goes on.
            self.errors.report(&format!("nginx keeps its configuration: {why}"));
            let kept = format!("nginx keeps an older configuration: {}", one_line(&why));
            edge.obeys(wanted.generation, [kept]);
            return Ok(());
        }
        self.take(wanted).await?;
        self.note_plain(wanted);
        edge.obeys(wanted.generation, self.sentences());
        Ok(())
    }

    /// Starts nginx again with the configuration in force, after it has died.
    pub async fn revive(&mut self, orphans: &[Process]) -> Result<(), Diagnostic> {
        self.start()?;
        if !self.has_taken(&BTreeSet::new()).await {
            self.errors.report("nginx does not answer yet after it was started again");
        }
        // They have served meanwhile, and go on with what they have.
        for orphan in orphans {
            signal(orphan.pid, Signal::QUIT);
        }
        Ok(())
    }

    fn note_plain(&mut self, wanted: &Wanted) {
        let is_plain = wanted.with_fragments.is_empty();
        self.plain = is_plain.then(|| wanted.server.clone());
    }

    /// What an operator should know of: the fragments that are left out.
    fn sentences(&self) -> Vec<String> {
        let fragments = self.refused.borrow();
        let fragments = fragments.values().map(|one| one.sentence.clone());
        fragments.chain(self.without_tls().map(String::from)).collect()
    }

    fn left_out(&self) -> BTreeSet<PieceId> {
        self.refused.borrow().keys().cloned().collect()
    }

    fn rendered(&self, wanted: &Wanted, left_out: &BTreeSet<PieceId>, revision: u64) -> String {
        render(&self.site, &wanted.server, &wanted.sections, left_out, revision).into_text()
    }

    /// Leaves out fragments until nginx accepts the configuration.
    async fn find_acceptable(&self, wanted: &Wanted) -> Result<(), Diagnostic> {
        loop {
            let Err(why) = self.check(wanted, &self.left_out()).await else { return Ok(()) };
            let refusal = || Diagnostic::error("nginx refuses its configuration").because(&why);
            let Some((id, why)) = self.culprit(wanted, why.clone()).await else {
                return Err(refusal());
            };
            let all = pieces::of(&wanted.sections);
            let Some(piece) = all.iter().find(|piece| piece.id == id) else {
                return Err(refusal());
            };
            let sentence = format!("plugin {}: {piece} is left out: {why}", id.plugin);
            self.errors.report(&sentence);
            let text = piece.fragment.text.clone();
            self.refused.borrow_mut().insert(id, Refused { text, sentence });
        }
    }

    /// The first fragment with which the configuration is refused, and why it is.
    async fn culprit(&self, wanted: &Wanted, why: String) -> Option<(PieceId, String)> {
        let left_out = self.left_out();
        let all = pieces::of(&wanted.sections);
        let kept: Vec<&PieceId> =
            all.iter().map(|piece| &piece.id).filter(|id| !left_out.contains(id)).collect();
        let without = |from: usize| {
            let later = kept[from..].iter().map(|id| (*id).clone());
            left_out.iter().cloned().chain(later).collect::<BTreeSet<_>>()
        };
        // Accepted with the first `good` of them, refused with the first `bad`.
        let (mut good, mut bad, mut why) = (0, kept.len(), why);
        if bad > 0 {
            self.check(wanted, &without(0)).await.err().map_or(Some(()), |_| None)?;
        }
        while good + 1 < bad {
            let middle = good.midpoint(bad);
            match self.check(wanted, &without(middle)).await {
                Ok(()) => good = middle,
                Err(new) => (bad, why) = (middle, new),
            }
        }
        kept.get(good).map(|id| ((*id).clone(), why))
    }

    /// Has nginx check a configuration on a copy. The error is for people.
    async fn check(&self, wanted: &Wanted, left_out: &BTreeSet<PieceId>) -> Result<(), String> {
        let text = render(&self.site, &wanted.server, &wanted.sections, left_out, 0);
        let copy = self.config.with_extension("conf.check");
        let written = disk::replace(&copy, 0o600, text.text().as_bytes());
        written.map_err(|why| format!("{} cannot be written: {why}", copy.display()))?;
        let own = self.own.borrow().try_clone().map_err(|why| why.to_string())?;
        let outcome = self.program.check(&copy, &self.sockets(&own)).await;
        let _ = disk::remove(&copy);
        outcome.map_err(|said| explained(&said, &copy, &text))
    }

    fn sockets<'a>(&'a self, own: &'a OwnedFd) -> Vec<&'a OwnedFd> {
        self.listeners.iter().chain([own]).collect()
    }

    /// Has nginx take a configuration that it has accepted.
    async fn take(&mut self, wanted: &Wanted) -> Result<(), Diagnostic> {
        if let Some(last) = self.last_reload.get() {
            tokio::time::sleep_until(last + RELOAD_PAUSE).await;
        }
        self.last_reload.set(Some(Instant::now()));
        let revision = self.revision.get() + 1;
        self.revision.set(revision);
        let text = self.rendered(wanted, &self.left_out(), revision);
        self.write(&text)?;
        *self.written.borrow_mut() = text;
        let mut old = BTreeSet::new();
        match self.pid().filter(|_| self.child.is_some()) {
            Some(master) => {
                old = children(master).into_iter().map(|one| one.pid.as_raw_nonzero()).collect();
                self.end_oldest(master);
                signal(master, Signal::HUP);
            }
            None => self.start()?,
        }
        if !self.has_taken(&old).await {
            let died = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = died {
                self.child = None;
                return Err(Diagnostic::error("nginx does not run").because(status));
            }
            self.errors.report("nginx has not taken its configuration within 4 s");
        }
        *self.in_force.borrow_mut() = Some(self.rendered(wanted, &self.left_out(), 0));
        Ok(())
    }

    fn write(&self, text: &str) -> Result<(), Diagnostic> {
        disk::replace(&self.config, 0o600, text.as_bytes())
            .map_err(|why| disk::failed("write", &self.config, why))
    }

    fn start(&mut self) -> Result<(), Diagnostic> {
        // A cleaner of old files may have been there.
        disk::create_dir(&self.program.prefix)?;
        self.write(&self.written.borrow())?;
        // nginx removes it when it ends.
        if disk::is_gone(&self.site.own_socket) {
            self.own.replace(bind(&self.site.own_socket)?);
        }
        let own = self.own.borrow();
        let started = self.program.start(&self.config, &self.sockets(&own));
        let cannot = |why| {
            Diagnostic::error(format!("{} cannot be started", self.program.path.display()))
                .because(why)
        };
        let child = started.map_err(cannot)?;
        drop(own);
        self.child = Some(child);
        Ok(())
    }

    /// Waits until new workers answer with the last revision, and the old ones accept nobody.
    async fn has_taken(&mut self, old: &BTreeSet<std::num::NonZeroI32>) -> bool {
        let end = Instant::now() + TAKE_PATIENCE;
        while Instant::now() < end {
            let ended =
                self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                return false;
            }
            let left = self.pid().map(children).unwrap_or_default();
            let accepts =
                |one: &Process| old.contains(&one.pid.as_raw_nonzero()) && !one.is_leaving;
            if self.says_revision().await && !left.iter().any(accepts) {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    async fn says_revision(&self) -> bool {
        let wanted = format!("\r\n\r\n{}", self.revision.get());
        let ask = async {
            let mut stream = UnixStream::connect(&self.site.own_socket).await.ok()?;
            stream.write_all(b"GET /revision HTTP/1.0\r\n\r\n").await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer.ends_with(&wanted))
        };
        tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten().unwrap_or(false)
    }

    /// Ends the oldest of the workers that are leaving, where there are too many of them.
    fn end_oldest(&self, master: Pid) {
        let leaving: Vec<Process> =
            children(master).into_iter().filter(|one| one.is_leaving).collect();
        let most = OLD_SETS_MAX * self.site.workers as usize;
        for old in leaving.iter().take(leaving.len().saturating_sub(most)) {
            signal(old.pid, Signal::TERM);
        }
    }

    /// nginx writes into the files of these names from now on.
    pub fn reopen_logs(&self) {
        if let Some(master) = self.pid() {
            signal(master, Signal::USR1);
        }
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
