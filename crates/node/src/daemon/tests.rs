//! The daemon in a played world: no process, no second of real time.

mod booting;
mod front_process;
mod fronts;
mod job_memory;
mod jobs;
mod kept;
pub(super) mod kit;
mod played;
mod reconciling;
mod stopping;
