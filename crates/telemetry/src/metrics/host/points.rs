//! The points of a machine, as Telegraf's inputs name them.

use std::collections::BTreeMap;

use super::super::point::{Point, Value};
use super::{Disk, FileSystem, Interface, MODES, Sample};

/// Fields of `mem` that are in `/proc/meminfo` as they are.
const MEMORY: [(&str, &str); 28] = [
    ("active", "Active"),
    ("buffered", "Buffers"),
    ("commit_limit", "CommitLimit"),
    ("committed_as", "Committed_AS"),
    ("dirty", "Dirty"),
    ("free", "MemFree"),
    ("high_free", "HighFree"),
    ("high_total", "HighTotal"),
    ("huge_page_size", "Hugepagesize"),
    ("huge_pages_free", "HugePages_Free"),
    ("huge_pages_total", "HugePages_Total"),
    ("inactive", "Inactive"),
    ("low_free", "LowFree"),
    ("low_total", "LowTotal"),
    ("mapped", "Mapped"),
    ("page_tables", "PageTables"),
    ("shared", "Shmem"),
    ("slab", "Slab"),
    ("sreclaimable", "SReclaimable"),
    ("sunreclaim", "SUnreclaim"),
    ("swap_cached", "SwapCached"),
    ("swap_free", "SwapFree"),
    ("swap_total", "SwapTotal"),
    ("vmalloc_chunk", "VmallocChunk"),
    ("vmalloc_total", "VmallocTotal"),
    ("vmalloc_used", "VmallocUsed"),
    ("write_back", "Writeback"),
    ("write_back_tmp", "WritebackTmp"),
];

/// The size of the pages that `swap` counts, for Telegraf on any machine.
pub(super) const SWAP_PAGE: u64 = 4096;

/// States of processes, and their letters in ps(1).
pub(super) const STATES: [(&str, &str); 9] = [
    ("running", "R"),
    ("sleeping", "S"),
    ("blocked", "D"),
    ("zombies", "Z"),
    ("dead", "X"),
    ("stopped", "Tt"),
    ("paging", "W"),
    ("idle", "I"),
    ("unknown", "?"),
];

/// The points of a sample. `last`: the sample before it.
pub fn of(sample: &Sample, last: Option<&Sample>) -> Vec<Point> {
    let mut points = Vec::new();
    if let Some(last) = last {
        points.extend(cpus(sample, last));
    }
    points.extend(memory(sample));
    points.push(system(sample));
    points.push(processes(sample));
    points.push(with("kernel", sample.kernel.iter().map(|(name, value)| (*name, *value))));
    points.extend(sample.pressure.iter().map(|it| {
        let [avg10, avg60, avg300] = it.averages;
        Point::new("pressure")
            .tag("resource", it.resource)
            .tag("type", it.kind)
            .field("avg10", Value::Float(avg10))
            .field("avg60", Value::Float(avg60))
            .field("avg300", Value::Float(avg300))
            .field("total", Value::Unsigned(it.total_us))
    }));
    points.extend(sample.file_systems.iter().map(file_system));
    points.extend(sample.interfaces.iter().map(interface));
    let before = |disk: &Disk| {
        let last = last?;
        let known = last.disks.iter().find(|known| known.name == disk.name)?;
        Some((known, sample.at.duration_since(last.at).as_millis() as f64))
    };
    points.extend(sample.disks.iter().map(|it| disk(it, before(it))));
    points
}

fn with<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, u64)>) -> Point {
    let all = fields.into_iter();
    all.fold(Point::new(name), |point, (field, value)| point.field(field, Value::Unsigned(value)))
}

fn percent(part: f64, whole: f64) -> Value {
    Value::Float(if whole > 0.0 { part / whole * 100.0 } else { 0.0 })
}

/// What the processors have done since the last sample, percent.
fn cpus(sample: &Sample, last: &Sample) -> Vec<Point> {
    let mut points = Vec::new();
    for (name, ticks) in &sample.cpus {
        let Some(before) = last.cpus.get(name) else { continue };
        let spent: BTreeMap<&str, f64> = MODES
            .iter()
            .enumerate()
            .map(|(at, mode)| (*mode, ticks[at] as f64 - before[at] as f64))
            .collect();
        let of = |mode: &str| spent.get(mode).copied().unwrap_or(0.0);
        // The time of guests is in that of users.
        let whole: f64 = MODES[..8].iter().map(|mode| of(mode)).sum();
        if whole <= 0.0 {
            continue;
        }
        let mut point = Point::new("cpu").tag("cpu", name);
        for mode in MODES {
            let spent = match mode {
                "user" => of("user") - of("guest"),
                "nice" => of("nice") - of("guest_nice"),
                mode => of(mode),
            };
            point = point.field(&format!("usage_{mode}"), percent(spent, whole));
        }
        points.push(point);
    }
    points
}

fn memory(sample: &Sample) -> Vec<Point> {
    let of = |name: &str| sample.memory.get(name).copied().unwrap_or(0);
    let (total, available) = (of("MemTotal"), of("MemAvailable"));
    if total == 0 {
        return Vec::new();
    }
    let used = total.saturating_sub(available);
    let fields = MEMORY.iter().map(|(field, name)| (*field, of(name)));
    let mem = with("mem", fields)
        .field("total", Value::Unsigned(total))
        .field("available", Value::Unsigned(available))
        .field("used", Value::Unsigned(used))
        .field("cached", Value::Unsigned(of("Cached") + of("SReclaimable")))
        .field("available_percent", percent(available as f64, total as f64))
        .field("used_percent", percent(used as f64, total as f64));
    let (total, free) = (of("SwapTotal"), of("SwapFree"));
    let used = total.saturating_sub(free);
    let (into, out) = sample.swapped;
    let swap = [("total", total), ("free", free), ("used", used)];
    let moved = [("in", into * SWAP_PAGE), ("out", out * SWAP_PAGE)];
    let swap = with("swap", swap.into_iter().chain(moved))
        .field("used_percent", percent(used as f64, total as f64));
    vec![mem, swap]
}

fn system(sample: &Sample) -> Point {
    let cpus = &sample.processors;
    let mut point = with("system", [("n_cpus", cpus.logical), ("n_physical_cpus", cpus.cores)]);
    for (name, load) in ["load1", "load5", "load15"].into_iter().zip(sample.load.iter().flatten()) {
        point = point.field(name, Value::Float(*load));
    }
    if let Some((sessions, users)) = sample.users {
        point = point
            .field("n_users", Value::Unsigned(sessions))
            .field("n_unique_users", Value::Unsigned(users));
    }
    match sample.uptime_s {
        Some(up) => point.field("uptime", Value::Unsigned(up)),
        None => point,
    }
}

fn processes(sample: &Sample) -> Point {
    let parked = sample.processes("P");
    let parked = (parked > 0).then_some(("parked", parked));
    let all = [("total", sample.states.values().sum()), ("total_threads", sample.threads)];
    let known = STATES.into_iter().map(|(field, letters)| (field, sample.processes(letters)));
    with("processes", known.chain(all).chain(parked))
}

fn file_system(it: &FileSystem) -> Point {
    let inodes_used = it.inodes.saturating_sub(it.inodes_free);
    let fields = [
        ("total", it.total),
        ("free", it.available),
        ("used", it.used),
        ("inodes_total", it.inodes),
        ("inodes_free", it.inodes_free),
        ("inodes_used", inodes_used),
    ];
    with("disk", fields)
        .tag("path", &it.path)
        .tag("device", &it.device)
        .tag("fstype", &it.kind)
        .tag("mode", it.mode)
        .tag("label", it.label.as_deref().unwrap_or_default())
        .field("used_percent", percent(it.used as f64, (it.used + it.available) as f64))
        .field("inodes_used_percent", percent(inodes_used as f64, it.inodes as f64))
}

fn interface(it: &Interface) -> Point {
    let fields = [
        ("bytes_recv", it.bytes.0),
        ("bytes_sent", it.bytes.1),
        ("packets_recv", it.packets.0),
        ("packets_sent", it.packets.1),
        ("err_in", it.errors.0),
        ("err_out", it.errors.1),
        ("drop_in", it.dropped.0),
        ("drop_out", it.dropped.1),
    ];
    with("net", fields).tag("interface", &it.name).field("speed", Value::Integer(it.speed))
}

/// `before`: what it had done at the last sample, and the milliseconds since then.
fn disk(it: &Disk, before: Option<(&Disk, f64)>) -> Point {
    let fields = [
        ("reads", it.requests.0),
        ("writes", it.requests.1),
        ("read_bytes", it.bytes.0),
        ("write_bytes", it.bytes.1),
        ("read_time", it.times_ms.0),
        ("write_time", it.times_ms.1),
        ("io_time", it.busy_ms.0),
        ("weighted_io_time", it.busy_ms.1),
        ("iops_in_progress", it.in_progress),
        ("merged_reads", it.merged.0),
        ("merged_writes", it.merged.1),
    ];
    let mut point = with("diskio", fields)
        .tag("name", &it.name)
        .tag("wwid", it.wwid.as_deref().unwrap_or_default());
    let Some((before, elapsed_ms)) = before else { return point };
    let since = |now: (u64, u64), then: (u64, u64)| {
        Some((now.0.checked_sub(then.0)? + now.1.checked_sub(then.1)?) as f64)
    };
    // Counters that have begun again say nothing of what was done since.
    let (Some(requests), Some(time), Some(busy)) = (
        since(it.requests, before.requests),
        since(it.times_ms, before.times_ms),
        it.busy_ms.0.checked_sub(before.busy_ms.0),
    ) else {
        return point;
    };
    if requests > 0.0 {
        point = point
            .field("io_await", Value::Float(time / requests))
            .field("io_svctm", Value::Float(busy as f64 / requests));
    }
    match elapsed_ms > 0.0 {
        true => point.field("io_util", Value::Float(busy as f64 / elapsed_ms * 100.0)),
        false => point,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::super::super::exposition::{Exposition, Format};
    use super::super::Sources;
    use super::*;

    /// A machine whose files say this.
    fn machine(dir: &Path, cpu: &str, disk: &str) -> Sample {
        for (name, text) in [
            ("stat", format!("{cpu}\nintr 99 1 2\nctxt 500\nbtime 1700000000\nprocesses 42\n")),
            ("meminfo", "MemTotal: 1000 kB\nMemAvailable: 400 kB\nCached: 70 kB\nSReclaimable: 30 kB\nSwapTotal: 200 kB\nSwapFree: 150 kB\n".into()),
            ("vmstat", "pswpin 3\npswpout 5\n".into()),
            ("loadavg", "0.50 0.25 0.10 1/100 4242\n".into()),
            ("uptime", "3601.77 100.00\n".into()),
            ("diskstats", format!("8 0 sda {disk}\n")),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        let stat = "(x y) R 1 1 1 0 -1 0 0 0 0 0 100 50 0 0 20 0 4 0 5 1000 25 0";
        for (pid, stat) in [("1", stat.into()), ("2", stat.replace(" R ", " S "))] {
            fs::create_dir_all(dir.join(pid)).unwrap();
            fs::write(dir.join(pid).join("stat"), format!("{pid} {stat}")).unwrap();
        }
        let (proc, sys) = (dir.to_path_buf(), dir.join("sys"));
        Sample::read(&Sources { proc, sys, utmp: dir.join("utmp"), home: dir.join("home") })
    }

    fn number(points: &[Point], name: &str, field: &str) -> f64 {
        let point =
            points.iter().find(|point| point.name == name && point.fields.contains_key(field));
        point.unwrap_or_else(|| panic!("no {name} {field}")).fields[field].number().unwrap()
    }

    #[test]
    fn points_say_what_processors_and_disks_did_between_two_samples() {
        let dir = tempfile::tempdir().unwrap();
        let disk = "10 1 200 30 40 2 500 60 3 70 80";
        let first = machine(dir.path(), "cpu 100 0 50 800 50 0 0 0 20 0", disk);
        let points = of(&first, None);
        assert!(points.iter().all(|point| point.name != "cpu"));
        assert!(points.iter().all(|point| !point.fields.contains_key("io_util")));

        let disk = "15 1 300 60 45 2 600 130 0 170 200";
        let mut second = machine(dir.path(), "cpu 160 0 70 880 90 0 0 0 30 0", disk);
        second.at = first.at + Duration::from_millis(1000);
        let points = of(&second, Some(&first));
        let cpu = points.iter().find(|point| point.name == "cpu").unwrap();
        assert_eq!(cpu.tags["cpu"], "cpu-total");
        for (field, expected) in [
            ("usage_user", 25.0),
            ("usage_guest", 5.0),
            ("usage_system", 10.0),
            ("usage_idle", 40.0),
            ("usage_iowait", 20.0),
        ] {
            assert_eq!(number(&points, "cpu", field), expected, "{field}");
        }
        // 10 requests took 100 ms, the disk was busy for 100 of 1000 ms.
        for (field, expected) in [("io_await", 10.0), ("io_svctm", 10.0), ("io_util", 10.0)] {
            assert_eq!(number(&points, "diskio", field), expected, "{field}");
        }
        assert_eq!(number(&points, "diskio", "write_bytes"), 307_200.0);

        // Counters that have begun again.
        let again = machine(dir.path(), "cpu 1 0 1 1 1 0 0 0 0 0", "1 1 1 1 1 1 1 1 1 1 1");
        let points = of(&again, Some(&second));
        assert!(points.iter().all(|point| point.name != "cpu"));
        assert!(points.iter().all(|point| !point.fields.contains_key("io_await")));
    }

    #[test]
    fn prometheus_is_told_what_telegraf_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let sample = machine(dir.path(), "cpu 1 1 1 1", "10 1 200 30 40 2 500 60 3 70 80");
        let mut text = Exposition::new(Format::Prometheus);
        super::super::put(&mut text, &sample);
        let text = text.finish();
        for expected in [
            "mfserv_host_memory_cached_bytes 71680",
            "mfserv_host_swap_written_bytes_total 20480",
            "mfserv_host_disk_reads_total{disk=\"sda\"} 10",
            "mfserv_host_disk_write_seconds_total{disk=\"sda\"} 0.06",
            "mfserv_host_disk_busy_seconds_total{disk=\"sda\"} 0.07",
            "mfserv_host_disk_in_progress{disk=\"sda\"} 3",
            "mfserv_host_processes{state=\"running\"} 1",
            "mfserv_host_processes{state=\"zombies\"} 0",
            "mfserv_host_threads 8",
            "mfserv_host_forks_total 42",
            "mfserv_host_context_switches_total 500",
            "mfserv_host_interrupts_total 99",
            "mfserv_host_boot_timestamp_seconds 1700000000",
            "mfserv_host_uptime_seconds 3601",
        ] {
            assert!(text.contains(&format!("{expected}\n")), "{expected} in {text}");
        }
        assert!(!text.contains("\nmfserv_host_sessions "), "this machine keeps no record: {text}");
    }

    #[test]
    fn memory_load_processes_and_kernel_have_the_fields_of_telegraf() {
        let dir = tempfile::tempdir().unwrap();
        let sample = machine(dir.path(), "cpu 1 1 1 1", "1 1 1 1 1 1 1 1 1 1 1");
        let points = of(&sample, None);
        for (name, field, expected) in [
            ("mem", "total", 1_024_000.0),
            ("mem", "used_percent", 60.0),
            ("mem", "available_percent", 40.0),
            ("mem", "cached", 102_400.0),
            ("mem", "high_total", 0.0),
            ("swap", "used_percent", 25.0),
            ("swap", "out", 20_480.0),
            ("system", "load5", 0.25),
            ("system", "uptime", 3601.0),
            ("system", "n_cpus", 1.0),
            ("processes", "running", 1.0),
            ("processes", "sleeping", 1.0),
            ("processes", "total", 2.0),
            ("processes", "total_threads", 8.0),
            ("kernel", "interrupts", 99.0),
            ("kernel", "processes_forked", 42.0),
        ] {
            assert_eq!(number(&points, name, field), expected, "{name} {field}");
        }
        assert!(points.iter().all(|point| !point.fields.contains_key("n_users")));
    }
}
