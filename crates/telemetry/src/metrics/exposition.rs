//! The text formats of Prometheus: the classic one (0.0.4) and OpenMetrics 1.0, which has
//! exemplars.

use std::collections::BTreeMap;
use std::fmt::Write;

use mfserv_core::wire::metrics::{BOUNDS_US, Exemplar, Histogram};

use super::names::{Family, Kind};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The one that a client wants, by its `Accept`.
    pub fn accepted(accept: &[u8]) -> Self {
        let wanted = b"application/openmetrics-text";
        match accept.windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted)) {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A text that is being written, family by family.
pub struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// An empty text.
    pub fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(16 * 1024) }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Begins a family. Its samples follow, before the next one begins.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        // In OpenMetrics a counter is named without the end of its samples.
        let end = match (self.format, family.kind) {
            (Format::Prometheus, Kind::Counter) => "_total",
            _ => "",
        };
        let Family { name, kind, help, .. } = family;
        // Writing to a String never fails.
        let _ =
            write!(self.text, "# HELP {name}{end} {help}\n# TYPE {name}{end} {}\n", kind.as_str());
        Samples { format: self.format, text: &mut self.text, family }
    }
}

/// The samples of a family.
pub struct Samples<'a> {
    format: Format,
    text: &'a mut String,
    family: &'static Family,
}

impl Samples<'_> {
    /// Writes a sample of a counter or a gauge; `values` are those of the labels of the family,
    /// in their order.
    pub fn put(&mut self, values: &[&str], value: f64) {
        self.put_labelled(values, &BTreeMap::new(), value);
    }

    /// The same with further labels, which the family does not know.
    pub fn put_labelled(&mut self, values: &[&str], more: &BTreeMap<String, String>, value: f64) {
        let end = if self.family.kind == Kind::Counter { "_total" } else { "" };
        self.name(end, values, pairs(more));
        let _ = writeln!(self.text, " {value}");
    }

    /// Writes the samples of a summary: the sum of its values, and how many there were.
    pub fn put_summary(
        &mut self,
        values: &[&str],
        more: &BTreeMap<String, String>,
        (sum, count): (f64, u64),
    ) {
        self.name("_sum", values, pairs(more));
        let _ = writeln!(self.text, " {sum}");
        self.name("_count", values, pairs(more));
        let _ = writeln!(self.text, " {count}");
    }

    /// Writes the samples of a histogram.
    pub fn put_histogram(
        &mut self,
        values: &[&str],
        histogram: &Histogram,
        exemplars: &[Exemplar],
    ) {
        let mut count = 0;
        for (bucket, durations) in histogram.buckets.iter().enumerate() {
            count += durations;
            let bound = BOUNDS_US.get(bucket).map(|us| seconds(*us));
            let bound = match bound {
                None => "+Inf".into(),
                Some(s) if self.format == Format::OpenMetrics => format!("{s:?}"),
                Some(s) => s.to_string(),
            };
            self.name("_bucket", values, Some(("le", &*bound)).into_iter());
            let _ = write!(self.text, " {count}");
            let of_bucket = |exemplar: &&Exemplar| usize::from(exemplar.bucket) == bucket;
            if let Some(one) = exemplars.iter().find(of_bucket).filter(|_| *durations > 0) {
                self.put_exemplar(one);
            }
            self.text.push('\n');
        }
        self.name("_sum", values, std::iter::empty());
        let _ = writeln!(self.text, " {}", seconds(histogram.sum_us));
        self.name("_count", values, std::iter::empty());
        let _ = writeln!(self.text, " {count}");
    }

    fn put_exemplar(&mut self, exemplar: &Exemplar) {
        if self.format == Format::OpenMetrics {
            self.text.push_str(" # {request_id=\"");
            escape(self.text, &exemplar.id);
            let _ = write!(self.text, "\"}} {}", seconds(exemplar.us));
        }
    }

    fn name<'a>(
        &mut self,
        end: &str,
        values: &[&str],
        more: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        self.text.push_str(self.family.name);
        self.text.push_str(end);
        let labels = self.family.labels.iter().copied().zip(values.iter().copied());
        let mut before = '{';
        let mut put = |label: &str, value: &str| {
            self.text.push(before);
            let _ = write!(self.text, "{label}=\"");
            escape(self.text, value);
            self.text.push('"');
            before = ',';
        };
        labels.for_each(|(label, value)| put(label, value));
        more.for_each(|(label, value)| put(label, value));
        if before == ',' {
            self.text.push('}');
        }
    }
}

fn pairs(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(label, value)| (label.as_str(), value.as_str()))
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Appends the inside of a label value.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::names::{DURATION, PLUGIN_INFO, REQUESTS};

    fn sample(format: Format) -> String {
        let mut text = Exposition::new(format);
        text.family(&REQUESTS).put(&["shop", "web", "dynamic", "200"], 3.0);
        text.family(&PLUGIN_INFO).put(&["a\"b\\c\nd", "1", "active"], 1.0);
        let mut histogram = Histogram::default();
        histogram.observe(700);
        histogram.observe(1_500_000);
        let exemplar = Exemplar { bucket: 0, id: "cafe".into(), us: 700 };
        let of = ["shop", "web", "dynamic"];
        text.family(&DURATION).put_histogram(&of, &histogram, &[exemplar]);
        text.finish()
    }

    #[test]
    fn a_counter_ends_in_total_and_label_values_are_escaped() {
        let text = sample(Format::Prometheus);
        assert!(text.contains("# TYPE mfserv_http_requests_total counter\n"), "{text}");
        let line = "mfserv_http_requests_total{plugin=\"shop\",app=\"web\",type=\"dynamic\",\
                    code=\"200\"} 3\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains(r#"{plugin="a\"b\\c\nd",version="1",state="active"} 1"#), "{text}");
    }

    #[test]
    fn the_buckets_of_a_histogram_are_cumulative() {
        let text = sample(Format::Prometheus);
        let labels = r#"{plugin="shop",app="web",type="dynamic""#;
        for (end, value) in [
            (",le=\"0.001\"}", "1"),
            (",le=\"1\"}", "1"),
            (",le=\"2.5\"}", "2"),
            (",le=\"+Inf\"}", "2"),
        ] {
            let line =
                format!("mfserv_http_request_duration_seconds_bucket{labels}{end} {value}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.contains(&format!("_sum{labels}}} 1.5007\n")), "{text}");
        assert!(!text.contains("cafe"), "the classic format has no exemplars: {text}");
    }

    #[test]
    fn openmetrics_has_exemplars_and_an_end() {
        let text = sample(Format::OpenMetrics);
        assert!(text.contains("# TYPE mfserv_http_requests counter\n"), "{text}");
        assert!(text.contains(",le=\"0.001\"} 1 # {request_id=\"cafe\"} 0.0007\n"), "{text}");
        assert!(text.contains(",le=\"1.0\"} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_client_gets_the_format_that_it_accepts() {
        let openmetrics = b"application/OpenMetrics-Text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(Format::accepted(openmetrics), Format::OpenMetrics);
        assert_eq!(Format::accepted(b"text/plain"), Format::Prometheus);
        assert_eq!(Format::accepted(b""), Format::Prometheus);
    }
}
