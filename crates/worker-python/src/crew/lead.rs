//! The main thread of a worker with several threads that serve.

use std::time::{Duration, Instant};

use pyo3::ffi;
use pyo3::prelude::*;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Crew, END};
use crate::SoftTimeout;
use crate::clock::watch;
use crate::request::App;
use crate::shared::FLUSH;

/// How often a worker that stops looks how far its threads are.
const LOOK: Duration = Duration::from_millis(20);

impl Crew {
    /// Sees to the signals until the worker is told to stop, calls `leave`, and waits until who has
    /// connected is served: then the threads end. `signal`: that of the soft limit.
    pub fn lead(
        &self,
        py: Python<'_>,
        app: &App,
        signal: i32,
        leave: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let limit = Duration::from_secs(app.timeout_s);
        let mut outcome = watch(&self.shared, &self.clocks, limit, signal).map_err(PyErr::from);
        while outcome.is_ok() && !self.shared.is_stopping() {
            outcome = self.look(py, app, None);
        }
        self.shared.ask();
        if let Err(error) = leave.call0() {
            app.log(py, "the socket of this worker could not be removed", Some(&error));
        }
        let finished = self.finish(py, app);
        // It was readable since `ask`: each of the threads is told.
        let end = EventData::new_u64(END);
        epoll::add(&self.epoll, self.shared.bell(), end, EventFlags::IN)
            .map_err(std::io::Error::from)?;
        outcome.and(finished)
    }

    /// Waits for a signal, or for a request that is late, and does what it asks for.
    fn look(&self, py: Python<'_>, app: &App, patience: Option<Duration>) -> PyResult<()> {
        let paused = self.places().paused;
        let now = Instant::now();
        let left = paused.map(|until| until.saturating_duration_since(now));
        let limit = patience.into_iter().chain(left).min().map(|limit| Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: limit.subsec_nanos().into(),
        });
        let wake = &self.shared.wake;
        // Whatever it is, it is looked at.
        let _ = py.detach(|| {
            poll(&mut [PollFd::from_borrowed_fd(wake.reader(), PollFlags::IN)], limit.as_ref())
        });
        wake.clear();
        self.interrupt(py);
        if paused.is_some_and(|until| until <= Instant::now()) {
            self.places().paused = None;
            self.listen();
        }
        app.check_signals(py)
    }

    /// Has the requests that are late raise, in their threads.
    fn interrupt(&self, py: Python<'_>) {
        for clock in self.clocks.iter().filter(|clock| clock.interrupts()) {
            let error = py.get_type::<SoftTimeout>();
            // SAFETY: the interpreter's lock is held. Where the thread is gone, nothing is done.
            unsafe { ffi::PyThreadState_SetAsyncExc(clock.ident() as _, error.as_ptr()) };
        }
    }

    /// Waits until who had connected before the socket went away is served, then until what was
    /// answered is sent.
    fn finish(&self, py: Python<'_>, app: &App) -> PyResult<()> {
        loop {
            let mut places = self.places();
            if places.busy < self.clocks.len() {
                // Somebody is there to serve them: the time for it begins.
                self.shared.stop();
            }
            if self.shared.is_stopped() || !places.has_work() && !self.has_client() {
                let _ = epoll::delete(&self.epoll, &self.listener);
                places.close(&self.epoll);
                break;
            }
            drop(places);
            self.look(py, app, Some(LOOK))?;
        }
        self.places().paused = None;
        let begun = Instant::now();
        loop {
            let places = self.places();
            let (is_busy, waits) = (places.busy > 0, places.has_output());
            let served = places.served.map_or(begun, |served| served.max(begun));
            drop(places);
            // An answer has its time to leave from when its request was over.
            if !is_busy && (!waits || served.elapsed() >= FLUSH) {
                return Ok(());
            }
            self.look(py, app, Some(LOOK))?;
        }
    }

    /// True if somebody has connected who was not accepted.
    fn has_client(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&now)) == Ok(1)
    }
}
