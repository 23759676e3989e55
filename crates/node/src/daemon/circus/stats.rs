//! What processes use, as Circus shows it.

use std::path::Path;
use std::time::Duration;

use mfserv_platform::clock;
use mfserv_platform::proc::{self, ProcessTable};
use serde_json::{Value, json};

use super::message::Fields;

/// CPU is measured for this long.
const MEASURED: Duration = Duration::from_millis(100);

/// Values of processes, some of them with their children, by process id; what is not there any
/// more is left out.
pub async fn of_processes(
    pids: &[u32],
    with_children: bool,
) -> std::collections::BTreeMap<u32, Fields> {
    let look = || tokio::task::spawn_blocking(|| ProcessTable::read(Path::new("/proc")));
    let Ok(before) = look().await else { return Default::default() };
    // This is the time over which CPU is measured.
    tokio::time::sleep(MEASURED).await;
    let pids = pids.to_vec();
    let measured = tokio::task::spawn_blocking(move || {
        let after = ProcessTable::read(Path::new("/proc"));
        let measure = Measure { before, after };
        let all = pids.into_iter().filter_map(|pid| Some((pid, measure.one(pid, with_children)?)));
        all.collect()
    });
    measured.await.unwrap_or_default()
}

/// Two looks at all processes.
struct Measure {
    before: ProcessTable,
    after: ProcessTable,
}

impl Measure {
    fn one(&self, pid: u32, with_children: bool) -> Option<Fields> {
        let process = self.after.get(pid)?;
        let details = proc::details(Path::new("/proc"), pid)?;
        let started_s = proc::started_s(Path::new("/proc"), pid)?;
        let used_ms = process.cpu_ms - self.before.get(pid).map_or(process.cpu_ms, |p| p.cpu_ms);
        let share = process.memory as f64 / proc::total_memory().max(1) as f64;
        let user = crate::host::user_name(details.uid).unwrap_or_else(|| details.uid.to_string());
        let children: Vec<Value> = match with_children {
            true => self.children(pid).map(Value::Object).collect(),
            false => Vec::new(),
        };
        let fields = json!({
            "pid": pid,
            "cmdline": details.program,
            "username": user,
            "nice": details.nice,
            "mem_info1": human(process.memory),
            "mem_info2": human(details.virtual_bytes),
            "cpu": rounded(used_ms as f64 * 100.0 / MEASURED.as_millis() as f64, 1),
            "mem": rounded(share * 100.0, 3),
            "ctime": spent(process.cpu_ms),
            "create_time": started_s,
            "age": rounded((clock::now_ms() as f64 / 1000.0 - started_s).max(0.0), 3),
            "children": children,
        });
        match fields {
            Value::Object(fields) => Some(fields),
            _ => None,
        }
    }

    fn children(&self, pid: u32) -> impl Iterator<Item = Fields> + '_ {
        let own = self.after.tree(pid).into_iter().filter(move |child| child.parent == pid);
        own.filter_map(|child| self.one(child.pid, false))
    }
}

fn rounded(number: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (number * factor).round() / factor
}

/// Bytes as Circus writes them: `1.49M`, `512B`.
fn human(bytes: u64) -> String {
    let units = ["T", "G", "M", "K"];
    let sizes = [1_u64 << 40, 1 << 30, 1 << 20, 1 << 10];
    let fits = units.iter().zip(sizes).find(|(_, size)| bytes >= *size);
    fits.map_or_else(
        || format!("{bytes}B"),
        |(unit, size)| format!("{:.2}{unit}", bytes as f64 / size as f64),
    )
}

/// CPU time as Circus writes it: minutes of the hour, seconds, hundredths.
fn spent(ms: u64) -> String {
    format!("{}:{:02}.{:02}", ms / 60_000 % 60, ms / 1000 % 60, ms % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_written_as_circus_writes_them() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1536, "1.50K"), (1_562_378, "1.49M"), (1 << 41, "2.00T")]
        {
            assert_eq!(human(bytes), text);
        }
        for (ms, text) in [(0, "0:00.00"), (61_230, "1:01.23"), (3_600_000, "0:00.00")] {
            assert_eq!(spent(ms), text);
        }
    }

    #[tokio::test]
    async fn a_process_is_shown_with_its_memory_its_user_and_its_age() {
        let own = std::process::id();
        let found = of_processes(&[own, u32::MAX], true).await;
        assert_eq!(found.len(), 1);
        let fields = &found[&own];
        assert!(fields["mem"].as_f64().unwrap() > 0.0 && fields["age"].as_f64().unwrap() >= 0.0);
        assert!(fields["cmdline"].as_str().unwrap().starts_with("mfserv_node"), "{fields:?}");
        assert_ne!(fields["mem_info2"], "0B");
    }
}
