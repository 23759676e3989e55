//! Which fragments nginx takes: a fragment that it refuses is found, left out and named, and all
//! others are in force.
//!
//! `nginx -t` says most of what is wrong. What passes it and is not taken is found by having nginx
//! take it; meanwhile what was in force before serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_platform::disk;
use tokio::time::Instant;

use super::again::Again;
use super::config::render;
use super::edge::{Edge, Wanted};
use super::listens::Address;
use super::master::{Nginx, Taken};
use super::pieces::{self, PieceId};
use super::refusal::{Refusal, Stage};
use super::text::Text;

/// `nginx -t` has so long…
const CHECK_PATIENCE: Duration = Duration::from_secs(6);
/// …and so long where nothing is served until it has answered.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// A fragment that nginx refuses.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Its text.
    pub text: String,
    /// Its file and its place.
    pub place: String,
    /// Why it is refused.
    pub why: String,
    /// What an operator is told.
    pub sentence: String,
    /// The addresses that others have, if that is why.
    pub waits_for: Vec<Address>,
    /// Its check has not ended in time: it is tried again.
    pub is_slow: bool,
}

type Ids = BTreeSet<PieceId>;

impl Nginx {
    /// True if nginx obeys this table already: without fragments, only the settings matter.
    pub fn obeys(&self, wanted: &Wanted) -> bool {
        let settings = self.plain.as_ref().filter(|_| wanted.with_fragments.is_empty());
        self.master.is_some() && settings == Some(&wanted.server)
    }

    /// Has nginx obey a table. The error says why it obeys no table at all.
    pub async fn obey(&mut self, edge: &Edge, wanted: &Wanted) -> Result<(), Diagnostic> {
        self.look_at_certificates(&wanted.server).await;
        let offered = texts(wanted, &Ids::new());
        self.refused.retain(|id, refused| offered.get(id) == Some(&refused.text));
        let before = self.left_out();
        self.refused.retain(|_, refused| refused.waits_for.is_empty());
        self.leave_out_waiting(wanted);
        let is_back = !before.is_subset(&self.left_out());
        // What was refused may have been so because of another one, and of one that was not there.
        let is_new_set = self.offered != offered || is_back;
        self.offered = offered;
        if is_new_set {
            self.again = Again::default();
        }
        let is_due = self.again.is_due(Instant::now());
        let is_again =
            |one: &Refused| one.waits_for.is_empty() && (is_new_set || is_due && one.is_slow);
        let again = self.refused.iter().filter(|(_, one)| is_again(one));
        let again = again.map(|(id, _)| id.clone()).collect();
        if let Err(refusal) = self.settle(wanted, again).await {
            let why = Diagnostic::error("nginx refuses its configuration").because(&refusal.why);
            if self.master.is_none() {
                // Slowness says nothing about certificates.
                return match !refusal.is_slow && self.gives_up_tls(&why) {
                    true => Box::pin(self.obey(edge, wanted)).await,
                    false => Err(why),
                };
            }
            // What is in force goes on.
            let kept = format!("nginx keeps an older configuration: {}", refusal.why);
            self.errors.report(&kept);
            self.settled(edge, wanted.generation, Some((kept, !refusal.is_slow)));
            return Ok(());
        }
        let is_plain = wanted.with_fragments.is_empty();
        self.plain = is_plain.then(|| wanted.server.clone());
        self.settled(edge, wanted.generation, None);
        Ok(())
    }

    /// Says that the table of this generation is obeyed, or why one of before is `kept`, and whether
    /// that is a fault.
    pub fn settled(&mut self, edge: &Edge, generation: u64, kept: Option<(String, bool)>) {
        self.is_behind = kept.is_some();
        let is_slow = self.refused.values().any(|one| one.is_slow);
        self.again.note(Instant::now(), self.is_behind || is_slow);
        edge.obeys(generation, self.sentences().into_iter().chain(kept));
    }

    /// Leaves out fragments until nginx takes the configuration. Those of `again` are tried again.
    async fn settle(&mut self, wanted: &Wanted, again: Ids) -> Result<(), Refusal> {
        let before = self.left_out();
        loop {
            let Err(refusal) = self.try_out(wanted, &self.left_out(), Stage::Take).await else {
                break;
            };
            let waits = refusal.is_slow && self.master.is_none();
            if waits && !self.another_serves().await {
                let everything = self.offered.keys().cloned().collect();
                self.try_out(wanted, &everything, Stage::Take).await?;
                continue;
            }
            match self.blame(wanted, refusal).await {
                // At a handover the front of before serves meanwhile, with all that it has.
                Err(refusal) if refusal.is_slow && waits && self.another_serves().await => {}
                outcome => outcome?,
            }
        }
        let found: Ids = self.left_out().difference(&before).cloned().collect();
        // With several at fault, one may have been blamed for what another one did.
        let doubtful = if found.len() > 1 { found } else { Ids::new() };
        for id in again.union(&doubtful) {
            let mut left_out = self.left_out();
            left_out.remove(id);
            if self.try_out(wanted, &left_out, Stage::Take).await.is_ok() {
                self.refused.remove(id);
            }
        }
        Ok(())
    }

    /// The fragments that `nginx -t` refuses, a sentence each; nothing is started.
    pub async fn refused_by_check(&mut self, wanted: &Wanted) -> Result<Vec<String>, Diagnostic> {
        self.offered = texts(wanted, &Ids::new());
        while let Err(refusal) = self.try_out(wanted, &self.left_out(), Stage::Check).await {
            self.blame(wanted, refusal).await.map_err(|refusal| {
                Diagnostic::error("nginx refuses its configuration").because(&refusal.why)
            })?;
        }
        Ok(self.sentences().into_iter().map(|(sentence, _)| sentence).collect())
    }

    /// The fragments that `nginx -t` refuses of `wanted` and not of `others`, which are those of the
    /// other plugins: of two that exclude each other, the new one is refused.
    pub async fn newly_refused_by_check(
        &mut self,
        others: &Wanted,
        wanted: &Wanted,
    ) -> Result<Vec<(PieceId, Refused)>, Diagnostic> {
        self.refused_by_check(others).await?;
        let before = self.left_out();
        self.in_force = Some(Taken::assumed(texts(others, &before)));
        self.refused_by_check(wanted).await?;
        let new = self.refused.iter().filter(|(id, _)| !before.contains(id));
        Ok(new.map(|(id, refused)| (id.clone(), refused.clone())).collect())
    }

    /// Leaves out a fragment that is at fault; the refusal, if none is.
    async fn blame(&mut self, wanted: &Wanted, refusal: Refusal) -> Result<(), Refusal> {
        let left_out = self.left_out();
        let kept = texts(wanted, &left_out);
        let in_force = self.in_force.as_ref().map(|taken| &taken.fragments);
        let is_new =
            |(id, text): &(&PieceId, &String)| in_force.and_then(|all| all.get(*id)) != Some(*text);
        // What serves well is not to blame, if something else can be.
        let new: Vec<PieceId> = kept.iter().filter(is_new).map(|(id, _)| id.clone()).collect();
        let all: Vec<PieceId> = kept.into_keys().collect();
        let mut found = self.culprit(wanted, &new, &refusal).await;
        if found.is_none() && new.len() < all.len() {
            found = self.culprit(wanted, &all, &refusal).await;
        }
        let Some((id, why)) = found else { return Err(refusal) };
        let was_slow = refusal.is_slow && why == refusal.why;
        if was_slow && self.try_out(wanted, &left_out, refusal.stage).await.is_ok() {
            // The machine was busy for a moment.
            return Ok(());
        }
        let pieces = pieces::of(&wanted.sections);
        let Some(piece) = pieces.iter().find(|piece| piece.id == id) else { return Err(refusal) };
        let (place, why) = (piece.to_string(), format!("{why}{}", hint(&why)));
        let sentence = format!("plugin {}: {place} is left out: {why}", id.plugin);
        self.errors.report(&sentence);
        let (text, waits_for) = (piece.fragment.text.clone(), Vec::new());
        let is_slow = refusal.is_slow && refusal.stage == Stage::Check;
        self.refused.insert(id, Refused { text, place, why, sentence, waits_for, is_slow });
        Ok(())
    }

    /// A fragment of these without which nginx goes further, and why it is refused.
    async fn culprit(
        &mut self,
        wanted: &Wanted,
        suspects: &[PieceId],
        refusal: &Refusal,
    ) -> Option<(PieceId, String)> {
        let (left_out, stage) = (self.left_out(), refusal.stage);
        let without =
            |those: &[PieceId]| left_out.iter().chain(those).cloned().collect::<BTreeSet<_>>();
        // The one that nginx names: without it all is well, or it is refused also alone.
        if let Some(id) = refusal.named.as_ref().filter(|id| suspects.contains(id)) {
            let found = (id.clone(), refusal.why.clone());
            if self.try_out(wanted, &without(std::slice::from_ref(id)), stage).await.is_ok() {
                return Some(found);
            }
            let others: Vec<_> = suspects.iter().filter(|one| *one != id).cloned().collect();
            if self.try_out(wanted, &without(&others), stage).await.is_err() {
                return Some(found);
            }
        }
        if suspects.is_empty() || self.try_out(wanted, &without(suspects), stage).await.is_err() {
            return None;
        }
        // Accepted with the first `good` of them, refused with the first `bad`.
        let (mut good, mut bad, mut last) = (0, suspects.len(), refusal.clone());
        while good + 1 < bad {
            let middle = good.midpoint(bad);
            match self.try_out(wanted, &without(&suspects[middle..]), stage).await {
                Ok(()) => good = middle,
                Err(new) => (bad, last) = (middle, new),
            }
        }
        suspects.get(good).map(|id| (id.clone(), last.why_of(id)))
    }

    /// Has nginx check a configuration, and take it, if that is the stage.
    async fn try_out(
        &mut self,
        wanted: &Wanted,
        left_out: &Ids,
        stage: Stage,
    ) -> Result<(), Refusal> {
        let text = render(&self.site, &wanted.server, &wanted.sections, left_out);
        let is_in_force = self.in_force.as_ref().is_some_and(|taken| taken.text == text.text());
        if is_in_force && self.master.is_some() {
            return Ok(());
        }
        // Where nothing serves yet, nginx itself judges what no plugin is a part of.
        let is_judged = stage == Stage::Take && self.master.is_none() && !text.has_fragments();
        if !is_judged {
            self.check(&text, stage).await?;
        }
        match stage {
            Stage::Check => Ok(()),
            Stage::Take => self.take(&text, texts(wanted, left_out)).await,
        }
    }

    /// Has nginx check a configuration on a copy.
    async fn check(&mut self, text: &Text, stage: Stage) -> Result<(), Refusal> {
        let copy = self.config.with_extension("conf.check");
        let cannot = |why: &dyn std::fmt::Display| {
            let why = format!("{} cannot be checked: {why}", copy.display());
            Refusal::without_place(Stage::Check, why)
        };
        disk::create_dir(&self.program.prefix).map_err(|why| cannot(&why.what))?;
        disk::replace(&copy, 0o600, text.text().as_bytes()).map_err(|why| cannot(&why))?;
        let is_first = stage == Stage::Take && self.master.is_none();
        let patience = match is_first && !self.another_serves().await {
            true => FIRST_PATIENCE,
            false => CHECK_PATIENCE,
        };
        let check = self.program.check(&copy, &self.sockets(), patience);
        let mut check = Box::pin(check.map_err(|why| cannot(&why))?);
        let outcome = tokio::select! {
            biased;
            outcome = &mut check => outcome,
            () = self.ended() => {
                // Clients do not wait for what is being checked.
                self.restart().await;
                check.await
            }
        };
        let _ = disk::remove(&copy);
        outcome.map_err(|said| match said {
            Some(said) => Refusal::new(Stage::Check, &said, &copy, text),
            None => {
                let why = format!("`nginx -t` does not answer within {} s", patience.as_secs());
                Refusal { is_slow: true, ..Refusal::without_place(Stage::Check, why) }
            }
        })
    }

    /// What an operator should know of: the fragments that are left out.
    /// What an operator should know of, and whether it is a fault: what waits is tried again.
    fn sentences(&self) -> Vec<(String, bool)> {
        let is_fault = |one: &Refused| one.waits_for.is_empty() && !one.is_slow;
        let fragments = self.refused.values().map(|one| (one.sentence.clone(), is_fault(one)));
        fragments.chain(self.without_tls().map(|said| (said.to_string(), true))).collect()
    }

    fn left_out(&self) -> Ids {
        self.refused.keys().cloned().collect()
    }
}

/// What a plugin can do about a refusal whose reason is not in its own files.
fn hint(why: &str) -> &'static str {
    match why.contains("duplicate location \"/\"") {
        true => {
            ": the server has that location already, for the apps; `location ~ ^/` takes all of \
                 their requests, `location = /` those for the path /"
        }
        false => "",
    }
}

/// The fragments of a table but those that are left out.
fn texts(wanted: &Wanted, left_out: &Ids) -> BTreeMap<PieceId, String> {
    let all = pieces::of(&wanted.sections).into_iter();
    let kept = all.filter(|piece| !left_out.contains(&piece.id));
    kept.map(|piece| (piece.id, piece.fragment.text.clone())).collect()
}
