use super::*;

fn learn(kinds: &mut Kinds, path: &str, ms: u64) -> Pace {
    let (kind, pace) = kinds.of(Shape::new(b"GET", path.as_bytes()));
    kinds.learn(&kind, Duration::from_millis(ms), true);
    pace
}

fn pace(kinds: &mut Kinds, method: &str, path: &str) -> Pace {
    kinds.of(Shape::new(method.as_bytes(), path.as_bytes())).1
}

fn row<'k>(kinds: &'k Kinds, name: &str) -> &'k Row {
    kinds.rows.iter().find(|row| row.name == name).unwrap()
}

/// The number in letters, which are not taken for a part that varies.
fn slug(number: usize) -> String {
    let digits = number.to_string().into_bytes().into_iter();
    digits.map(|digit| char::from(digit - b'0' + b'a')).collect()
}

/// So many pages of 2 ms, and each 20th request is for `path`.
fn mixed(kinds: &mut Kinds, requests: usize, path: &str, ms: u64) {
    for number in 0..requests {
        match number % 20 {
            19 => learn(kinds, path, ms),
            _ => learn(kinds, &format!("/pages/{number}"), 2),
        };
    }
}

#[test]
fn a_rare_kind_that_takes_far_longer_is_slow_and_forgotten_when_it_does_not() {
    let mut kinds = Kinds::default();
    mixed(&mut kinds, 400, "/report/2025/all", 200);
    assert_eq!(pace(&mut kinds, "GET", "/report/7/all"), Pace::Slow);
    assert_eq!(pace(&mut kinds, "POST", "/report/7/all"), Pace::Ordinary);
    assert_eq!(pace(&mut kinds, "GET", "/pages/1"), Pace::Ordinary);
    assert_eq!(kinds.slow(), ["GET /report/*/all"]);
    mixed(&mut kinds, 2_000, "/report/2025/all", 3);
    assert_eq!(pace(&mut kinds, "GET", "/report/7/all"), Pace::Ordinary);
    assert!(kinds.slow().is_empty());
}

#[test]
fn a_request_that_was_given_up_says_only_that_its_kind_is_slower_than_was_known() {
    let mut kinds = Kinds::default();
    mixed(&mut kinds, 400, "/report", 200);
    let given_up = |kinds: &mut Kinds, times: usize, path: &str, ms: u64| {
        for _ in 0..times {
            let (kind, _) = kinds.of(Shape::new(b"GET", path.as_bytes()));
            kinds.learn(&kind, Duration::from_millis(ms), false);
        }
    };
    // No worker took the connection, or the client has left.
    given_up(&mut kinds, 400, "/report", 0);
    given_up(&mut kinds, 8, "/new", 0);
    mixed(&mut kinds, 64, "/report", 200);
    assert_eq!(kinds.slow(), ["GET /report"], "given up at once");
    learn(&mut kinds, "/new", 300);
    assert_eq!(row(&kinds, "GET /new").usual_us, 300_000.0, "refused before it was known");
    mixed(&mut kinds, 128, "/other", 2);
    assert_eq!(kinds.slow(), ["GET /report"]);
    given_up(&mut kinds, 10, "/other", 5_000);
    mixed(&mut kinds, 128, "/other", 2_000);
    assert_eq!(kinds.slow()[0], "GET /other");
}

#[test]
fn nothing_is_slow_where_all_are_or_many_are_or_the_path_does_not_tell() {
    let mut kinds = Kinds::default();
    for number in 0..1_000 {
        learn(&mut kinds, &format!("/{}", ["a", "b", "c"][number % 3]), 300);
    }
    assert!(kinds.slow().is_empty(), "all");
    let mut kinds = Kinds::default();
    for number in 0..1_000 {
        let (path, ms) = if number % 2 == 0 { ("/health", 1) } else { ("/page", 200) };
        learn(&mut kinds, path, ms);
    }
    assert!(kinds.slow().is_empty(), "half of all");
    let mut kinds = Kinds::default();
    for number in 0..1_000 {
        learn(&mut kinds, "/any", if number % 20 == 0 { 200 } else { 2 });
    }
    assert!(kinds.slow().is_empty(), "the same path");
    let mut kinds = Kinds::default();
    mixed(&mut kinds, 400, "/report", 90);
    assert!(kinds.slow().is_empty(), "90 ms");
}

#[test]
fn any_number_of_paths_leaves_the_table_bounded_and_what_comes_often_known() {
    let mut kinds = Kinds::default();
    for number in 0..20_000 {
        match number % 20 {
            18 => learn(&mut kinds, "/report", 200),
            19 => learn(&mut kinds, &format!("/junk/{}", slug(number)), 1),
            _ => learn(&mut kinds, "/page", 2),
        };
    }
    assert!(kinds.rows.len() <= KINDS_MAX && kinds.by_hash.len() < KINDS_MAX);
    assert_eq!(kinds.slow(), ["GET /report"]);
    let long = "/\u{e9}".repeat(200);
    assert!(Shape::new(b"GET", long.as_bytes()).name().len() <= NAME_MAX);
}

#[test]
fn a_kind_under_way_keeps_its_row_and_no_other_row_learns_of_it() {
    let mut kinds = Kinds::default();
    let (report, _) = kinds.of(Shape::new(b"GET", b"/report"));
    let (gone, _) = kinds.of(Shape::new(b"GET", b"/gone"));
    drop(gone);
    for number in 0..1_000 {
        learn(&mut kinds, &format!("/{}", slug(number)), 1);
    }
    kinds.learn(&report, Duration::from_secs(2), true);
    assert_eq!(row(&kinds, "GET /report").usual_us, 2e6);
    assert!(kinds.rows.iter().all(|row| row.name != "GET /gone"));
    assert_eq!(kinds.rows.iter().filter(|row| row.usual_us > 1e3).count(), 1);
    // The policy had no use for kinds meanwhile: what is known is another table.
    let mut kinds = Kinds::default();
    mixed(&mut kinds, 400, "/page", 2);
    kinds.learn(&report, Duration::from_secs(2), true);
    assert_eq!(kinds.rows.iter().map(|row| row.seen).sum::<u32>(), 400);
}

#[test]
fn a_kind_that_comes_once_in_a_thousand_requests_is_slow_among_any_number_of_paths() {
    let mut kinds = Kinds::default();
    for number in 0..8_000 {
        match number % 1_000 {
            998 if number > 4_000 => assert_eq!(learn(&mut kinds, "/report", 10_000), Pace::Slow),
            998 => _ = learn(&mut kinds, "/report", 10_000),
            at if at % 4 == 0 => _ = learn(&mut kinds, &format!("/wiki/{}", slug(number)), 2),
            _ => _ = learn(&mut kinds, "/page", 2),
        }
    }
}

#[test]
fn slow_kinds_that_come_no_more_give_their_rows_to_others() {
    let mut kinds = Kinds::default();
    for number in 0..2 * KINDS_MAX {
        (0..4).for_each(|_| _ = learn(&mut kinds, &format!("/{}", slug(number)), 1_000));
        (0..60).for_each(|_| _ = learn(&mut kinds, "/page", 2));
    }
    assert!(kinds.slow().len() > KINDS_MAX / 2);
    (0..10).for_each(|_| _ = learn(&mut kinds, "/new", 2));
    assert_eq!(row(&kinds, "GET /new").seen, 10);
}

#[test]
fn one_request_that_hangs_makes_no_kind_slow() {
    let mut kinds = Kinds::default();
    let long = Duration::from_secs(60);
    for number in 0..2_000 {
        learn(&mut kinds, "/page", 2);
        if number % 20 == 0 {
            learn(&mut kinds, "/form", 3);
        }
        // A worker hangs until its time is over.
        if number == 1_000 {
            let (kind, _) = kinds.of(Shape::new(b"GET", b"/form"));
            kinds.learn(&kind, long, false);
        }
        assert!(kinds.slow().is_empty(), "{number}");
    }
}
