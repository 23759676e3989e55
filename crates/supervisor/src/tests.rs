//! The supervisor without processes: a played keeper on a real socket, played fronts, and
//! time that only moves when a test says so.

pub(crate) mod kit;
mod played;
mod played_fronts;

mod ageing;
mod backoff;
mod idle_probe;
mod keeper_lost;
mod liveness;
mod memory;
mod new_daemon;
mod planning;
mod ports;
mod preparing;
mod readiness;
mod remembering;
mod rolling;
mod stopping;
mod waiting;
