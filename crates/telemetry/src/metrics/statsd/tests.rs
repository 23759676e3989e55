use super::super::exposition::{Exposition, Format};
use super::*;

fn lines(datagrams: &[&str]) -> Vec<String> {
    let mut statsd = Statsd::default();
    datagrams.iter().for_each(|datagram| statsd.receive(datagram.as_bytes()));
    let mut out = String::new();
    statsd.take().points().iter().for_each(|point| point.write(&mut out, 1));
    assert!(statsd.take().points().is_empty(), "what was gathered is forgotten");
    out.lines().map(String::from).collect()
}

#[test]
fn counters_gauges_sets_and_timings_become_points() {
    let points = lines(&[
        "request_counter,plugin=shop,type=dynamic:1|c\nrequest_counter,type=dynamic,plugin=shop:2|c",
        "sampled:3|c|@0.1",
        "level:5|g\nlevel:+2|g\nlevel:-3|g",
        "users:a|s\nusers:b|s\nusers:a|s",
        "load.time,app=x:10|ms:20|ms\nload.time,app=x:30|ms|@0.5",
    ]);
    let expected = [
        "request_counter,metric_type=counter,plugin=shop,type=dynamic value=3i 1",
        "sampled,metric_type=counter value=30i 1",
        "level,metric_type=gauge value=4 1",
        "users,metric_type=set value=2i 1",
        "load_time,app=x,metric_type=timing 90_percentile=30,count=4i,lower=10,mean=22.5,\
         stddev=8.29156197588850,sum=90,upper=30 1",
    ];
    for (point, expected) in points.iter().zip(expected) {
        let expected = expected.replace("8.29156197588850", "8.2915619758885");
        assert_eq!(*point, expected);
    }
    assert_eq!(points.len(), expected.len());
}

#[test]
fn prometheus_is_told_of_everything_since_the_start() {
    let shown = Arc::<Mutex<AppSeries>>::default();
    let mut statsd = Statsd::new(shown.clone());
    for datagram in ["a.b,app=x:2|c|@0.5\na.b,app=x:-1|c", "g:5|g\ng:-2|g", "t:500|ms\nh:3|h"] {
        statsd.receive(datagram.as_bytes());
        statsd.receive(b"s:1|s\ns:2|s");
        statsd.take();
    }
    let mut text = Exposition::new(Format::Prometheus);
    lock(&shown).put(&mut text);
    let text = text.finish();
    for sample in [
        "mfserv_app_counted_total{name=\"a_b\",app=\"x\"} 4\n",
        "mfserv_app_value{name=\"g\"} 3\n",
        "mfserv_app_time_seconds_sum{name=\"t\"} 0.5\nmfserv_app_time_seconds_count{name=\"t\"} 1\n",
        "mfserv_app_distribution_sum{name=\"h\"} 3\n",
        "mfserv_app_set_members{name=\"s\"} 2\n",
    ] {
        assert!(text.contains(sample), "{sample} in {text}");
    }
    statsd.take();
    let mut text = Exposition::new(Format::Prometheus);
    lock(&shown).put(&mut text);
    assert!(text.finish().contains("mfserv_app_set_members{name=\"s\"} 0\n"));
}

#[test]
fn what_is_no_metric_is_counted_and_spoils_nothing() {
    let mut statsd = Statsd::default();
    let bad = ["no colon", "a:1", "a:x|c", "a:1|z", ":1|c", "a:nan|g", "a:+1|ms", "a:1e999|ms"];
    for line in bad {
        statsd.receive(line.as_bytes());
    }
    statsd.receive(b"\xff\xfe\n\n");
    statsd.receive(format!("a:{}|s", "x".repeat(MEMBER_MAX + 1)).as_bytes());
    assert_eq!(statsd.bad_lines, bad.len() as u64 + 2);
    assert!(statsd.take().points().is_empty());
}

#[test]
fn series_sets_and_timings_are_bounded() {
    let mut statsd = Statsd::default();
    for number in 0..SERIES_MAX + 100 {
        statsd.receive(format!("hits,path=/{number}:1|c").as_bytes());
        statsd.receive(format!("n{number}:1|c\nset:{number}|s").as_bytes());
        statsd.receive(b"t:1|ms|@0.00000001");
    }
    assert!(statsd.counters.len() <= 2 * SERIES_MAX + 1, "{}", statsd.counters.len());
    assert!(statsd.beyond > 0);
    let counted: i64 = statsd.counters.values().sum();
    assert_eq!(counted, 2 * (SERIES_MAX as i64 + 100), "none is lost");
    let timing = statsd.timings.values().next().unwrap();
    assert_eq!(timing.values.len(), VALUES_MAX);
    assert!(statsd.sets.values().all(|set| set.len() <= MEMBERS_MAX));
}

#[test]
fn sets_and_timings_of_many_series_are_bounded_in_bytes_together() {
    let mut statsd = Statsd::default();
    let member = "m".repeat(200);
    for number in 0..300_000 {
        let series = number % 5_000;
        statsd.receive(format!("s,n={series}:{member}{number}|s").as_bytes());
    }
    let members = |statsd: &Statsd| statsd.sets.values().map(BTreeSet::len).sum::<usize>();
    let kept = members(&statsd);
    assert!(kept * 200 < BYTES_MAX && kept > 100_000, "{kept}");
    assert_eq!(statsd.members, 300_000 - kept as u64);
    // Other metrics are still counted: in the row of the rest.
    for number in 0..2_000 {
        statsd.receive(format!("t{number},tag={number}:{number}|ms\nc{number}:1|c").as_bytes());
    }
    let timings: u64 = statsd.timings.values().map(|timing| timing.count).sum();
    assert_eq!((timings, statsd.counters.values().sum::<i64>()), (2_000, 2_000));
    assert!(statsd.beyond > 3_000 && statsd.timings.len() < 100, "{}", statsd.beyond);
    statsd.take().points();
    statsd.receive(b"s:a|s");
    assert_eq!(members(&statsd), 1, "the next window is empty");
    assert!(statsd.room.0 < BYTES_MAX);
}

#[test]
fn the_rest_has_a_name_that_influxdb_takes_for_no_comment() {
    let mut statsd = Statsd::default();
    for number in 0..2 * SERIES_MAX + 5 {
        statsd.receive(format!("n{number}:1|c").as_bytes());
    }
    let mut rest = statsd.counters.iter().filter(|((name, _), _)| !name.starts_with('n'));
    let ((name, _), count) = rest.next().unwrap();
    assert_eq!((name.as_str(), *count), ("rest", 5));
}
