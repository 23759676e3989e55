//! TLS of nginx: the copies of certificates that it is given, and looking after them.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_core::route::ServerSettings;
use mfserv_core::tls::TlsSettings;
use tokio::time::Instant;

use super::edge::Edge;
use super::master::Nginx;
use crate::embedded::certificates::rest_after;
use crate::embedded::{CopiedCertificates, CopiedCertificatesDir};

/// What the names of the directories begin with; the id of the process follows.
const PREFIX: &str = "nginx_tls.";

/// The certificates that nginx is given.
pub struct Certificates {
    dir: PathBuf,
    /// `None` before they are needed, and while a thread reads files.
    copies: Option<CopiedCertificatesDir>,
    next: Instant,
}

impl Certificates {
    /// With a directory of this process, below `run_dir`. Those of processes that were killed are
    /// removed.
    pub fn new(run_dir: &Path) -> Self {
        let names = fs::read_dir(run_dir).into_iter().flatten().flatten();
        for entry in names {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let dir = run_dir.join(format!("{PREFIX}{}", std::process::id()));
        Self { dir, copies: None, next: Instant::now() }
    }

    /// What nginx is to have, by what the files say now. The error says why there is no place for
    /// copies.
    pub async fn look(&mut self, settings: &TlsSettings) -> Result<CopiedCertificates, String> {
        let mut copies = match self.copies.take() {
            Some(copies) => copies,
            None => CopiedCertificatesDir::new(self.dir.clone())?,
        };
        let (settings, began) = (settings.clone(), Instant::now());
        // A slow disk must not keep the messages of the daemon waiting.
        let read = tokio::task::spawn_blocking(move || {
            let copied = copies.refresh(&settings);
            (copies, copied)
        });
        let (copies, copied) = read.await.map_err(|why| why.to_string())?;
        self.copies = Some(copies);
        self.next = Instant::now() + rest_after(began.elapsed());
        Ok(copied)
    }

    /// True if the files are to be looked at again.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Nginx {
    /// Looks whether files of certificates have changed, from time to time. The error says why
    /// nginx obeys no configuration at all.
    pub async fn renew_certificates(&mut self, edge: &Edge) -> Result<(), Diagnostic> {
        let listens = !self.site.listen_tls.is_empty() && self.master.is_some();
        if !listens || !self.certificates.is_due() {
            return Ok(());
        }
        let server = edge.wanted().borrow().server.clone();
        let before = self.site.copied.clone();
        self.look_at_certificates(&server).await;
        if self.site.copied == before {
            return Ok(());
        }
        let wanted = edge.wanted().borrow().clone();
        self.obey(edge, &wanted).await
    }

    /// Takes note of what the files of certificates say.
    pub(super) async fn look_at_certificates(&mut self, server: &ServerSettings) {
        let listens = !self.site.listen_tls.is_empty();
        let Some(settings) = server.tls.as_ref().filter(|_| listens) else {
            self.site.copied = CopiedCertificates::default();
            return;
        };
        match self.certificates.look(settings).await {
            Ok(copied) if self.refused_tls.as_ref() == Some(&copied) => {}
            Ok(copied) => (self.site.copied, self.refused_tls) = (copied, None),
            // Those of before are there, or no client gets a handshake.
            Err(why) => self.errors.report(&format!("TLS: no copies of certificates: {why}")),
        }
    }

    /// Where nginx starts and refuses its configuration, it is tried without certificates: the
    /// rest is served. False if there are none.
    pub(super) fn gives_up_tls(&mut self, why: &Diagnostic) -> bool {
        let refused = std::mem::take(&mut self.site.copied);
        if refused == CopiedCertificates::default() {
            return false;
        }
        let because = why.because.first().unwrap_or(&why.what);
        self.errors.report(&format!("TLS: every client is refused: {because}"));
        self.refused_tls = Some(refused);
        true
    }

    /// What an operator should know of certificates that nginx refuses.
    pub(super) fn without_tls(&self) -> Option<&'static str> {
        self.refused_tls.as_ref()?;
        Some("nginx refuses the certificates, and every TLS client is refused: log/nginx_error.log")
    }
}
