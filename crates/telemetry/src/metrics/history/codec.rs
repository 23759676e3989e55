//! The records of a history file: small numbers in few bytes, names once, and of what is true at an
//! instant only what has changed.
//!
//! ```text
//! file    = "mfhist1\n" record*
//! record  = length (u32, little endian) CRC-32 of the payload (u32) payload
//! payload = at covered_ms node (7 numbers) names (count, then length and bytes of each)
//!           apps (count, then: index of its name, mask, what the mask says)
//! ```
//!
//! Numbers are LEB128; the largest one stands for what nobody said. A name gets the next index when it is first used in a file, so a file can be
//! read without any other one.

use std::collections::HashMap;
use std::sync::Arc;

use super::sample::{Gauges, NodeSample, Sample, Subject, Tick};

/// How a file begins; the number is that of the format.
pub const MAGIC: &[u8; 8] = b"mfhist1\n";
/// Length and checksum of a record, bytes.
const HEAD: usize = 8;
/// The longest record, bytes.
const RECORD_MAX: usize = 1 << 20;

/// What is known of a file from its records so far, for who writes and for who reads it.
#[derive(Default)]
pub struct Codec {
    names: Vec<Arc<Subject>>,
    indices: HashMap<Arc<Subject>, usize>,
    /// The last gauges of each name.
    last: Vec<Gauges>,
}

/// The number of a gauge that nobody said.
const UNKNOWN: u64 = u64::MAX;

fn to_number(gauge: Option<u64>) -> u64 {
    gauge.unwrap_or(UNKNOWN)
}

fn from_number(number: u64) -> Option<u64> {
    (number != UNKNOWN).then_some(number)
}

/// The parts of the mask of an app; a bit for each gauge follows.
const REQUESTS: u64 = 1;
const ENDS: u64 = 2;
const CRASHES: u64 = 4;
const CPU: u64 = 8;
const GAUGES: u64 = 16;

/// The gauges of a name before it was used.
const BEFORE: Gauges = Gauges {
    in_flight: Some(0),
    waiting: Some(0),
    ready: Some(0),
    wanted: Some(0),
    memory: Some(0),
};

fn each(gauges: &mut Gauges) -> [&mut Option<u64>; 5] {
    let Gauges { in_flight, waiting, ready, wanted, memory } = gauges;
    [in_flight, waiting, ready, wanted, memory]
}

fn of_node(node: &NodeSample) -> [u64; 7] {
    let NodeSample { busy_ms, cpu_ms, memory, memory_total, connections, in_work, accepted } =
        *node;
    let (connections, in_work) = (to_number(connections), to_number(in_work));
    [busy_ms, cpu_ms, memory, memory_total, connections, in_work, accepted]
}

fn to_node(numbers: [u64; 7]) -> NodeSample {
    let [busy_ms, cpu_ms, memory, memory_total, connections, in_work, accepted] = numbers;
    let (connections, in_work) = (from_number(connections), from_number(in_work));
    NodeSample { busy_ms, cpu_ms, memory, memory_total, connections, in_work, accepted }
}

impl Codec {
    /// How many names the file has.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// The record of a tick.
    pub fn encode(&mut self, tick: &Tick) -> Vec<u8> {
        let mut out = vec![0; HEAD];
        put(&mut out, tick.at);
        put(&mut out, tick.covered_ms);
        of_node(&tick.node).into_iter().for_each(|number| put(&mut out, number));
        let new: Vec<_> =
            tick.apps.keys().filter(|name| !self.indices.contains_key(*name)).collect();
        put(&mut out, new.len() as u64);
        for subject in new {
            let text = format!("{}/{}/{}", subject.kind, subject.plugin, subject.app);
            put(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
            self.learn(subject.clone());
        }
        put(&mut out, tick.apps.len() as u64);
        for (subject, sample) in &tick.apps {
            let index = self.indices.get(subject).copied().unwrap_or(0);
            put(&mut out, index as u64);
            put_sample(&mut out, sample, &mut self.last[index]);
        }
        let sum = checksum(&out[HEAD..]);
        let length = (out.len() - HEAD) as u32;
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..HEAD].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The tick at the beginning of these bytes, and how many bytes it has. `None`: there is no
    /// whole record, or not what was written.
    pub fn decode(&mut self, bytes: &[u8]) -> Option<(Tick, usize)> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (length, sum) = (number(0)? as usize, number(4)?);
        if length > RECORD_MAX {
            return None;
        }
        let payload = bytes.get(HEAD..HEAD + length)?;
        if checksum(payload) != sum {
            return None;
        }
        Some((self.read(&mut Reader(payload))?, HEAD + length))
    }

    fn read(&mut self, from: &mut Reader<'_>) -> Option<Tick> {
        let mut tick = Tick { at: from.number()?, covered_ms: from.number()?, ..Tick::default() };
        let mut node = [0; 7];
        for number in &mut node {
            *number = from.number()?;
        }
        tick.node = to_node(node);
        for _ in 0..from.number()? {
            let length = usize::try_from(from.number()?).ok()?;
            let text = std::str::from_utf8(from.take(length)?).ok()?;
            let mut parts = text.splitn(3, '/');
            let subject = Subject::new(parts.next()?, parts.next()?, parts.next()?);
            self.learn(Arc::new(subject));
        }
        for _ in 0..from.number()? {
            let index = usize::try_from(from.number()?).ok()?;
            let subject = self.names.get(index)?.clone();
            tick.apps.insert(subject, read_sample(from, &mut self.last[index])?);
        }
        Some(tick)
    }

    fn learn(&mut self, subject: Arc<Subject>) {
        self.indices.insert(subject.clone(), self.names.len());
        self.names.push(subject);
        self.last.push(BEFORE);
    }
}

fn put_sample(out: &mut Vec<u8>, sample: &Sample, last: &mut Gauges) {
    let mut mask = 0;
    let counters = [(ENDS, sample.ends), (CRASHES, sample.crashes), (CPU, sample.cpu_ms)];
    if sample.requests() > 0 {
        mask |= REQUESTS;
    }
    for (bit, _) in counters.iter().filter(|(_, count)| *count > 0) {
        mask |= bit;
    }
    let mut gauges = sample.gauges;
    let changed: Vec<(usize, u64)> = each(&mut gauges)
        .into_iter()
        .zip(each(last))
        .enumerate()
        .filter(|(_, (now, last))| now != last)
        .map(|(at, (now, _))| (at, to_number(*now)))
        .collect();
    changed.iter().for_each(|(at, _)| mask |= GAUGES << at);
    put(out, mask);
    if mask & REQUESTS > 0 {
        put_all(out, &sample.classes);
        put_all(out, &sample.buckets);
    }
    counters.iter().filter(|(_, count)| *count > 0).for_each(|(_, count)| put(out, *count));
    changed.iter().for_each(|(_, now)| put(out, *now));
    *last = sample.gauges;
}

fn read_sample(from: &mut Reader<'_>, last: &mut Gauges) -> Option<Sample> {
    let mut sample = Sample::default();
    let mask = from.number()?;
    if mask & REQUESTS > 0 {
        from.all(&mut sample.classes)?;
        from.all(&mut sample.buckets)?;
    }
    let Sample { ends, crashes, cpu_ms, .. } = &mut sample;
    for (bit, counter) in [(ENDS, ends), (CRASHES, crashes), (CPU, cpu_ms)] {
        if mask & bit > 0 {
            *counter = from.number()?;
        }
    }
    for (at, gauge) in each(last).into_iter().enumerate() {
        if mask & (GAUGES << at) > 0 {
            *gauge = from_number(from.number()?);
        }
    }
    sample.gauges = *last;
    Some(sample)
}

/// Which numbers are not 0, and these.
fn put_all(out: &mut Vec<u8>, numbers: &[u64]) {
    let there = numbers.iter().enumerate().filter(|(_, number)| **number > 0);
    put(out, there.clone().fold(0, |mask, (at, _)| mask | 1 << at));
    there.for_each(|(_, number)| put(out, *number));
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn all(&mut self, numbers: &mut [u64]) -> Option<()> {
        let mask = self.number()?;
        for (at, number) in numbers.iter_mut().enumerate() {
            if mask & (1 << at) > 0 {
                *number = self.number()?;
            }
        }
        Some(())
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(at: u64, requests: u64) -> Tick {
        let mut sample = Sample { cpu_ms: 3, ..Sample::default() };
        sample.classes[0] = requests;
        sample.buckets[15] = requests;
        sample.gauges = Gauges {
            ready: Some(2),
            wanted: Some(at.min(2)),
            memory: Some(1 << 30),
            ..Gauges::default()
        };
        let idle = Sample { gauges: sample.gauges, ..Sample::default() };
        let connections = Some(at).filter(|at| *at > 1);
        let node =
            NodeSample { busy_ms: u64::MAX, accepted: 5, connections, ..NodeSample::default() };
        let of = |app: &str| Arc::new(Subject::new("app", "shop", app));
        let apps = [(of("web"), sample), (of("with/slash"), idle)];
        Tick { at, covered_ms: 1000, node, apps: apps.into() }
    }

    #[test]
    fn what_is_written_is_read_again_and_an_idle_app_takes_few_bytes() {
        let (mut to, mut from) = (Codec::default(), Codec::default());
        let lengths: Vec<usize> = (1..4)
            .map(|at| {
                let record = to.encode(&tick(at, at * 1000));
                assert_eq!(from.decode(&record), Some((tick(at, at * 1000), record.len())));
                record.len()
            })
            .collect();
        assert!(lengths[0] > lengths[1] + 30 && lengths[2] < 60, "{lengths:?}");
        let mut nothing_new = tick(4, 0);
        let with_both = to.encode(&nothing_new).len();
        nothing_new.apps.pop_last();
        assert_eq!(with_both - to.encode(&nothing_new).len(), 2, "an idle app");
    }

    #[test]
    fn a_record_that_is_torn_or_altered_anywhere_is_not_read() {
        let record = Codec::default().encode(&tick(1, 7));
        for length in 0..record.len() {
            assert_eq!(Codec::default().decode(&record[..length]), None, "{length}");
        }
        for at in 0..record.len() {
            let mut altered = record.clone();
            altered[at] ^= 0x10;
            assert_eq!(Codec::default().decode(&altered), None, "{at}");
        }
    }
}
