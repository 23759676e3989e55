//! The three resolutions. A number is not sent as it came: for each window there are its
//! smallest and its largest value, its mean and its sum, as Telegraf's `basicstats` makes them.

use std::collections::BTreeMap;

use super::point::{Point, Value};

/// The tag of points that are sent as they came.
pub const BYPASS: &str = "bypassbasicstats";
/// The tag that says which window a point is of.
pub const RESOLUTION: &str = "resolution";
/// The highest resolution, which is also that of points that are sent as they came.
pub const FULLRES: &str = "fullres";
/// The resolutions: name, which is also that of the retention policy, and window in seconds.
pub const RESOLUTIONS: [(&str, u64); 3] = [(FULLRES, 10), ("medres", 60), ("lowres", 3600)];

/// The most series of a window; a point of another one is dropped and counted.
const SERIES_MAX: usize = 20_000;

/// The resolution of this name, if there is one.
pub fn known_resolution(name: &str) -> Option<&'static str> {
    RESOLUTIONS.iter().map(|(known, _)| *known).find(|known| *known == name)
}

/// The most fields of a series; others are dropped and counted.
const FIELDS_MAX: usize = 256;

/// The most bytes of the names and tags of a window, and of its fields.
const BYTES_MAX: usize = 32 << 20;
/// What a field takes beside its name, bytes.
const FIELD_BYTES: usize = 96;
/// How far from its window the time of a point may be, seconds.
const GRACE_S: u64 = 10;

/// What a window knows of a field.
#[derive(Debug, Clone, Copy)]
struct Stats {
    min: f64,
    max: f64,
    sum: f64,
    count: u64,
}

#[derive(Debug)]
struct Window {
    resolution: &'static str,
    seconds: u64,
    /// When it ends, seconds since the Unix epoch.
    ends: u64,
    series: BTreeMap<Series, BTreeMap<String, Stats>>,
    /// About the size of `series`.
    bytes: usize,
}

/// Name and tags.
type Series = (String, BTreeMap<String, String>);

impl Window {
    /// A point of this time is of this window, or nearly.
    fn has(&self, at_s: Option<i64>) -> bool {
        let (begins, ends) =
            (self.ends.saturating_sub(self.seconds + GRACE_S), self.ends + GRACE_S);
        at_s.is_none_or(|at| u64::try_from(at).is_ok_and(|at| (begins..=ends).contains(&at)))
    }

    /// The fields of a series; `None` if there is no room for another one. A series that is
    /// known, the usual case, costs no copy of its name and tags.
    fn fields(&mut self, series: &Series) -> Option<&mut BTreeMap<String, Stats>> {
        if !self.series.contains_key(series) {
            let size = size_of(series);
            if self.series.len() >= SERIES_MAX || self.bytes + size > BYTES_MAX {
                return None;
            }
            self.bytes += size;
            self.series.insert(series.clone(), BTreeMap::new());
        }
        self.series.get_mut(series)
    }
}

fn size_of((name, tags): &Series) -> usize {
    name.len() + tags.iter().map(|(name, value)| name.len() + value.len() + 96).sum::<usize>()
}

/// The windows of all resolutions.
#[derive(Debug)]
pub struct BasicStats {
    windows: Vec<Window>,
    /// Points and fields that were dropped because a window had too many of them.
    pub dropped: u64,
    /// Points whose time was of another window. (A point may be too late for one of them, and in
    /// time for a longer one.)
    pub late: u64,
}

impl BasicStats {
    /// Windows that begin now; their ends are those of the wall clock. `now_s`: seconds since the
    /// Unix epoch.
    pub fn new(now_s: u64) -> Self {
        let window = |(resolution, seconds): (&'static str, u64)| Window {
            resolution,
            seconds,
            ends: (now_s / seconds + 1) * seconds,
            series: BTreeMap::new(),
            bytes: 0,
        };
        Self { windows: RESOLUTIONS.into_iter().map(window).collect(), dropped: 0, late: 0 }
    }

    /// Adds a point. One that is sent as it came is returned: with its own resolution if that is
    /// one of ours, since the retention policy of InfluxDB has this name.
    pub fn add(&mut self, mut point: Point) -> Option<Point> {
        let own = point.tags.remove(RESOLUTION);
        if point.tags.contains_key(BYPASS) {
            let resolution = own.and_then(|own| known_resolution(&own));
            return Some(point.tag(RESOLUTION, resolution.unwrap_or(FULLRES)));
        }
        let series = (point.name, point.tags);
        let at_s = point.at_ns.map(|at| at.div_euclid(1_000_000_000));
        for window in &mut self.windows {
            if !window.has(at_s) {
                self.late += 1;
                continue;
            }
            let mut room = BYTES_MAX.saturating_sub(window.bytes);
            let Some(fields) = window.fields(&series) else {
                self.dropped += 1;
                continue;
            };
            let mut added = 0;
            for (name, number) in
                point.fields.iter().filter_map(|(name, value)| Some((name, value.number()?)))
            {
                if !fields.contains_key(name) {
                    let size = name.len() + FIELD_BYTES;
                    if fields.len() >= FIELDS_MAX || size > room {
                        self.dropped += 1;
                        continue;
                    }
                    (room, added) = (room - size, added + size);
                }
                let first = Stats { min: number, max: number, sum: 0.0, count: 0 };
                let stats = fields.entry(name.clone()).or_insert(first);
                stats.min = stats.min.min(number);
                stats.max = stats.max.max(number);
                stats.sum += number;
                stats.count += 1;
            }
            window.bytes += added;
        }
        None
    }

    /// The points of the windows that have ended, or of all if this is the end.
    pub fn take(&mut self, now_s: u64, is_end: bool) -> Vec<Point> {
        let mut points = Vec::new();
        for window in &mut self.windows {
            // An end that is further away than a window is long was set before the clock went back.
            let is_open = now_s < window.ends && window.ends - now_s <= window.seconds;
            if is_open && !is_end {
                continue;
            }
            window.bytes = 0;
            window.ends = (now_s / window.seconds + 1) * window.seconds;
            for ((name, tags), fields) in std::mem::take(&mut window.series) {
                let mut point = Point { tags, ..Point::new(&name) };
                for (field, stats) in fields {
                    let mut put = |end: &str, value: f64| {
                        point.fields.insert(format!("{field}_{end}"), Value::Float(value));
                    };
                    put("min", stats.min);
                    put("max", stats.max);
                    put("mean", stats.sum / stats.count.max(1) as f64);
                    put("sum", stats.sum);
                }
                points.push(point.tag(RESOLUTION, window.resolution));
            }
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value: f64) -> Point {
        let text = Value::Text("left out".into());
        Point::new("m").tag("host", "h").field("v", Value::Float(value)).field("t", text)
    }

    #[test]
    fn a_window_gives_min_max_mean_and_sum_when_it_ends() {
        let mut stats = BasicStats::new(1_000_005);
        for value in [4.0, -2.0, 7.0] {
            assert_eq!(stats.add(point(value)), None);
        }
        assert_eq!(stats.take(1_000_009, false), []);
        let points = stats.take(1_000_010, false);
        let mut out = String::new();
        points.iter().for_each(|point| point.write(&mut out, 1));
        assert_eq!(out, "m,host=h,resolution=fullres v_max=7,v_mean=3,v_min=-2,v_sum=9 1\n");
        // The longer windows have what came meanwhile, too.
        stats.add(point(11.0));
        let points = stats.take(1_000_020, false);
        let of = |resolution: &str| {
            points.iter().find(|point| point.tags[RESOLUTION] == resolution).unwrap()
        };
        assert_eq!(of("fullres").fields["v_sum"], Value::Float(11.0));
        assert_eq!(of("medres").fields["v_sum"], Value::Float(20.0));
        let last = stats.take(1_000_021, true);
        assert_eq!(last.len(), 1, "a role that ends gives what it has: {last:?}");
        assert_eq!(last[0].tags[RESOLUTION], "lowres");
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_windows_and_begins_new_ones() {
        let mut stats = BasicStats::new(1_007_200);
        stats.add(point(1.0));
        let points = stats.take(1_000_000, false);
        assert_eq!(points.len(), 3, "{points:?}");
        stats.add(Point { at_ns: Some(1_000_001_000_000_000), ..point(2.0) });
        assert_eq!((stats.take(1_000_009, false).len(), stats.late), (0, 0));
        assert_eq!(stats.take(1_000_010, false).len(), 1);
    }

    #[test]
    fn a_point_that_bypasses_is_sent_as_it_came() {
        let mut stats = BasicStats::new(0);
        let sent = stats.add(point(1.0).tag(BYPASS, "1")).unwrap();
        assert_eq!(sent, point(1.0).tag(BYPASS, "1").tag(RESOLUTION, "fullres"));
        assert_eq!(stats.take(10, true), []);
        for (own, sent) in [("lowres", "lowres"), ("my&db=x", "fullres"), ("../x", "fullres")] {
            let point = stats.add(point(1.0).tag(BYPASS, "1").tag(RESOLUTION, own)).unwrap();
            assert_eq!(point.tags[RESOLUTION], sent, "{own}");
        }
    }

    #[test]
    fn a_resolution_that_an_app_names_makes_no_series_of_its_own() {
        let mut stats = BasicStats::new(0);
        assert_eq!(stats.add(point(1.0).tag(RESOLUTION, "mine")), None);
        stats.add(point(2.0));
        let points = stats.take(10, false);
        assert_eq!((points.len(), &points[0].fields["v_sum"]), (1, &Value::Float(3.0)));
    }

    #[test]
    fn a_window_is_bounded() {
        let mut stats = BasicStats::new(0);
        for number in 0..SERIES_MAX + 5 {
            stats.add(point(1.0).tag("n", &number.to_string()));
        }
        assert_eq!(stats.take(10, false).len(), SERIES_MAX);
        assert_eq!(stats.dropped, 15);
    }

    #[test]
    fn a_window_is_bounded_in_bytes() {
        let mut stats = BasicStats::new(0);
        let long = "x".repeat(60_000);
        for number in 0..1_000 {
            stats.add(point(1.0).tag("n", &number.to_string()).tag("long", &long));
        }
        let kept = stats.take(10, false).len();
        assert!((300..=BYTES_MAX / 60_000).contains(&kept), "{kept}");
        assert!(stats.dropped >= 3 * (1_000 - kept as u64));
        stats.add(point(1.0));
        assert_eq!(stats.take(20, false).len(), 1, "the next window is empty");
    }

    #[test]
    fn a_point_of_another_time_is_of_no_window() {
        let mut stats = BasicStats::new(1_000_005);
        let at = |seconds: i64| Point { at_ns: Some(seconds * 1_000_000_000), ..point(1.0) };
        for seconds in [999_990, 1_000_000, 1_000_009, 1_000_020] {
            assert_eq!(stats.add(at(seconds)), None);
        }
        assert_eq!(stats.late, 0, "a little late or early");
        stats.add(at(999_989));
        assert_eq!(stats.late, 1, "the longer windows have it");
        stats.add(at(1));
        stats.add(at(-1));
        stats.add(at(2_000_000));
        assert_eq!(stats.late, 10);
        let points = stats.take(1_000_010, false);
        assert_eq!(points[0].fields["v_sum"], Value::Float(4.0));
    }

    #[test]
    fn the_fields_of_a_series_are_bounded() {
        let mut stats = BasicStats::new(0);
        for number in 0..FIELDS_MAX + 5 {
            let field = format!("f{number}");
            stats.add(Point::new("m").field(&field, Value::Integer(1)));
        }
        assert_eq!(stats.take(10, false)[0].fields.len(), 4 * FIELDS_MAX);
        assert_eq!(stats.dropped, 15);
    }
}
