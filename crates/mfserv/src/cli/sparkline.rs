//! Numbers as a line of small bars.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The numbers in at most this many columns: the highest bar is the largest of them, a blank is an
/// unknown number. Where there are more numbers than columns, each bar is the largest of some.
pub fn sparkline(values: &[Option<f64>], columns: usize) -> String {
    let width = values.len().div_ceil(columns.max(1)).max(1);
    // The last column is as full as the others: the newest numbers are looked at most.
    let bars =
        values.rchunks(width).rev().map(|some| some.iter().flatten().copied().reduce(f64::max));
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: Option<f64>| match value {
        None => ' ',
        Some(value) if most <= 0.0 || value <= 0.0 => BARS[0],
        Some(value) => BARS[((value / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    bars.map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_is_the_highest_bar_and_an_unknown_one_a_gap() {
        let values = [Some(0.0), Some(1.0), None, Some(4.0), Some(8.0)];
        assert_eq!(sparkline(&values, 10), "▁▁ ▄█");
        assert_eq!(sparkline(&[Some(0.0), Some(0.0)], 10), "▁▁");
        assert_eq!(sparkline(&[], 10), "");
    }

    #[test]
    fn a_peak_is_seen_however_few_columns_there_are() {
        let mut values = vec![Some(1.0); 1_000];
        values[501] = Some(100.0);
        let line = sparkline(&values, 10);
        assert_eq!((line.chars().count(), line.matches('█').count()), (10, 1));
    }
}
