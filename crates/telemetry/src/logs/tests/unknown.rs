//! What cannot be read, and what an index does not know.

use super::*;

#[test]
fn a_file_that_cannot_be_read_is_named_and_hides_no_line_of_the_others() {
    let home = tempfile::tempdir().unwrap();
    let logs = ["app_p_main.log", "app_q_main.log"].map(|name| home.path().join(name));
    logs.iter().for_each(|log| written(log, 1000));
    let whole = rotated(&logs[0]).unwrap()[1].path.clone();
    let packed = std::fs::read(&whole).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let broken = [&[0x55; 40], &packed[40..]].concat();
    let mut expected = vec![
        bad("app_p_main.log.20261125000000.zst", b""),
        bad("app_p_main.log.20261125000001.zst", b"of another program"),
        bad("app_p_main.log.20261125000002.zst", &packed[..packed.len() - 1]),
        bad("app_p_main.log.20261125000003.zst", &broken),
        home.path().join("app_p_main.log.20261125000004"),
    ];
    std::fs::create_dir(&expected[4]).unwrap();
    expected.sort();
    let text = |pattern| Selection { pattern: Pattern::new(pattern).ok(), ..Selection::default() };
    let since = Selection { since_ms: Some(START_MS), ..Selection::default() };
    for selection in [&Selection::default(), &since, &text("line")] {
        for order in [Order::OldestFirst(None), Order::OldestFirst(Some(5000))] {
            let mut count = 0;
            let searched = search(&logs, selection, order, &mut |_| {
                count += 1;
                true
            });
            let searched = searched.unwrap();
            assert_eq!((count, searched.count), (2000, 2000));
            let mut unread: Vec<_> = searched.unread.into_iter().map(|it| it.path).collect();
            unread.sort();
            assert_eq!(unread, expected);
        }
    }
    let access_log = home.path().join("nginx_access.log");
    std::fs::write(&access_log, "{ \"duration\": 0.1, \"request_id\": \"id1\" }\n").unwrap();
    let bad = bad("nginx_access.log.20261125000000.zst", b"");
    for (id, is_there) in [("id1", true), ("id2", false)] {
        let mut unread = Vec::new();
        let found = find_request(&access_log, id, &mut unread).unwrap();
        assert_eq!(found.is_some(), is_there);
        // A request that is found is looked for no further.
        let unread: Vec<_> = unread.into_iter().map(|it| it.path).collect();
        assert!(is_there || unread == [bad.clone()], "{unread:?}");
    }
}

#[test]
fn a_request_is_found_although_the_index_was_begun_after_its_line() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nginx_access.log");
    for n in 0..4 {
        let kind = MarkKind::Request(request_hash(format!("id{n}").as_bytes()));
        let mark = Mark { at: 0, source: &source("app.p.main.1.1", ""), kind };
        let line = format!("{{ \"duration\": 0.001, \"request_id\": \"id{n}\" }}\n");
        LogFile::new(&path, rotation(0)).append_marked(line.as_bytes(), &[mark]).unwrap();
        if n == 1 {
            std::fs::remove_file(mfserv_logfile::index_path(&path)).unwrap();
        }
    }
    let workers = [0, 1, 2, 3].map(|n| request(&path, &format!("id{n}")).unwrap().worker);
    let known = Some("app.p.main.1.1".to_owned());
    assert_eq!(workers, [None, None, known.clone(), known]);
    assert_eq!(request(&path, "id4"), None);
}

#[test]
fn lines_of_which_the_index_knows_nothing_are_found_by_their_own_times() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let mut log = LogFile::new(&path, rotation(0));
    let workers = [source("app.p.main.1.1", "1"), source("app.p.main.2.2", "1")];
    // So short lines of two writers in turn are not all in the index.
    for n in 0..8000 {
        let kind = MarkKind::Output(START_MS + n * 1000);
        let mark = Mark { at: 0, source: &workers[n as usize % 2], kind };
        log.append_marked(format!("{n}\n").as_bytes(), &[mark]).unwrap();
    }
    let at = jiff::Timestamp::from_millisecond((START_MS + 9_000_000) as i64).unwrap();
    let kind = MarkKind::Output(START_MS + 9_000_000);
    let mark = Mark { at: 0, source: &workers[0], kind };
    log.append_marked(format!("{at} the last\n").as_bytes(), &[mark]).unwrap();
    let since = START_MS + 8_500_000;
    let selection = Selection { since_ms: Some(since), ..Selection::default() };
    let found = lines(&[path], &selection, Order::OldestFirst(None));
    assert!(found.last().is_some_and(|line| line.ends_with("the last")), "{found:?}");
}
