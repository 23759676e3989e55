//! Content codings: which compressed copy of a file a client accepts.

/// A coding in which a compressed copy may lie beside a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Brotli.
    Brotli,
    /// Zstandard.
    Zstd,
    /// Gzip.
    Gzip,
}

impl Coding {
    /// All codings. The first one, with the smallest files, wins where a client has no
    /// preference.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// Its name in Content-Encoding.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What the name of a compressed file ends with.
    pub fn ending(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }
}

/// The weight of a coding in an Accept-Encoding, in thousandths (0 = not acceptable), and whether it is
/// named there.
fn preference(accept: &[u8], coding: Coding) -> (u16, bool) {
    let (named, any) = weights(accept, |name| is_named(name, coding));
    (named.or(any).unwrap_or(0), named.is_some())
}

/// The weight that is said for the file as it is; 0 if none is.
fn preference_for_plain(accept: &[u8]) -> u16 {
    weights(accept, |name| name.eq_ignore_ascii_case(b"identity")).0.unwrap_or(0)
}

/// The codings that a client accepts and does not like less than the file as it is: those that it likes
/// most come first. What it does not name (`*`) comes after what it names, and there gzip first: a client
/// that says no more knows that one rather than newer ones.
pub fn acceptable(accept: &[u8]) -> impl Iterator<Item = Coding> + use<> {
    let plain = preference_for_plain(accept);
    let mut weighed = [0, 1, 2].map(|at| {
        let coding = Coding::ALL[at];
        let (weight, is_named) = preference(accept, coding);
        let order = if is_named { at } else { 2 * Coding::ALL.len() - at };
        (weight, order, coding)
    });
    weighed.sort_by_key(|(weight, order, _)| (std::cmp::Reverse(*weight), *order));
    let accepted = weighed.into_iter().filter(move |(weight, ..)| *weight > 0 && *weight >= plain);
    accepted.map(|(.., coding)| coding)
}

/// The weights of a name and of `*`.
fn weights(accept: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> (Option<u16>, Option<u16>) {
    let (mut named, mut any) = (None, None);
    for member in accept.split(|&b| b == b',') {
        let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(1000);
        if is_wanted(name) {
            named.get_or_insert(weight);
        } else if name == b"*" {
            any.get_or_insert(weight);
        }
    }
    (named, any)
}

fn is_named(name: &[u8], coding: Coding) -> bool {
    name.eq_ignore_ascii_case(coding.name().as_bytes())
        || (coding == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
}

/// `q=0.5` as thousandths; what is no number counts as "not at all".
fn weight(part: &[u8]) -> Option<u16> {
    let value = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="))?;
    let Some((whole, rest)) = value.split_first() else { return Some(0) };
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return Some(0),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Some(0);
    }
    let part = digits.iter().chain(b"000").take(3);
    let thousandths = part.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        b'0' => Some(thousandths),
        b'1' => Some(1000),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_preferred_as_accept_encoding_says() {
        for (accept, preferences) in [
            ("", [0, 0, 0]),
            ("gzip", [0, 0, 1000]),
            ("x-gzip", [0, 0, 1000]),
            ("GZIP;q=0.5, br;q=0.25 , zstd; q=1", [250, 1000, 500]),
            ("*", [1000, 1000, 1000]),
            ("*;q=0.1, br;q=0", [0, 100, 100]),
            ("gzip;q=0", [0, 0, 0]),
            ("gzip;q=0.0009", [0, 0, 0]),
            ("gzip;q=x, br;q=-1, zstd;q=", [0, 0, 0]),
            ("identity, gzipped, brr", [0, 0, 0]),
            (",,;q=1,br", [1000, 0, 0]),
        ] {
            let found = Coding::ALL.map(|coding| preference(accept.as_bytes(), coding).0);
            assert_eq!(found, preferences, "{accept}");
        }
    }

    #[test]
    fn of_codings_with_one_weight_brotli_comes_before_zstd_and_that_before_gzip() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accept, codings) in [
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip][..]),
            ("gzip, br;q=0.9, zstd;q=0.95", &[Gzip, Zstd, Brotli]),
            ("*;q=0.5, gzip", &[Gzip, Zstd, Brotli]),
            ("*", &[Gzip, Zstd, Brotli]),
            ("*, br", &[Brotli, Gzip, Zstd]),
            ("gzip;q=0.3, br;q=0.6, identity;q=0.5", &[Brotli]),
            ("br;q=0, identity", &[]),
        ] {
            assert_eq!(Vec::from_iter(acceptable(accept.as_bytes())), codings, "{accept}");
        }
    }

    #[test]
    fn a_file_as_it_is_is_preferred_where_that_is_said() {
        for (accept, weight) in
            [("gzip, identity", 1000), ("identity;q=0.5, *", 500), ("*", 0), ("identity;q=0", 0)]
        {
            assert_eq!(preference_for_plain(accept.as_bytes()), weight, "{accept}");
        }
    }
}
