//! The room for request bodies that are in files: those of apps whose workers take a finite number of
//! requests are received whole.

/// All of them together have so many bytes, …
const ALL: u64 = 8 << 30;
/// … or so many of the node's largest body, which its operator has set: an app alone has half.
const LARGEST: u64 = 8;

/// The most bytes in files of one app, and of all together, if the node lets in bodies of `largest`
/// bytes. What an app lets in changes nothing: it would take the room of others. Without a limit of
/// the node (`u64::MAX`) it is the least there is.
pub fn room_for_bodies(largest: u64) -> (u64, u64) {
    let all = match largest {
        u64::MAX => ALL,
        _ => ALL.max(largest.saturating_mul(LARGEST)),
    };
    (all / 2, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_node_makes_room_and_none_does_not_make_it_endless() {
        for (largest, expected) in [
            (100 << 20, (4 << 30, 8 << 30)),
            (0, (4 << 30, 8 << 30)),
            (2 << 30, (8 << 30, 16 << 30)),
            (u64::MAX, (4 << 30, 8 << 30)),
        ] {
            assert_eq!(room_for_bodies(largest), expected, "{largest}");
        }
    }
}
