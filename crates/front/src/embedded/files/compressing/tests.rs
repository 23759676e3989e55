use std::io::Read;
use std::path::Path;
use std::time::Duration;

use mfserv_core::route::Symlinks;

use super::super::asset::{Asset, Known};
use super::super::opening::Effort;
use super::kept::{ASKED_WITHIN, BYTES_MAX, STAYS, WAITING_MAX, files_max};
use super::*;

const GZIP: [Coding; 1] = [Coding::Gzip];

/// Bytes of which hardly more than half remain: hexadecimal digits without an order.
fn digits(length: usize, mut state: u32) -> Vec<u8> {
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        b"0123456789abcdef"[(state >> 16) as usize % 16]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn file(dir: &Path, name: &str, content: &[u8]) -> Arc<Representation> {
    std::fs::write(dir.join(name), content).unwrap();
    match Asset::open(dir, name, Symlinks::Follow, Effort::Disk).unwrap() {
        Known::Asset(asset) => asset.plain().clone(),
        other => panic!("{other:?}"),
    }
}

fn plain(dir: &Path, number: usize) -> Arc<Representation> {
    file(dir, &format!("{number}.txt"), "text ".repeat(1000 + number).as_bytes())
}

fn compressor() -> &'static Compressor {
    Box::leak(Box::new(Compressor::new(Box::leak(Box::new(InUse::new())))))
}

/// Waits for the thread.
fn idle(compressor: &Compressor) {
    let end = Instant::now() + Duration::from_secs(60);
    while !lock(&compressor.0).is_idle() {
        assert!(Instant::now() < end, "the thread works for ever");
        std::thread::yield_now();
    }
}

/// Asks for it twice, and then has what was made of it.
fn asked_for(
    compressor: &'static Compressor,
    plain: &Arc<Representation>,
    now: Instant,
) -> Option<Arc<Representation>> {
    for _ in 0..2 {
        if let Some(made) = compressor.compressed(plain, GZIP.into_iter(), now) {
            return Some(made);
        }
    }
    idle(compressor);
    compressor.compressed(plain, GZIP.into_iter(), now)
}

#[test]
fn a_file_is_compressed_when_it_is_asked_for_again_and_its_first_client_waits_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (compressor, now) = (compressor(), Instant::now());
    let (one, rare) = (plain(dir.path(), 1), plain(dir.path(), 2));
    assert!(compressor.compressed(&one, GZIP.into_iter(), now).is_none());
    assert!(lock(&compressor.0).is_idle(), "it was asked for once");
    assert!(compressor.compressed(&one, GZIP.into_iter(), now).is_none());
    idle(compressor);
    assert!(compressor.compressed(&one, GZIP.into_iter(), now).is_some());
    for asking in 0..3 {
        assert!(
            compressor.compressed(&rare, GZIP.into_iter(), now + ASKED_WITHIN * asking).is_none()
        );
        assert!(lock(&compressor.0).is_idle(), "it is asked for rarely");
    }
}

#[test]
fn what_clients_still_have_takes_its_place_until_they_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let in_use = Box::leak(Box::new(InUse::new()));
    let compressor = Box::leak(Box::new(Compressor::new(in_use)));
    let (mut now, length) = (Instant::now(), 500_000);
    // Others have most of it.
    let others = in_use.place(BYTES_MAX - 3 * length);
    let contents = (1..).map(|number| digits(length as usize, number));
    let mut had = Vec::new();
    for (number, content) in contents.enumerate() {
        let one = file(dir.path(), &number.to_string(), &content);
        // All that was made before could be displaced, if nobody had it.
        now += STAYS;
        let Some(made) = asked_for(compressor, &one, now) else { break };
        had.push(made);
        let bytes: u64 = had.iter().map(|made| made.length()).sum();
        assert!(bytes <= 3 * length, "{bytes}");
    }
    assert!((3..6).contains(&had.len()), "{}", had.len());
    let another = file(dir.path(), "another", &digits(length as usize, 1_000_000));
    assert!(asked_for(compressor, &another, now).is_none(), "there is no place");
    had.clear();
    assert!(asked_for(compressor, &another, now + STAYS).is_some());
    drop(others);
}

#[test]
fn more_files_than_there_are_places_do_not_displace_each_other_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let (compressor, now) = (compressor(), Instant::now());
    let all: Vec<_> = (0..files_max() as usize + 9).map(|one| plain(dir.path(), one)).collect();
    let made = |now| all.iter().filter(|one| asked_for(compressor, one, now).is_some()).count();
    for _ in 0..2 {
        assert_eq!(made(now) as u64, files_max());
        assert!(lock(&compressor.0).is_idle());
    }
    assert!(compressor.compressed(&all[0], GZIP.into_iter(), now).is_some());
    assert!(compressor.compressed(all.last().unwrap(), GZIP.into_iter(), now).is_none());
    // What nobody asks for any more makes room.
    let later = now + STAYS;
    assert!(compressor.compressed(&all[0], GZIP.into_iter(), later).is_some());
    assert!(asked_for(compressor, all.last().unwrap(), later).is_some());
    assert!(compressor.compressed(&all[0], GZIP.into_iter(), later).is_some(), "it is in use");
}

#[test]
fn few_files_wait_and_what_is_useless_is_tried_once() {
    let dir = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let mut kept = Kept::new(Box::leak(Box::new(InUse::new())));
    let all: Vec<_> = (0..WAITING_MAX + 9).map(|number| plain(dir.path(), number)).collect();
    for one in all.iter().chain(&all).chain(&all) {
        assert!(kept.find((one, Coding::Gzip), now).is_none());
    }
    assert!(kept.wants_thread() && !kept.wants_thread());
    let mut begun = Vec::new();
    while let Some(job) = kept.next_job() {
        kept.done(job.form(), Ok(Outcome::Useless), now);
        begun.push(job.plain.version());
    }
    let expected: Vec<_> = all[..WAITING_MAX].iter().map(|one| one.version()).collect();
    assert_eq!(begun, expected);
    assert!(
        kept.find((&all[0], Coding::Gzip), now).is_none()
            && kept.find((&all[0], Coding::Gzip), now).is_none()
    );
    assert!(!kept.wants_thread(), "it is known to be useless");
}

#[test]
fn an_error_that_passes_and_a_thread_that_panics_end_nothing_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (compressor, now) = (compressor(), Instant::now());
    let one = plain(dir.path(), 1);
    {
        let mut kept = lock(&compressor.0);
        assert!(
            kept.find((&one, Coding::Gzip), now).is_none()
                && kept.find((&one, Coding::Gzip), now).is_none()
        );
        assert!(kept.wants_thread());
        assert!(kept.next_job().is_some());
        kept.done((one.version(), Coding::Gzip), Err(io::ErrorKind::OutOfMemory.into()), now);
        assert!(kept.next_job().is_none() && kept.is_idle());
        // Another thread takes it, and does not come to an end.
        assert!(
            kept.find((&one, Coding::Gzip), now).is_none()
                && kept.find((&one, Coding::Gzip), now).is_none()
        );
        assert!(kept.wants_thread());
        assert!(kept.next_job().is_some());
    }
    let panicking = std::thread::spawn(|| {
        let _ended = Ended(compressor);
        panic!("for a test");
    });
    assert!(panicking.join().is_err());
    assert!(asked_for(compressor, &one, now).is_some());
}

/// What was compressed, as it was before.
fn unpacked(made: &Representation) -> Vec<u8> {
    let file = File::from(made.file().try_clone().unwrap());
    let mut bytes = vec![0; made.length() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut content = Vec::new();
    match made.coding.unwrap() {
        Coding::Brotli => brotli::BrotliDecompress(&mut &bytes[..], &mut content).unwrap(),
        Coding::Zstd => content = zstd::stream::decode_all(&bytes[..]).unwrap(),
        Coding::Gzip => {
            let mut reader = flate2::read::GzDecoder::new(&bytes[..]);
            reader.read_to_end(&mut content).unwrap();
        }
    }
    content
}

#[test]
fn each_coding_is_made_for_those_who_like_it_most_and_another_one_serves_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (compressor, now) = (compressor(), Instant::now());
    let one = plain(dir.path(), 1);
    let gzip = asked_for(compressor, &one, now).unwrap();
    assert_eq!(gzip.coding, Some(Coding::Gzip));
    let ask = |codings: &'static [Coding]| {
        let codings = codings.iter().copied();
        compressor.compressed(&one, codings, now).and_then(|made| made.coding)
    };
    let browser = &Coding::ALL;
    assert_eq!(ask(browser), Some(Coding::Gzip), "it is there already");
    assert_eq!(ask(&[Coding::Brotli]), None, "and for no other");
    idle(compressor);
    assert_eq!(ask(browser), Some(Coding::Brotli));
    assert_eq!(ask(&[Coding::Zstd, Coding::Gzip]), Some(Coding::Gzip));
    assert_eq!(ask(&[Coding::Zstd]), None, "nobody had asked for zstd before");
    idle(compressor);
    let all = Coding::ALL.map(|one_of| {
        let made = compressor.compressed(&one, [one_of].into_iter(), now).unwrap();
        assert_eq!(made.coding, Some(one_of));
        unpacked(&made)
    });
    assert!(all.iter().all(|content| *content == "text ".repeat(1001).as_bytes()));
}
