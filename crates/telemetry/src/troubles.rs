//! What does not work in the telemetry role, in a file that `mfserv status` reads: a port that
//! another program has, a receiver that is away.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use mfserv_core::shipping::Report;
use mfserv_platform::clock::now_ms;
use mfserv_platform::disk;
use mfserv_platform::sync::lock;

use crate::ship::Notice;

/// What does not work now, and what was lost since the role was started.
pub struct Troubles {
    file: PathBuf,
    notice: Notice,
    reports: Mutex<BTreeMap<String, Report>>,
}

impl Troubles {
    /// Nothing is wrong yet: the file of an earlier process is removed.
    pub fn new(file: PathBuf, notice: Notice) -> Self {
        // Its directory is there before the first of many threads wants to write.
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(why) = made {
            notice(&format!("{} cannot be written: {why}", file.display()));
        }
        let _ = std::fs::remove_file(&file);
        Self { file, notice, reports: Mutex::default() }
    }

    /// Something does not work, for this reason. It is said in the log too, once for each reason.
    pub fn say(&self, what: &str, why: &str) {
        let is_known = lock(&self.reports)
            .get(what)
            .and_then(|report| report.trouble.as_ref())
            .is_some_and(|(_, known)| known == why);
        if !is_known {
            (self.notice)(&format!("{what}: {why}"));
            self.keep(what, Some(why));
        }
    }

    /// How much does not work now.
    pub fn count(&self) -> usize {
        lock(&self.reports).values().filter(|report| report.trouble.is_some()).count()
    }

    /// It works, if it did not.
    pub fn over(&self, what: &str) {
        let was_wrong =
            lock(&self.reports).get(what).is_some_and(|report| report.trouble.is_some());
        if was_wrong {
            (self.notice)(&format!("{what}: it works again"));
            self.keep(what, None);
        }
    }

    /// Keeps what is wrong with something, or that nothing is.
    pub fn keep(&self, what: &str, why: Option<&str>) {
        self.change(what, |report| {
            let since = report.trouble.take().map(|(since_ms, _)| since_ms);
            report.trouble = why.map(|why| (since.unwrap_or_else(now_ms), why.to_string()));
        });
    }

    /// So many bytes were lost.
    pub fn lost(&self, what: &str, bytes: u64) {
        self.change(what, |report| {
            report.lost_bytes += bytes;
            report.lost_ms = now_ms();
        });
    }

    fn change(&self, what: &str, change: impl FnOnce(&mut Report)) {
        let mut reports = lock(&self.reports);
        let new = || Report { what: what.to_string(), ..Report::default() };
        change(reports.entry(what.to_string()).or_insert_with(new));
        let shown: Vec<&Report> = reports.values().filter(|report| report.is_bad()).collect();
        let text = serde_json::to_vec(&shown).unwrap_or_default();
        if let Err(why) = disk::replace(&self.file, 0o644, &text) {
            (self.notice)(&format!("{} cannot be written: {why}", self.file.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_does_not_work_is_in_the_file_until_it_does_and_is_said_once_for_each_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("below/reports.json");
        let said = Arc::<Mutex<Vec<String>>>::default();
        let own = said.clone();
        let notice: Notice = Arc::new(move |text: &str| lock(&own).push(text.to_string()));
        let troubles = Troubles::new(file.clone(), notice);
        let kept =
            || -> Vec<Report> { serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap() };
        for why in ["in use", "in use", "refused"] {
            troubles.say("[metrics] port=1", why);
        }
        assert_eq!(troubles.count(), 1);
        let since = kept()[0].trouble.clone().unwrap();
        assert_eq!((kept().len(), since.1.as_str()), (1, "refused"));
        troubles.over("[metrics] port=1");
        troubles.over("[metrics] port=1");
        assert_eq!((kept(), troubles.count()), (Vec::new(), 0));
        assert_eq!(lock(&said).len(), 3, "{said:?}");
        troubles.lost("x", 5);
        troubles.lost("x", 2);
        assert_eq!(kept()[0].lost_bytes, 7);
    }
}
