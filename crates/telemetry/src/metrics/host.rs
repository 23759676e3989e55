//! This machine: processors, memory, disks, networks, and how long work has waited for them. The
//! points have the names that Telegraf's inputs give them (`cpu`, `mem`, `swap`, `disk`,
//! `diskio`, `net`, `system`, `processes`, `kernel`, `pressure`).

mod devices;
mod exposed;
mod points;
mod sample;

use super::point::Point;
pub use devices::{Disk, FileSystem, Interface};
pub use exposed::put;
pub use sample::{MODES, Sample, Sources};

/// This machine, sampled again and again.
pub struct Host {
    sources: Sources,
    /// What it was the last time: some points say what has happened since.
    last: Option<Sample>,
}

impl Host {
    /// Nothing was sampled yet.
    pub fn new(sources: Sources) -> Self {
        Self { sources, last: None }
    }

    /// Samples the machine. The first time there are no points of `cpu`, since they say what the
    /// processors have done between two samples.
    pub fn points(&mut self) -> Vec<Point> {
        let sample = Sample::read(&self.sources);
        let points = points::of(&sample, self.last.as_ref());
        self.last = Some(sample);
        points
    }
}
