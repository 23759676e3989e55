//! When requests come: an exponential clock with a seed, so that every front gets the
//! same ones; and what a perfect queue would make of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// One request to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When, after the beginning.
    pub at: Duration,
    /// What the app takes for it.
    pub service: Duration,
    /// It is one of the fast ones.
    pub fast: bool,
}

/// What requests there are.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// What the app takes for a fast request.
    pub fast: Duration,
    /// What the app takes for a slow one.
    pub slow: Duration,
    /// Which share is slow, 0 to 1.
    pub slow_share: f64,
}

impl Mix {
    /// The mean time that the app takes, seconds.
    pub fn mean_s(&self) -> f64 {
        let share = self.slow_share;
        self.slow.as_secs_f64() * share + self.fast.as_secs_f64() * (1.0 - share)
    }

    /// The requests of `time`, `rate` a second in the mean.
    pub fn arrivals(&self, seed: u64, rate: f64, time: Duration) -> Vec<Arrival> {
        let mut dice = Dice(seed);
        let mut arrivals = Vec::new();
        let mut at = 0.0;
        loop {
            // The time between two arrivals that do not know of each other.
            at += -(1.0 - dice.roll()).ln() / rate;
            if at >= time.as_secs_f64() {
                return arrivals;
            }
            let fast = dice.roll() >= self.slow_share;
            let service = if fast { self.fast } else { self.slow };
            arrivals.push(Arrival { at: Duration::from_secs_f64(at), service, fast });
        }
    }
}

/// The latencies of the fast requests, milliseconds, if each request were given to a
/// worker in order of arrival at the very instant when one is idle, and nothing but the
/// app took time: the best that first come, first served can give. It is arithmetic, not
/// a measurement.
pub fn perfect(arrivals: &[Arrival], workers: usize) -> Vec<f64> {
    let mut free: BinaryHeap<Reverse<Duration>> =
        (0..workers).map(|_| Reverse(Duration::ZERO)).collect();
    let mut latencies = Vec::new();
    for arrival in arrivals {
        let Some(Reverse(idle_since)) = free.pop() else { break };
        let end = idle_since.max(arrival.at) + arrival.service;
        free.push(Reverse(end));
        if arrival.fast {
            latencies.push((end - arrival.at).as_secs_f64() * 1000.0);
        }
    }
    latencies
}

/// Numbers that look like chance and are the same for the same seed (SplitMix64, from
/// the paper of Steele, Lea and Flood).
struct Dice(u64);

impl Dice {
    /// At least 0, less than 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIX: Mix =
        Mix { fast: Duration::from_millis(2), slow: Duration::from_millis(200), slow_share: 0.05 };

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let time = Duration::from_secs(5);
        assert_eq!(MIX.arrivals(7, 200.0, time), MIX.arrivals(7, 200.0, time));
        assert_ne!(MIX.arrivals(7, 200.0, time), MIX.arrivals(8, 200.0, time));
    }

    #[test]
    fn rate_and_mix_are_as_asked_in_the_long_run() {
        let arrivals = MIX.arrivals(1, 200.0, Duration::from_secs(500));
        let count = arrivals.len() as f64;
        assert!((count / 100_000.0 - 1.0).abs() < 0.02, "{count} requests");
        let slow = arrivals.iter().filter(|a| !a.fast).count() as f64;
        assert!((slow / count - 0.05).abs() < 0.005, "{slow} of {count} are slow");
        assert!(arrivals.is_sorted_by_key(|a| a.at));
        assert!((MIX.mean_s() - 0.0119).abs() < 1e-9);
    }

    #[test]
    fn in_a_perfect_queue_a_fast_request_waits_only_while_all_workers_are_busy() {
        let at = |ms: u64, fast: bool| Arrival {
            at: Duration::from_millis(ms),
            service: if fast { MIX.fast } else { MIX.slow },
            fast,
        };
        let arrivals = [at(0, false), at(1, true), at(2, false), at(4, true)];
        let latencies = perfect(&arrivals, 2);
        // The second worker is busy with the first fast one until 3, then until 203.
        assert_eq!(latencies[0].round(), 2.0);
        assert_eq!(latencies[1].round(), 198.0);
    }
}
