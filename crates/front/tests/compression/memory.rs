//! What compressing a file takes of memory.

use super::{compressed, compressed_for, digits, serving, unpacked};
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
