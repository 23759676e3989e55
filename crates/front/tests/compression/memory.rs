//! What compressing files takes of memory, and how many compressed files there may be.

use super::{asked, compressed, compressed_for, digits, made, serving, table_of_files, unpacked};
use crate::files::asking;
use crate::heavy::{alone, memory};
use crate::world::*;

/// The most that one file may take, KiB. With the highest settings that were thought of, the tables of
/// brotli alone have 32 MiB, and those of zstd as much for a file of 3 MB.
const MOST: u64 = 26 * 1024;

#[test]
fn while_a_file_is_compressed_the_front_has_little_more_memory() {
    let _alone = alone();
    let world = World::new();
    let front = serving(&world);
    // What is there once is not counted: the thread, its arena.
    compressed(&front, "/s/page.html");
    // Short enough for a build without optimisation, and long enough for all of the tables.
    let [br, zstd] = [("br", digits(150_000)), ("zstd", digits(20_000).repeat(150))];
    for (coding, content) in [br, zstd] {
        let path = format!("/s/{coding}.txt");
        std::fs::write(world.path("site").join(&path[3..]), &content).unwrap();
        // The peak begins here.
        std::fs::write(format!("/proc/{}/clear_refs", front.pid()), "5").unwrap();
        let (before, _) = memory(&front);
        let answer = compressed_for(&front, &path, coding, coding);
        let (_, peak) = memory(&front);
        assert!(unpacked(&answer) == content);
        assert!(peak - before < MOST, "{coding}: {before} KiB, then {peak}");
    }
}

#[test]
fn files_that_slow_clients_still_have_count_and_their_number_is_bounded() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let Some(world) = World::where_holds("spool_files") else { return };
    let mut front = world.front(1);
    let few = Rlimit { current: Some(1024), maximum: Some(1024) };
    prlimit(Some(Pid::from_child(&front.child)), Resource::Nofile, few).unwrap();
    front.daemon.publish(1, table_of_files(&world), &[]);
    std::fs::create_dir_all(world.path("site")).unwrap();
    let content = digits(1_000_000);
    let all: Vec<String> = (0..9).map(|number| format!("{number}.txt")).collect();
    for name in &all {
        std::fs::write(world.path("site").join(name), &content).unwrap();
    }
    // There are places for 8.
    let mut slow = Vec::new();
    for name in &all[..8] {
        let path = format!("/s/{name}");
        compressed(&front, &path);
        let mut client = Client::connect(front.address);
        client.send(asking(&path, "Accept-Encoding: gzip"));
        assert_eq!(client.read_until(b"Content-Encoding: gzip").len().min(1), 1);
        slow.push(client);
        assert_eq!(made(&front), slow.len());
    }
    // However long that took, all were asked for a moment ago.
    all[..8].iter().for_each(|name| drop(compressed(&front, &format!("/s/{name}"))));
    for _ in 0..3 {
        let plain = asked(&front, &format!("/s/{}", all[8]), "Accept-Encoding: gzip");
        assert!(plain.field("content-encoding").is_empty() && plain.text() == content);
        assert_eq!(made(&front), 8);
    }
}
