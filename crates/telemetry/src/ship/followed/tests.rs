//! Files as people and rotations treat them, and a shipper that may die at each step. What is
//! shipped goes to an index that knows ids, as the real one does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;

use super::*;

/// What the index has, by id.
#[derive(Default)]
struct Index {
    documents: BTreeMap<String, String>,
    known: usize,
}

impl Index {
    fn create(&mut self, id: String, text: String) {
        if let Some(before) = self.documents.get(&id) {
            // The index would keep what it has, and the shipper would believe that it has this.
            assert_eq!(*before, text, "two texts with the id {id}");
            self.known += 1;
        }
        self.documents.insert(id, text);
    }

    /// The texts, in the order of their generations and offsets.
    fn texts(&self) -> Vec<&str> {
        self.documents.values().map(|text| text.trim_end()).collect()
    }

    fn sorted(&self) -> Vec<&str> {
        let mut texts = self.texts();
        texts.sort_unstable();
        texts
    }
}

struct Room {
    dir: tempfile::TempDir,
    index: Index,
    lines: Lines,
}

impl Room {
    fn new(lines: Lines) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), index: Index::default(), lines }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = File::options().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy_and_truncate(&self, to: &str) {
        fs::copy(self.path("a.log"), self.path(to)).unwrap();
        File::options().write(true).open(self.path("a.log")).unwrap().set_len(0).unwrap();
    }

    fn start(&self) -> Followed {
        Followed::open(&self.path("a.log"), &self.path("state"), self.lines, Begin::WithLive)
            .unwrap()
    }

    /// Ships what is there; the acknowledgement is lost if the shipper dies.
    fn ship(&mut self, followed: &mut Followed, dies: bool) {
        loop {
            followed.look().unwrap();
            let mut sent = Vec::new();
            let read = followed.read(true, &mut |_, _| true, &mut |part| {
                for record in &part.records {
                    let id = format!("{}-{:09}", part.generation, part.base + record.start as u64);
                    sent.push((id, String::from_utf8_lossy(record.bytes).into_owned()));
                }
            });
            let has_read = read.unwrap();
            followed.sync().unwrap();
            for (id, text) in sent {
                self.index.create(id, text);
            }
            if !has_read {
                return;
            }
            if dies {
                return;
            }
            followed.acknowledge().unwrap();
        }
    }

    /// A shipper that lives only for this.
    fn ship_once(&mut self) {
        let mut followed = self.start();
        self.ship(&mut followed, false);
    }
}

#[test]
fn lines_are_shipped_through_renames_by_one_shipper_and_by_several() {
    for survives in [true, false] {
        let mut room = Room::new(Lines::Single);
        let mut followed = Some(room.start());
        room.append("a.log", "1\n2\nhal");
        for step in 0..3 {
            if !survives {
                followed = None;
            }
            match step {
                0 => room.append("a.log", ""),
                1 => {
                    room.append("a.log", "f\n3\n");
                    room.rename("a.log", "a.log.1");
                    room.append("a.log", "4\n");
                }
                // Twice, while nobody looks: one file was never seen under its name.
                _ => {
                    room.append("a.log.1", "late\n");
                    room.append("a.log", "5\n");
                    room.rename("a.log.1", "a.log.2");
                    room.rename("a.log", "a.log.1");
                    room.append("a.log", "6\n");
                    room.rename("a.log.2", "a.log.3");
                    room.rename("a.log.1", "a.log.2");
                    room.rename("a.log", "a.log.1");
                    room.append("a.log", "7\n");
                }
            }
            let mut running = followed.take().unwrap_or_else(|| room.start());
            room.ship(&mut running, false);
            followed = Some(running);
        }
        let all = ["1", "2", "3", "4", "5", "6", "7", "half", "late"];
        assert_eq!(room.index.sorted(), all, "survives: {survives}");
        assert_eq!(room.index.known, 0);
    }
}

#[test]
fn after_a_copytruncate_the_rest_is_taken_from_the_copy() {
    for survives in [true, false] {
        let mut room = Room::new(Lines::Single);
        room.append("a.log", "1\n2\n");
        let mut followed = room.start();
        room.ship(&mut followed, false);
        room.append("a.log", "3\n");
        room.copy_and_truncate("a.log.1");
        room.append("a.log", "4\n5\n6\n7\n");
        if !survives {
            drop(followed);
            followed = room.start();
        }
        room.ship(&mut followed, false);
        assert_eq!(room.index.sorted(), ["1", "2", "3", "4", "5", "6", "7"]);
        // Twice while nobody looks, the second time with more than was read before.
        room.rename("a.log.1", "a.log.2");
        room.copy_and_truncate("a.log.1");
        room.append("a.log", "8 longer than everything that was in the file before\n");
        room.rename("a.log.2", "a.log.3");
        room.rename("a.log.1", "a.log.2");
        room.copy_and_truncate("a.log.1");
        room.append("a.log", "9\n");
        room.ship(&mut followed, false);
        assert_eq!(room.index.documents.len(), 9, "{:?}", room.index.texts());
        assert_eq!(room.index.known, 0, "survives: {survives}");
    }
}

#[test]
fn a_compressed_rest_is_read_and_nothing_else_that_is_compressed() {
    let mut room = Room::new(Lines::Single);
    room.append("a.log.20260101000000", "old\n");
    room.append("a.log", "1\n2\n");
    let mut followed = room.start();
    room.ship(&mut followed, false);
    room.append("a.log", "3\n4\n");
    room.rename("a.log", "a.log.20260102000000");
    room.append("a.log", "5\n");
    // What cannot be sent for long: the shipper only looks.
    followed.look_while_waiting().unwrap();
    followed.sync().unwrap();
    room.rename("a.log", "a.log.20260103000000");
    drop(followed);
    for old in ["20260101000000", "20260102000000", "20260103000000"] {
        assert!(mfserv_logfile::compress(&room.path(&format!("a.log.{old}"))).unwrap());
    }
    room.append("a.log", "6\n");
    room.ship_once();
    let all = ["1", "2", "3", "4", "5", "6"];
    assert_eq!((room.index.sorted(), room.index.known), (all.to_vec(), 0));
    room.ship_once();
    assert_eq!(room.index.known, 0);
}

#[test]
fn a_copy_in_the_making_is_not_begun_as_a_file_of_its_own() {
    let mut room = Room::new(Lines::Single);
    room.append("a.log", "1\n2\n3\n");
    let mut followed = room.start();
    room.ship(&mut followed, false);
    for part in ["", "1\n", "2\n3\n"] {
        room.append("a.log.1", part);
        room.ship(&mut followed, false);
    }
    File::options().write(true).open(room.path("a.log")).unwrap().set_len(0).unwrap();
    room.append("a.log", "4\n");
    room.ship(&mut followed, false);
    drop(followed);
    room.ship_once();
    assert_eq!((room.index.sorted(), room.index.known), (vec!["1", "2", "3", "4"], 0));
}

#[test]
fn a_reused_inode_and_an_old_beginning_do_not_hide_lines() {
    let mut room = Room::new(Lines::Single);
    room.append("a.log", "begin\n1\n2\n");
    room.ship_once();
    let inode = |room: &Room| Source::plain(&room.path("a.log")).unwrap().look().unwrap().inode;
    let before = inode(&room);
    // The same inode, the same first line, longer than what was read.
    let mut file = File::options().write(true).open(room.path("a.log")).unwrap();
    file.write_all(b"begin\n3\n4\n5\n6\n").unwrap();
    assert_eq!(inode(&room), before);
    room.ship_once();
    let all = ["1", "2", "3", "4", "5", "6", "begin", "begin"];
    assert_eq!((room.index.sorted(), room.index.known), (all.to_vec(), 0));
    // A shorter one.
    file.set_len(0).unwrap();
    room.append("a.log", "7\n");
    room.ship_once();
    assert_eq!(room.index.documents.len(), 9);
}

#[test]
fn what_was_rotated_before_the_first_look_is_not_shipped() {
    let mut room = Room::new(Lines::Single);
    for old in ["a.log.1", "a.log.2", "a.log-20260101"] {
        room.append(old, "old\n");
    }
    room.append("a.log", "1\n");
    room.ship_once();
    room.rename("a.log.1", "a.log.3");
    room.rename("a.log", "a.log.1");
    room.ship_once();
    assert_eq!(room.index.texts(), ["1"]);
}

#[test]
fn a_file_followed_from_its_end_gives_what_comes_later() {
    let mut room = Room::new(Lines::Single);
    room.append("a.log", "old\nhal");
    let (path, state) = (room.path("a.log"), room.path("state"));
    drop(Followed::open(&path, &state, Lines::Single, Begin::AtEnd).unwrap());
    room.append("a.log", "f\nnew\n");
    room.ship_once();
    assert_eq!(room.index.texts(), ["half", "new"]);
}

#[test]
fn a_message_that_was_sent_before_its_last_lines_came_is_the_same_document_again() {
    let mut room = Room::new(Lines::Grouped);
    room.append("a.log", "failed\n  why\n");
    let mut followed = room.start();
    room.ship(&mut followed, true);
    drop(followed);
    // Without the stored end, the document would grow, and the index would not take it.
    room.append("a.log", "  more\nnext\n");
    room.ship_once();
    assert_eq!(room.index.texts(), ["failed\n  why", "  more", "next"]);
    assert_eq!(room.index.known, 1);
}

#[test]
fn marks_of_the_time_hold_for_what_an_earlier_shipper_may_have_sent() {
    let room = Room::new(Lines::Single);
    room.append("a.log", "1\n2\n");
    let read = |followed: &mut Followed| {
        let mut marks = Vec::new();
        followed.look().unwrap();
        let mut each = |part: &Part| marks = part.times.to_vec();
        followed.read(true, &mut |_, _| false, &mut each).unwrap();
        followed.sync().unwrap();
        marks
    };
    let mut followed = room.start();
    let first = read(&mut followed);
    drop(followed);
    // Each time leads to another index now, but these lines keep theirs.
    let mut followed = room.start();
    assert_eq!(read(&mut followed).last(), first.last());
    followed.acknowledge().unwrap();
    room.append("a.log", "3\n");
    assert_eq!(read(&mut followed).last().map(|mark| mark.from), Some(4));
}

/// A small generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
fn every_line_is_shipped_once_whatever_happens_in_whichever_order() {
    let seeds = if std::env::var_os("MFSERV_LONG").is_some() { 2000 } else { 40 };
    for seed in 0..seeds {
        let mut numbers = Numbers(seed);
        let mut room = Room::new(Lines::Single);
        let mut followed = room.start();
        let (mut count, mut history) = (0, Vec::new());
        for _ in 0..30 {
            let action = numbers.below(8);
            history.push(action);
            match action {
                0..=2 => {
                    for _ in 0..=numbers.below(40) {
                        count += 1;
                        room.append("a.log", &format!("line {count:05}\n"));
                    }
                }
                3 | 4 if room.path("a.log").exists() => {
                    for number in (1..6).rev() {
                        let from = format!("a.log.{number}");
                        if room.path(&from).exists() {
                            room.rename(&from, &format!("a.log.{}", number + 1));
                        }
                    }
                    match action {
                        3 => room.rename("a.log", "a.log.1"),
                        _ => room.copy_and_truncate("a.log.1"),
                    }
                    // The oldest one is removed once it has been shipped.
                    if room.path("a.log.6").exists() {
                        room.ship(&mut followed, false);
                        fs::remove_file(room.path("a.log.6")).unwrap();
                    }
                }
                5 => room.ship(&mut followed, false),
                6 => room.ship(&mut followed, true),
                _ => {}
            }
            if action >= 6 {
                drop(followed);
                followed = room.start();
            }
        }
        drop(followed);
        room.ship_once();
        let expected: Vec<String> = (1..=count).map(|n| format!("line {n:05}")).collect();
        assert_eq!(room.index.sorted(), expected, "seed {seed}: {history:?}");
    }
}
