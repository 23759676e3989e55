//! What Prometheus is told of a machine.

use super::super::exposition::Exposition;
use super::super::names::{self, Family};
use super::points::{STATES, SWAP_PAGE};
use super::{Disk, FileSystem, Interface, MODES, Sample};

/// Families of what a machine has several of.
type Rows<T> = [(&'static Family, fn(&T) -> f64)];

const OF_FILE_SYSTEM: &Rows<FileSystem> = &[
    (&names::HOST_DISK_SIZE, |it| it.total as f64),
    (&names::HOST_DISK_AVAILABLE, |it| it.available as f64),
    (&names::HOST_INODES, |it| it.inodes as f64),
    (&names::HOST_INODES_FREE, |it| it.inodes_free as f64),
];

const OF_DISK: &Rows<Disk> = &[
    (&names::HOST_DISK_READ, |it| it.bytes.0 as f64),
    (&names::HOST_DISK_WRITTEN, |it| it.bytes.1 as f64),
    (&names::HOST_DISK_READS, |it| it.requests.0 as f64),
    (&names::HOST_DISK_WRITES, |it| it.requests.1 as f64),
    (&names::HOST_DISK_READ_TIME, |it| it.times_ms.0 as f64 / 1e3),
    (&names::HOST_DISK_WRITE_TIME, |it| it.times_ms.1 as f64 / 1e3),
    (&names::HOST_DISK_BUSY, |it| it.busy_ms.0 as f64 / 1e3),
    (&names::HOST_DISK_WEIGHTED, |it| it.busy_ms.1 as f64 / 1e3),
    (&names::HOST_DISK_NOW, |it| it.in_progress as f64),
];

const OF_INTERFACE: &Rows<Interface> = &[
    (&names::HOST_RECEIVED, |it| it.bytes.0 as f64),
    (&names::HOST_SENT, |it| it.bytes.1 as f64),
    (&names::HOST_RECEIVED_PACKETS, |it| it.packets.0 as f64),
    (&names::HOST_SENT_PACKETS, |it| it.packets.1 as f64),
    (&names::HOST_RECEIVE_ERRORS, |it| it.errors.0 as f64),
    (&names::HOST_SEND_ERRORS, |it| it.errors.1 as f64),
    (&names::HOST_RECEIVE_DROPS, |it| it.dropped.0 as f64),
    (&names::HOST_SEND_DROPS, |it| it.dropped.1 as f64),
];

/// Writes the families of a sample.
pub fn put(text: &mut Exposition, sample: &Sample) {
    processors(text, sample);
    memory(text, sample);
    for (family, value) in OF_FILE_SYSTEM {
        let mut family = text.family(family);
        for it in &sample.file_systems {
            family.put(&[&it.path, &it.device, &it.kind], value(it));
        }
    }
    for (family, value) in OF_DISK {
        let mut family = text.family(family);
        sample.disks.iter().for_each(|it| family.put(&[&it.name], value(it)));
    }
    for (family, value) in OF_INTERFACE {
        let mut family = text.family(family);
        sample.interfaces.iter().for_each(|it| family.put(&[&it.name], value(it)));
    }
    let mut family = text.family(&names::HOST_PRESSURE);
    for it in &sample.pressure {
        family.put(&[it.resource, it.kind], it.total_us as f64 / 1e6);
    }
    kernel(text, sample);
}

fn memory(text: &mut Exposition, sample: &Sample) {
    for (family, name) in [
        (&names::HOST_MEMORY, "MemTotal"),
        (&names::HOST_AVAILABLE, "MemAvailable"),
        (&names::HOST_FREE, "MemFree"),
        (&names::HOST_CACHED, "Cached"),
        (&names::HOST_BUFFERS, "Buffers"),
        (&names::HOST_DIRTY, "Dirty"),
        (&names::HOST_SWAP, "SwapTotal"),
        (&names::HOST_SWAP_FREE, "SwapFree"),
    ] {
        let mut family = text.family(family);
        sample.memory.get(name).into_iter().for_each(|bytes| family.put(&[], *bytes as f64));
    }
    let (into, out) = sample.swapped;
    for (family, pages) in [(&names::HOST_SWAP_IN, into), (&names::HOST_SWAP_OUT, out)] {
        text.family(family).put(&[], (pages * SWAP_PAGE) as f64);
    }
}

/// Processes, and what the kernel counts.
fn kernel(text: &mut Exposition, sample: &Sample) {
    let mut family = text.family(&names::HOST_PROCESSES);
    for (state, letters) in STATES {
        family.put(&[state], sample.processes(letters) as f64);
    }
    let counted = |name: &str| sample.kernel.get(name).map(|count| *count as f64);
    for (family, value) in [
        (&names::HOST_THREADS, Some(sample.threads as f64)),
        (&names::HOST_FORKS, counted("processes_forked")),
        (&names::HOST_SWITCHES, counted("context_switches")),
        (&names::HOST_INTERRUPTS, counted("interrupts")),
        (&names::HOST_ENTROPY, counted("entropy_avail")),
        (&names::HOST_BOOT, counted("boot_time")),
        (&names::HOST_UPTIME, sample.uptime_s.map(|seconds| seconds as f64)),
        (&names::HOST_SESSIONS, sample.users.map(|(sessions, _)| sessions as f64)),
    ] {
        let mut family = text.family(family);
        value.into_iter().for_each(|value| family.put(&[], value));
    }
}

fn processors(text: &mut Exposition, sample: &Sample) {
    let mut family = text.family(&names::HOST_CPU);
    if let Some(ticks) = sample.cpus.get("cpu-total") {
        let per_second = mfserv_platform::proc::ticks_per_second() as f64;
        // The time of guests is in that of users: the modes shall add up.
        for (mode, ticks) in MODES.iter().zip(ticks).take(8) {
            family.put(&[mode], *ticks as f64 / per_second);
        }
    }
    text.family(&names::HOST_CPUS).put(&[], sample.processors.logical as f64);
    let mut family = text.family(&names::HOST_LOAD);
    for (minutes, load) in ["1", "5", "15"].iter().zip(sample.load.iter().flatten()) {
        family.put(&[minutes], *load);
    }
}
