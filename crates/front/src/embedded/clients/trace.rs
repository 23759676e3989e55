//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the trace that a request is part of.
//!
//! The front records no spans. It passes the fields of a caller on as they came, and begins a
//! trace for a request that has none, so that all apps behind it see the same one.

use mfserv_h1::{Fields, Name};

use crate::embedded::io::buffer::Buffer;

/// A trace-id: 32 lower-case hexadecimal digits, not all of them 0.
pub type TraceId = [u8; 32];

/// The length of a `traceparent` of version 00, bytes.
const LENGTH: usize = 55;

/// The trace of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// None was looked for or begun: the fields are passed on as they are.
    None,
    /// The caller's.
    Caller(TraceId),
    /// One that begins here.
    Begun {
        /// Its id.
        id: TraceId,
        /// Apps are asked to record it.
        sampled: bool,
    },
}

impl Trace {
    /// The trace that the caller's `traceparent` names, if there is exactly one and it is valid.
    pub fn of_caller(fields: &Fields) -> Self {
        let mut values = fields.values(Name::TraceParent);
        let (Some(value), None) = (values.next(), values.next()) else { return Trace::None };
        // A field of this connection alone is not passed on.
        if fields.is_nominated(b"traceparent") {
            return Trace::None;
        }
        parse(value).map_or(Trace::None, Trace::Caller)
    }

    /// A new trace with this id. Of a hundred, `percent` are to be recorded.
    pub fn begin(id: TraceId, percent: u32) -> Self {
        // The id is random. Its last digits decide.
        let share = id[28..].iter().fold(0, |sum, &digit| sum * 16 + value_of(digit));
        Trace::Begun { id, sampled: share * 100 < percent * 0x1_0000 }
    }

    /// Its id, if there is one.
    pub fn id(&self) -> Option<&TraceId> {
        match self {
            Trace::None => None,
            Trace::Caller(id) | Trace::Begun { id, .. } => Some(id),
        }
    }

    /// Writes `traceparent` for a worker, if the trace began here. The front has no span whose
    /// id could be the parent-id: it is the second half of the trace-id.
    pub fn put(&self, out: &mut Buffer) {
        if let Trace::Begun { id, sampled } = self {
            let flags: &[u8] = if *sampled { b"-01\r\n" } else { b"-00\r\n" };
            out.push_all(&[b"traceparent: 00-", id, b"-", &id[16..], flags]);
        }
    }
}

/// A request id as the id of a trace that begins here, if it can be one.
pub fn as_trace_id(id: &[u8]) -> Option<TraceId> {
    let id = TraceId::try_from(id).ok()?;
    // The second half is the parent-id too, which must not be 0.
    (is_hex(&id) && is_not_zero(&id[16..])).then_some(id)
}

/// The trace-id of a valid `traceparent`: `VERSION-TRACE_ID-PARENT_ID-FLAGS`. What a later
/// version has behind the flags is not looked at.
fn parse(value: &[u8]) -> Option<TraceId> {
    let (known, rest) = value.split_at_checked(LENGTH)?;
    let (version, trace, parent, flags) =
        (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let are_separated = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
    let are_hex = [version, trace, parent, flags].into_iter().all(is_hex);
    let ends_well = rest.is_empty() || (version != b"00" && rest[0] == b'-');
    let is_valid = are_separated && are_hex && ends_well && version != b"ff";
    (is_valid && is_not_zero(trace) && is_not_zero(parent)).then(|| trace.try_into().ok())?
}

fn is_hex(digits: &[u8]) -> bool {
    digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_not_zero(digits: &[u8]) -> bool {
    digits.iter().any(|&digit| digit != b'0')
}

fn value_of(digit: u8) -> u32 {
    char::from(digit).to_digit(16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_of_new_traces_that_are_sampled_is_that_of_the_key() {
        let sampled = |percent| {
            let ids = (0..10_000u32).map(|n| n.wrapping_mul(0x9e37_79b9));
            let traces = ids
                .map(|n| Trace::begin(format!("{n:032x}").as_bytes().try_into().unwrap(), percent));
            traces.filter(|trace| matches!(trace, Trace::Begun { sampled: true, .. })).count()
        };
        assert_eq!((sampled(0), sampled(100)), (0, 10_000));
        let tenth = sampled(10);
        assert!((900..1100).contains(&tenth), "{tenth}");
    }

    #[test]
    fn only_a_request_id_of_32_digits_becomes_a_trace_id() {
        let good = b"0af7651916cd43dd8448eb211c80319c";
        assert_eq!(as_trace_id(good), Some(*good));
        for bad in [
            &b"mine-1"[..],
            b"0AF7651916CD43DD8448EB211C80319C",
            b"0af7651916cd43dd0000000000000000",
            b"0af7651916cd43dd8448eb211c80319cc",
        ] {
            assert_eq!(as_trace_id(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
