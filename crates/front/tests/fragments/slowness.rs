//! Checks of nginx that take long because the machine is busy: nothing is lost for that.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mfserv_core::route::Slots;
use mfserv_core::wire::front::{FromFront, ToFront};
use rustix::process::Signal;

use super::{brings, master, page, said, serves, with_good};
use crate::tls::kit::{Authority, curl, settings, try_curl};
use crate::world::*;

/// A front that serves a good fragment, and from now on slow checks for as long as the file is there.
fn slow_at_last() -> Option<(World, PathBuf, Front)> {
    let (world, slow) = World::with_slow_checks()?;
    fs::remove_file(&slow).unwrap();
    let mut front = world.serving(with_good(), &[]);
    assert_eq!(said(&mut front), "");
    fs::write(&slow, "").unwrap();
    Some((world, slow, front))
}

#[test]
fn a_slow_check_at_the_first_start_costs_neither_tls_nor_the_fragments() {
    let Some((world, slow)) = World::with_slow_checks() else { return };
    let world = world.and_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    let mut table = with_good();
    table.server.tls = Some(settings(&world, "server"));
    let mut front = world.serving(table, &[&worker]);
    assert!(curl(&world, &ca, "localhost", "/a", &[]).ends_with("hello"));
    fs::remove_file(&slow).unwrap();
    assert_eq!(said(&mut front), "");
    assert!(serves(&front, "/good"));
    assert!(try_curl(&world, &ca, "localhost", "/a", &[]).is_ok());
}

#[test]
fn a_node_without_fragments_starts_however_slow_a_check_is() {
    let Some((world, _slow)) = World::with_slow_checks() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    assert_eq!((front.get("/a").text(), said(&mut front)), ("ok".into(), String::new()));
}

#[test]
fn a_slow_check_at_a_handover_takes_no_fragment_from_a_client() {
    let Some((world, slow, mut front)) = slow_at_last() else { return };
    let mut next = world.front(2);
    let table = Box::new(with_good());
    next.daemon.say(&ToFront::Publish { generation: 1, table, peers: Default::default() });
    let is_published = |message: &FromFront| *message == FromFront::Published { generation: 1 };
    let is_early = next.daemon.says(is_published, Duration::from_secs(3));
    assert!(!is_early && master(&next).is_none(), "the front of before has the fragments");
    fs::remove_file(&slow).unwrap();
    next.daemon.wait_for(is_published);
    front.signal(Signal::TERM);
    front.ended();
    assert!(serves(&next, "/good"));
    assert_eq!(said(&mut next), "");
}

/// Longer than a check may take, twice, and the pause before it is tried again: no other wait helps.
#[test]
fn what_a_check_was_too_slow_for_comes_without_being_asked_for_again() {
    let Some((_world, slow, mut front)) = slow_at_last() else { return };
    let mut table = with_good();
    brings(&mut table, "new", "", &page("new"));
    front.daemon.publish(2, table, &[]);
    until("the fragment is left out", || said(&mut front).contains("plugin new: server.conf"));
    assert!(serves(&front, "/good") && !serves(&front, "/new"));
    fs::remove_file(&slow).unwrap();
    until("nginx has it", || said(&mut front).is_empty());
    assert!(serves(&front, "/new"));
}

#[test]
fn a_table_that_a_slow_check_keeps_back_comes_without_being_asked_for_again() {
    let Some((world, slow, mut front)) = slow_at_last() else { return };
    let mut table = with_good();
    table.server.max_body_bytes = 10;
    front.daemon.publish(2, table, &[]);
    until("nginx keeps what it has", || said(&mut front).contains("keeps an older"));
    fs::remove_file(&slow).unwrap();
    until("nginx has it", || said(&mut front).is_empty());
    let shown = fs::read_to_string(world.path("nginx.conf")).unwrap();
    assert!(shown.contains("client_max_body_size 10"), "{shown}");
}
