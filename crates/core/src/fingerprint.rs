//! A short number for a long text: equal texts have equal numbers, in every version
//! and build (which std's hasher does not promise). Not for secrets.

/// FNV-1a, 64 bits.
pub fn of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_published_test_vectors_hold() {
        assert_eq!(super::of(b""), 0xcbf29ce484222325);
        assert_eq!(super::of(b"a"), 0xaf63dc4c8601ec8c);
        assert_eq!(super::of(b"foobar"), 0x85944171f73967e8);
    }
}
