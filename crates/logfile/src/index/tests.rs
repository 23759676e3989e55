use super::*;

fn source(worker: &str) -> Source {
    Source { worker: worker.into(), stream: "both".into(), release: "3".into() }
}

fn write(log: &Path, size: u64, notes: &[(&str, u64, u64)]) {
    let mut index = IndexWriter::open(log, 7, size, None).unwrap();
    for (worker, at_ms, offset) in notes {
        index.note(
            &Mark { at: 0, source: &source(worker), kind: MarkKind::Output(*at_ms) },
            *offset,
        );
    }
    index.flush().unwrap();
}

fn whose(log: &Path, offset: u64) -> Option<String> {
    let index = Index::read(log, Some(7)).unwrap();
    let chunk = index.chunk_at(offset)?;
    chunk.source.map(|place| index.sources[place].worker.clone())
}

#[test]
fn each_byte_has_its_source_also_after_another_writer_has_numbered_them_again() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("a.log");
    let long = "app.a-plugin-with-a-long-name.main.1.12";
    write(&log, 0, &[("one", 1000, 0), (long, 1001, 50), ("one", 1002, 60)]);
    write(&log, 80, &[(long, 1003, 80), ("one", 1003, 90)]);
    let found: Vec<_> = [0, 49, 50, 60, 79, 80, 95].map(|at| whose(&log, at)).into();
    let expected = ["one", "one", long, "one", "one", long, "one"];
    assert_eq!(found, expected.map(|worker| Some(worker.to_owned())));
    assert_eq!(Index::read(&log, Some(8)), None, "the index of another file");
}

#[test]
fn each_millisecond_has_a_block_and_only_a_tenth_of_a_second_in_an_index_that_is_large_already() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("a.log");
    // Two chunks a millisecond, of 10 bytes each.
    let notes: Vec<_> = (0..40_000).map(|n| ("one", 5000 + n / 2, n * 10)).collect();
    write(&log, 0, &notes);
    let chunks = Index::read(&log, None).unwrap().chunks;
    let exact = chunks.iter().filter(|chunk| chunk.is_exact).count() as u64;
    let size = chunks.len() as u64 * BLOCK as u64;
    assert!((30_000..=400_000 / 4 + 32 * 1024).contains(&size), "{size}");
    assert!(chunks[..1000].iter().all(|chunk| chunk.is_exact), "{exact} of {}", chunks.len());
    let spans = chunks.windows(2).map(|two| (two[0].is_exact, two[1].at_ms - two[0].at_ms));
    let spans: Vec<_> = spans.collect();
    assert!(spans.iter().all(|(is_exact, span)| *span == if *is_exact { 1 } else { 100 }));
    assert!(spans.iter().any(|(is_exact, _)| !is_exact));
}

#[test]
fn a_torn_block_is_left_out_and_the_next_writer_goes_on_behind_the_whole_ones() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("a.log");
    write(&log, 0, &[("one", 1, 0), ("two", 2, 10)]);
    let path = index_path(&log);
    let whole = fs::read(&path).unwrap();
    for cut in 1..BLOCK {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(whose(&log, 15).as_deref(), Some("one"), "{cut} bytes are missing");
        write(&log, 20, &[("two", 3, 20)]);
        assert_eq!(whose(&log, 25).as_deref(), Some("two"));
    }
    fs::write(&path, [whole.as_slice(), &[0; 64], b"garbage"].concat()).unwrap();
    assert_eq!(whose(&log, 15).as_deref(), Some("two"));
}

#[test]
fn bytes_that_were_there_before_the_index_are_of_nobody() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("a.log");
    write(&log, 100, &[("one", 1, 100)]);
    assert_eq!((whose(&log, 50), whose(&log, 100)), (None, Some("one".into())));
}

#[test]
fn a_truncated_file_forgets_what_was_there_and_a_chunk_that_was_never_written_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("a.log");
    write(&log, 0, &[("one", 1, 0), ("two", 2, 500), ("one", 3, 0), ("three", 4, 0)]);
    assert_eq!(whose(&log, 600).as_deref(), Some("three"));
}

#[test]
fn the_index_stays_smaller_than_its_file_and_says_nothing_false() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("a.log");
    let notes: Vec<_> = (0..200_000).map(|n| (["one", "two"][n as usize % 2], n, n)).collect();
    write(&log, 0, &notes);
    let size = fs::metadata(index_path(&log)).unwrap().len();
    assert!(size < 200_000 + 64 * 1024, "{size}");
    let index = Index::read(&log, None).unwrap();
    let mut of_nobody = index.chunks.iter().filter(|chunk| chunk.source.is_none()).peekable();
    assert!(of_nobody.peek().is_some());
    assert!(of_nobody.all(|chunk| chunk.at_ms == 0), "their lines may be of any time");
    let wrong = |offset: &u64| {
        let source = index.chunk_at(*offset).unwrap().source;
        source.is_some_and(|place| place as u64 != offset % 2)
    };
    assert_eq!((0..200_000).find(wrong), None);
}

#[test]
fn the_line_of_a_request_is_found_with_the_worker_that_served_it() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("access.log");
    let workers = ["app.p.a.1.1", "app.p.a.2.2", ""].map(source);
    for round in 0..2 {
        let mut index = IndexWriter::open(&log, 7, round * 3000, None).unwrap();
        for n in (0..30).rev().map(|n| n + round * 30) {
            let kind = MarkKind::Request(request_hash(format!("id{n}").as_bytes()));
            let at = round * 3000 + n * 100;
            index.note(&Mark { at: 0, source: &workers[n as usize % 3], kind }, at);
        }
        index.flush().unwrap();
    }
    let found = |id: &str| -> Vec<_> {
        let requests = Index::requests(&log, request_hash(id.as_bytes())).unwrap();
        requests.map(|found| (found.offset, found.worker, found.served)).collect()
    };
    assert_eq!(found("id7"), [(700, workers[1].clone(), None)]);
    assert_eq!(found("id59"), [(8900, workers[2].clone(), None)]);
    assert_eq!(found("id60"), []);
}

#[test]
fn an_access_log_says_when_a_worker_had_a_request_and_when_it_got_the_next_one() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("access.log");
    let workers = ["app.p.a.1.1", "app.p.a.2.2"].map(source);
    let served = |n: u64| {
        let from_ms = 1_700_000_000_000 + n * 10;
        Served { from_ms, to_ms: from_ms + 12, end_ms: from_ms + 15 }
    };
    for round in 0..2 {
        let mut index = IndexWriter::open(&log, 7, round * 300, None).unwrap();
        for n in (0..30).map(|n| n + round * 30) {
            let kind = MarkKind::Served(request_hash(&n.to_le_bytes()), served(n));
            index.note(&Mark { at: 0, source: &workers[n as usize % 2], kind }, n * 10);
        }
        index.flush().unwrap();
    }
    let found = |n: u64| {
        let mut all = Index::requests(&log, request_hash(&n.to_le_bytes())).unwrap();
        all.next().unwrap()
    };
    for n in [0, 7, 40] {
        let next_ms = Some(served(n + 2).from_ms);
        let worker = workers[n as usize % 2].clone();
        let expected = RequestAt { offset: n * 10, worker, served: Some(served(n)), next_ms };
        assert_eq!(found(n), expected);
    }
    assert_eq!(found(59).next_ms, None);
    let index = Index::read_requests(&log, Some(7)).unwrap();
    let of = |chunk: &Chunk| (chunk.offset, chunk.at_ms, chunk.source);
    let expected = |n: u64| (n * 10, served(n).end_ms, Some(n as usize % 2));
    assert_eq!(index.chunks[1..].iter().map(of).collect::<Vec<_>>()[..3], [1, 2, 3].map(expected));
    assert_eq!(Index::read(&log, Some(7)).unwrap().chunks, [], "they are no output");
    let longest = Served { from_ms: 5, to_ms: 5 + (1 << 40), end_ms: 1 << 50 };
    let to_ms = 5 + u64::from(u32::MAX);
    let stored = Served { from_ms: 5, to_ms, end_ms: to_ms + u64::from(u16::MAX) };
    assert_eq!(Served::of_block(&longest.block(3), &[3, 0]), Some(stored));
}

#[test]
fn a_request_is_found_in_an_index_of_many_pieces_and_the_newest_of_several_comes_first() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("access.log");
    let worker = source("app.p.a.1.1");
    let mut index = IndexWriter::open(&log, 7, 0, None).unwrap();
    // More than two pieces of 256 KiB; the source is named at the begin only.
    for n in 0..40_000 {
        let kind = MarkKind::Request(request_hash(&u64::to_le_bytes(n % 39_990)));
        index.note(&Mark { at: 0, source: &worker, kind }, n * 100);
    }
    index.flush().unwrap();
    let found = |n: u64| -> Vec<_> {
        let requests = Index::requests(&log, request_hash(&n.to_le_bytes())).unwrap();
        requests.map(|found| (found.offset, found.worker.worker)).collect()
    };
    let name = || "app.p.a.1.1".to_owned();
    assert_eq!(found(5), [(3_999_500, name()), (500, name())]);
    assert_eq!(found(20_000), [(2_000_000, name())]);
    assert_eq!(found(39_999), []);
}

#[test]
fn the_checksum_is_the_one_that_files_have() {
    // `sum = sum * 31 + byte`, over all bytes but the second, from 0x5a on.
    let sum = |block: &[u8; BLOCK]| {
        let others = block.iter().enumerate().filter(|(at, _)| *at != 1);
        others.fold(0x5a_u8, |sum, (_, byte)| sum.wrapping_mul(31).wrapping_add(*byte))
    };
    for seed in 0..200_u8 {
        let block: [u8; BLOCK] =
            std::array::from_fn(|at| seed.wrapping_mul(at as u8 * 7).rotate_left(3));
        assert_eq!(checksum(&block), sum(&block), "{block:?}");
    }
}

#[test]
fn a_reader_of_a_growing_log_knows_who_has_written_each_byte_also_after_it_was_renamed() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("a.log");
    write(&log, 0, &[("old", 1, 0), ("old", 500, 900), ("one", 1000, 0), ("two", 1200, 50)]);
    assert!(Origins::open(&log, 8).is_none(), "the index of another file");
    let mut origins = Origins::open(&log, 7).unwrap();
    let of = |origins: &mut Origins, offset| {
        let origin = origins.at(offset);
        (origin.source.map(|source| source.worker.clone()), origin.at_ms)
    };
    assert_eq!(of(&mut origins, 0), (Some("one".into()), 1000), "those before are truncated");
    assert_eq!(of(&mut origins, 49), (Some("one".into()), 1000));
    assert_eq!(of(&mut origins, 60), (Some("two".into()), 1200));
    write(&log, 80, &[("three", 2000, 80)]);
    follow_rename(&log, &home.path().join("b.log"));
    assert_eq!(of(&mut origins, 70), (Some("two".into()), 1200));
    assert_eq!(of(&mut origins, 80), (Some("three".into()), 2000));
    write(&log, 0, &[("of another file", 1, 0)]);
    assert_eq!(of(&mut origins, 99), (Some("three".into()), 2000));
}
