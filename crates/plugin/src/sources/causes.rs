//! Which changes are reasons for a build, and when it begins. A file that changes again with each
//! build that it has caused is written by the build or by the app: without a brake, one edit would
//! be built for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An editor writes several files, or one several times: a build waits until nothing has changed
/// for this long…
pub const QUIET: Duration = Duration::from_millis(150);
/// …but begins after this in any case.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The same for a file that follows its own builds: a person who types stops once, a program does
/// not.
const QUIET_OF_FOLLOWERS: Duration = Duration::from_secs(3);
const LONGEST_WAIT_OF_FOLLOWERS: Duration = Duration::from_secs(6);
/// What a program writes because of a build, it writes until this long after the build, or after
/// the new code serves.
const ECHO: Duration = Duration::from_secs(2);
/// So many builds in a row that a file has followed make it one that waits longer…
const FOLLOWER: u32 = 2;
/// …and so many one that is left out,
const LEFT_OUT: u32 = 4;
/// until it changes once more after nobody has written it for this long.
const CALM: Duration = Duration::from_secs(10);

/// The reasons for the next build, and those of the last one.
#[derive(Debug, Default)]
pub struct Causes {
    /// What is not built yet, and when it has changed last.
    waiting: BTreeMap<PathBuf, Instant>,
    /// When the first of it has changed.
    since: Option<Instant>,
    is_building: bool,
    /// What has caused the last build.
    last: BTreeSet<PathBuf>,
    /// Of that and of what is left out: what has changed again during it, or right after it.
    again: BTreeSet<PathBuf>,
    /// Until when a change may be an effect of the last build.
    echo: Option<Instant>,
    /// The last build has gone well.
    has_built: bool,
    streaks: BTreeMap<PathBuf, Streak>,
}

/// Builds in a row that a file has followed.
#[derive(Debug, Default)]
struct Streak {
    builds: u32,
    /// Not while they ran, but after them: by the app, perhaps.
    outside: bool,
    /// Its last change.
    last: Option<Instant>,
    /// It has been left out once, and that was said.
    told: bool,
}

impl Streak {
    fn is_left_out(&self) -> bool {
        self.builds >= if self.told { FOLLOWER } else { LEFT_OUT }
    }

    fn follow(&mut self, outside: bool) {
        match self.is_left_out() {
            true => self.outside |= outside,
            // A program writes always in the same way, either during builds or after them.
            false => {
                let is_alike = self.builds > 0 && self.outside == outside;
                self.builds = if is_alike { self.builds + 1 } else { 1 };
                self.outside = outside;
            }
        }
    }
}

impl Causes {
    /// These have changed. Returns those of them that are left out from now on.
    pub fn changed(&mut self, files: Vec<PathBuf>, now: Instant) -> Vec<PathBuf> {
        files.into_iter().filter(|file| self.changed_one(file, now)).collect()
    }

    fn changed_one(&mut self, file: &PathBuf, now: Instant) -> bool {
        let may_follow = self.is_building || self.echo.is_some_and(|until| now < until);
        let follows = may_follow && (self.is_left_out(file) || self.last.contains(file));
        let is_first = follows && self.again.insert(file.clone());
        let waits = self.again.contains(file);
        let streak = self.streaks.entry(file.clone()).or_default();
        let was_left_out = streak.is_left_out();
        if is_first || follows && was_left_out {
            streak.follow(!self.is_building);
        } else if !may_follow {
            let is_new = streak.last.is_none_or(|at| now.duration_since(at) >= CALM);
            // Nobody but a person writes it now.
            if is_new || !(if was_left_out { streak.outside } else { waits }) {
                streak.builds = 0;
            }
        }
        streak.last = Some(now);
        if streak.is_left_out() {
            self.waiting.remove(file);
            return !std::mem::replace(&mut streak.told, true);
        }
        self.waiting.insert(file.clone(), now);
        self.since.get_or_insert(now);
        false
    }

    /// The files that a build is to begin for now; nothing, if there is no reason, or it is too
    /// early.
    pub fn due(&self, now: Instant) -> Option<Vec<PathBuf>> {
        let since = self.since.filter(|_| !self.waiting.is_empty() && !self.is_building)?;
        let follows = |file: &PathBuf| self.builds_followed(file) >= FOLLOWER;
        let is_edit = self.waiting.keys().any(|file| !follows(file));
        let (quiet, longest) = match is_edit {
            true => (QUIET, LONGEST_WAIT),
            false => (QUIET_OF_FOLLOWERS, LONGEST_WAIT_OF_FOLLOWERS),
        };
        // Of a file that follows builds nobody waits for the end, where there is an edit.
        let mut awaited = self.waiting.iter().filter(|(file, _)| !(is_edit && follows(file)));
        let is_quiet = awaited.all(|(_, at)| now.duration_since(*at) >= quiet);
        (is_quiet || now.duration_since(since) >= longest)
            .then(|| self.waiting.keys().cloned().collect())
    }

    /// A build begins for all that waits.
    pub fn begin(&mut self, now: Instant) {
        let is_over = self.has_built && self.echo.is_none_or(|until| now >= until);
        if is_over {
            // It has not followed the last build: it is no file that builds, or the app, write.
            let calm = self.streaks.iter_mut().filter(|(file, _)| !self.again.contains(*file));
            calm.filter(|(_, one)| one.is_left_out()).for_each(|(_, one)| one.builds = 0);
        }
        self.last = std::mem::take(&mut self.waiting).into_keys().collect();
        self.again.clear();
        self.since = None;
        self.is_building = true;
    }

    /// The build has ended. What has changed meanwhile is noted before.
    pub fn end(&mut self, has_built: bool, now: Instant) {
        self.is_building = false;
        self.has_built = has_built;
        self.echo = Some(now + ECHO);
    }

    /// The new code serves now: what it writes when it starts is written by then.
    pub fn serves(&mut self, now: Instant) {
        self.echo = self.echo.map(|until| until.max(now + ECHO));
    }

    fn builds_followed(&self, file: &PathBuf) -> u32 {
        self.streaks.get(file).map_or(0, |streak| streak.builds)
    }

    fn is_left_out(&self, file: &PathBuf) -> bool {
        self.streaks.get(file).is_some_and(Streak::is_left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a made-up clock, and what was built and left out so far.
    struct Story {
        causes: Causes,
        now: Instant,
        built: Vec<String>,
        left_out: Vec<String>,
    }

    impl Story {
        fn new() -> Self {
            let (causes, now) = (Causes::default(), Instant::now());
            Story { causes, now, built: Vec::new(), left_out: Vec::new() }
        }

        fn save(&mut self, file: &str) {
            let left_out = self.causes.changed(vec![PathBuf::from(file)], self.now);
            self.left_out.extend(left_out.iter().map(|one| one.display().to_string()));
        }

        /// Looks every 50 ms for this long; returns whether a build has begun.
        fn until_begun(&mut self, ms: u64) -> bool {
            for _ in 0..ms / 50 {
                if let Some(files) = self.causes.due(self.now) {
                    let names: Vec<String> =
                        files.iter().map(|file| file.display().to_string()).collect();
                    self.built.push(names.join("+"));
                    self.causes.begin(self.now);
                    return true;
                }
                self.now += Duration::from_millis(50);
            }
            false
        }

        fn end(&mut self) {
            self.causes.end(true, self.now);
        }
    }

    #[test]
    fn a_build_begins_when_it_is_quiet_and_at_the_latest_after_two_seconds() {
        let mut story = Story::new();
        story.save("a");
        assert!(story.causes.due(story.now + Duration::from_millis(100)).is_none());
        assert!(story.until_begun(200));
        story.end();
        story.now += Duration::from_secs(60);
        let begun = story.now;
        while !story.until_begun(50) {
            story.save("b");
            assert!(story.now - begun < Duration::from_secs(5), "it is never quiet");
        }
        assert!(story.now - begun >= LONGEST_WAIT);
        assert_eq!(story.built, ["a", "b"]);
    }

    #[test]
    fn edits_during_and_after_builds_are_built_each_time() {
        let mut story = Story::new();
        story.save("a");
        for _ in 0..6 {
            assert!(story.until_begun(4_000));
            story.save("a");
            story.end();
            assert!(story.until_begun(4_000));
            story.end();
            story.save("a");
        }
        assert_eq!((story.built.len(), story.left_out.len()), (12, 0));
    }

    #[test]
    fn what_follows_its_own_builds_is_left_out_and_said_once_and_edits_go_on_being_built() {
        for in_build in [true, false] {
            let mut story = Story::new();
            story.save("edit");
            // With each build, or at each start of the app, again.
            while story.until_begun(10_000) {
                assert!(story.built.len() < 10, "{:?}", story.built);
                if in_build {
                    story.save("log");
                }
                story.end();
                story.now += Duration::from_millis(500);
                if !in_build {
                    story.causes.serves(story.now);
                    story.now += Duration::from_millis(500);
                    story.save("log");
                    story.save("log");
                }
            }
            assert_eq!(story.built, ["edit", "log", "log", "log", "log"], "{in_build}");
            assert_eq!(story.left_out, ["log"]);
            story.now += Duration::from_secs(60);
            story.save("edit");
            assert!(story.until_begun(200));
            story.save("log");
            story.end();
            assert!(!story.until_begun(60_000));
            if in_build {
                // Between builds only a person writes what builds write.
                story.save("log");
                assert!(story.until_begun(200));
            }
        }
    }

    #[test]
    fn what_does_not_follow_a_build_or_was_calm_for_long_is_a_source_again() {
        for by_calm in [true, false] {
            let mut story = Story::new();
            story.save("a");
            while story.left_out.is_empty() {
                assert!(story.until_begun(7_000));
                story.end();
                story.now += Duration::from_secs(1);
                story.save("a");
            }
            assert_eq!(story.left_out, ["a"]);
            // Requests write it.
            for _ in 0..5 {
                story.now += Duration::from_secs(5);
                story.save("a");
                assert!(!story.until_begun(500));
            }
            for _ in 0..if by_calm { 0 } else { 2 } {
                story.now += Duration::from_secs(3);
                story.save("b");
                assert!(story.until_begun(200));
                story.end();
            }
            story.now += Duration::from_secs(if by_calm { 20 } else { 3 });
            story.save("a");
            assert!(story.until_begun(200), "{by_calm}");
            assert_eq!(story.left_out, ["a"], "said once");
        }
    }

    #[test]
    fn an_edit_does_not_wait_for_a_file_that_is_written_all_the_time() {
        let mut story = Story::new();
        story.save("edit");
        let begun = story.now;
        while story.now - begun < Duration::from_secs(30) {
            if story.until_begun(50) {
                story.save("log");
                story.end();
            }
            story.save("log");
        }
        assert_eq!(story.left_out, ["log"]);
        assert!(story.built.len() <= 5, "{:?}", story.built);
        story.save("edit");
        assert!(story.until_begun(200), "{:?}", story.causes);
    }
}
