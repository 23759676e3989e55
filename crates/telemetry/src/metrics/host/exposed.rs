//! What Prometheus is told of a machine.

use super::super::exposition::Exposition;
use super::super::names;
use super::{MODES, Sample};

/// Writes the families of a sample.
pub fn put(text: &mut Exposition, sample: &Sample) {
    processors(text, sample);
    let of = |name: &str| sample.memory.get(name).copied();
    for (family, name) in [
        (&names::HOST_MEMORY, "MemTotal"),
        (&names::HOST_AVAILABLE, "MemAvailable"),
        (&names::HOST_SWAP, "SwapTotal"),
        (&names::HOST_SWAP_FREE, "SwapFree"),
    ] {
        let mut family = text.family(family);
        of(name).into_iter().for_each(|bytes| family.put(&[], bytes as f64));
    }
    for (family, of) in [
        (&names::HOST_DISK_SIZE, (|it| it.total) as fn(&super::FileSystem) -> u64),
        (&names::HOST_DISK_AVAILABLE, |it| it.available),
    ] {
        let mut family = text.family(family);
        for it in &sample.file_systems {
            family.put(&[&it.path, &it.device, &it.kind], of(it) as f64);
        }
    }
    let mut family = text.family(&names::HOST_DISK_READ);
    sample.disks.iter().for_each(|it| family.put(&[&it.name], it.bytes.0 as f64));
    let mut family = text.family(&names::HOST_DISK_WRITTEN);
    sample.disks.iter().for_each(|it| family.put(&[&it.name], it.bytes.1 as f64));
    let mut family = text.family(&names::HOST_RECEIVED);
    sample.interfaces.iter().for_each(|it| family.put(&[&it.name], it.bytes.0 as f64));
    let mut family = text.family(&names::HOST_SENT);
    sample.interfaces.iter().for_each(|it| family.put(&[&it.name], it.bytes.1 as f64));
    let mut family = text.family(&names::HOST_PRESSURE);
    for it in &sample.pressure {
        family.put(&[it.resource, it.kind], it.total_us as f64 / 1e6);
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
