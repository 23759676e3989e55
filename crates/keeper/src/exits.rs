//! How processes have ended: the records that a daemon reads when it comes back.

use std::collections::VecDeque;

use mfserv_core::wire::keeper::Exit;

/// Exit records kept, and the bytes of last output and of notes in them: an answer with
/// all of them is one frame.
const MOST_EXITS: usize = 10_000;
const MOST_LAST_OUTPUT: usize = 1024 * 1024;
const MOST_NOTES: usize = 1024 * 1024;

/// One record for each name, oldest first, within the bounds above.
#[derive(Default)]
pub(crate) struct Exits(VecDeque<Exit>);

impl Exits {
    /// Adds a record. An earlier one of the same name goes: it outlives the next start, so
    /// that a daemon can read how the one before it has ended, and not the next end.
    pub fn push(&mut self, exit: Exit) {
        self.forget(&exit.id);
        self.0.push_back(exit);
        let mut notes: usize = self.0.iter().map(|exit| exit.note.len()).sum();
        while self.0.len() > MOST_EXITS || notes > MOST_NOTES {
            notes -= self.0.pop_front().map_or(0, |exit| exit.note.len());
        }
        let mut length: usize = self.0.iter().map(|exit| exit.last_output.len()).sum();
        for exit in &mut self.0 {
            if length <= MOST_LAST_OUTPUT {
                return;
            }
            length -= exit.last_output.len();
            exit.last_output = String::new();
        }
    }

    /// Removes the record of a name.
    pub fn forget(&mut self, id: &str) {
        self.0.retain(|exit| exit.id != id);
    }

    /// There is a record of this name.
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|exit| exit.id == id)
    }

    /// All records, oldest first.
    pub fn all(&self) -> Vec<Exit> {
        self.0.iter().cloned().collect()
    }

    /// The newest records, oldest of them first.
    pub fn newest(&self, count: usize) -> Vec<Exit> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).cloned().collect()
    }
}

impl From<Vec<Exit>> for Exits {
    fn from(saved: Vec<Exit>) -> Self {
        Self(saved.into())
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::wire::frame;
    use mfserv_core::wire::keeper::{Answer, Ended, Response};

    use super::*;

    fn exit(id: usize, last_output: usize, note: usize) -> Exit {
        Exit {
            id: format!("worker-{id}"),
            pid: 1,
            ended: Ended::Unknown,
            out_of_memory: None,
            at_ms: id as u64,
            last_output: "x".repeat(last_output),
            left_behind: 0,
            note: "n".repeat(note),
        }
    }

    #[test]
    fn a_later_end_of_the_same_name_replaces_the_record() {
        let mut exits = Exits::default();
        exits.push(exit(1, 3, 0));
        exits.push(exit(2, 3, 0));
        exits.push(Exit { at_ms: 99, ..exit(1, 3, 0) });
        let at: Vec<u64> = exits.all().iter().map(|exit| exit.at_ms).collect();
        assert_eq!(at, [2, 99]);
        assert_eq!(exits.newest(1).len(), 1);
        assert_eq!(exits.newest(1)[0].at_ms, 99);
        exits.forget("worker-2");
        assert_eq!(exits.all().len(), 1);
    }

    #[test]
    fn the_oldest_lose_their_last_output_first_and_keep_their_record() {
        let mut exits = Exits::default();
        (0..300).for_each(|id| exits.push(exit(id, 4096, 0)));
        let all = exits.all();
        assert_eq!(all.len(), 300);
        let kept = MOST_LAST_OUTPUT / 4096;
        let empty = all.iter().take_while(|exit| exit.last_output.is_empty()).count();
        assert_eq!(empty, 300 - kept);
        assert!(all[empty..].iter().all(|exit| exit.last_output.len() == 4096));
    }

    #[test]
    fn the_fullest_list_of_records_is_an_answer_of_one_frame() {
        let full: Vec<Exit> = (0..12_000).map(|id| exit(id, 256, 100)).collect();
        let mut exits = Exits::from(full);
        exits.push(exit(12_000, 4096, 4096));
        let all = exits.all();
        let notes: usize = all.iter().map(|exit| exit.note.len()).sum();
        assert!(all.len() <= MOST_EXITS && notes <= MOST_NOTES);
        assert_eq!(
            all.last().map(|exit| exit.last_output.len()),
            Some(4096),
            "the newest is whole"
        );
        let answer = Answer::Processes { alive: Vec::new(), exits: exits.all() };
        frame::encode(&Response { seq: 1, answer }).unwrap();
    }
}
