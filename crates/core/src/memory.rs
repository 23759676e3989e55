//! Limits of the memory of a process with all that it has started, and how they are enforced.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The smallest limit, bytes: no interpreter starts in less.
pub const SMALLEST_LIMIT: u64 = 16 * MIB;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// Limits of anonymous and shared memory, bytes; 0 = none. Page cache does not count: the kernel
/// takes it back when it needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryLimits {
    /// Above this the processes are killed.
    pub limit: u64,
    /// Above this a worker is replaced: the new one starts first, the old one is drained.
    pub high: u64,
}

impl MemoryLimits {
    /// There is no limit.
    pub fn is_none(&self) -> bool {
        *self == MemoryLimits::default()
    }
}

/// What enforces a hard limit. The first that the system offers is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// The kernel, by the memory controller of cgroup v2.
    CgroupV2,
    /// The kernel, by the memory controller of cgroup v1.
    CgroupV1,
    /// The daemon, which measures the processes and kills them.
    Sampling,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mechanism::CgroupV2 => "cgroup v2",
            Mechanism::CgroupV1 => "cgroup v1",
            Mechanism::Sampling => "sampling",
        })
    }
}

/// How the memory of one process, with all that it has started, is limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryControl {
    /// The limits.
    pub limits: MemoryLimits,
    /// What enforces them.
    pub mechanism: Mechanism,
    /// The cgroup, unless the mechanism is sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// Why no better mechanism is used; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why_not_better: String,
}

impl MemoryControl {
    /// The processes are measured.
    pub fn sampling(limits: MemoryLimits, why_not_better: impl Into<String>) -> Self {
        let why_not_better = why_not_better.into();
        MemoryControl { limits, mechanism: Mechanism::Sampling, cgroup: None, why_not_better }
    }
}

/// Why the kernel has killed a process for its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfMemory {
    /// It was at its limit.
    Limit,
    /// The machine had no memory left, or a cgroup around the node was at its limit.
    Machine,
}

/// An amount of memory as a configuration writes it, bytes: a whole or a decimal number, with K,
/// M, G or T for powers of 1024 (also KB and KiB, in any case). `None` if it is not one.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => GIB,
        "t" | "tb" | "tib" => TIB,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).filter(|bytes| *bytes <= i64::MAX as u64);
    }
    let has_digits = |part: &str| !part.is_empty();
    let (whole, part) = number.split_once('.').filter(|(a, b)| has_digits(a) && has_digits(b))?;
    let fraction: f64 = format!("0.{part}").parse().ok()?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let bytes = whole.checked_add((fraction * unit as f64) as u64)?;
    (bytes <= i64::MAX as u64).then_some(bytes)
}

/// An amount of memory for people: `512 MiB`, `1.5 GiB`.
pub fn size_text(bytes: u64) -> String {
    let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = (bytes as f64 / unit as f64 * 10.0).round() as u64;
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        rest => format!("{}.{rest} {name}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_or_without_a_unit_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", MIB),
            ("512M", 512 * MIB),
            ("512 MiB", 512 * MIB),
            ("512mb", 512 * MIB),
            (" 1.5G ", GIB + GIB / 2),
            ("64k", 64 * KIB),
            ("2T", 2 * TIB),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text:?}");
        }
        for text in ["", "M", "-1", "1.5.2G", ".5G", "1.G", "512X", "50%", "1 0", "99999999999G"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_with_one_digit_if_needed() {
        for (bytes, text) in [
            (512 * MIB, "512 MiB"),
            (GIB + GIB / 2, "1.5 GiB"),
            (100_000_000, "95.4 MiB"),
            (1023, "1023 bytes"),
            (2 * KIB, "2 KiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
