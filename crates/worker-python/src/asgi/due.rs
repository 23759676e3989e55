//! What is to be done once no lock is held: waking those who wait, and the log.

use std::borrow::Cow;

use pyo3::intern;
use pyo3::prelude::*;

use crate::asgi::Environment;
use crate::asgi::wait::Outcome;

/// Futures that are kept before those that nobody waits for any more are dropped.
const FUTURES: usize = 8;

/// What is to be done once the lock of a request is free.
#[derive(Default)]
pub struct Due {
    /// Those who wait.
    pub futures: Vec<Py<PyAny>>,
    /// A line of the log.
    pub log: Option<Cow<'static, str>>,
    /// A timer that is of no use any more.
    pub timer: Option<Py<PyAny>>,
}

impl Due {
    /// Does it.
    pub fn settle(self, py: Python<'_>, environment: &Environment) {
        for future in self.futures {
            if let Err(error) = wake(future.bind(py)) {
                error.write_unraisable(py, None);
            }
        }
        if let Some(timer) = self.timer {
            if let Err(error) = timer.call_method0(py, intern!(py, "cancel")) {
                error.write_unraisable(py, None);
            }
        }
        if let Some(message) = self.log {
            environment.log(py, &message, None);
        }
    }
}

fn wake(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

/// A future among those of a list: `swap` puts another list in its place. No lock is held while
/// futures are asked.
pub fn waiting<'py>(
    py: Python<'py>,
    environment: &Environment,
    swap: impl Fn(Vec<Py<PyAny>>) -> PyResult<Vec<Py<PyAny>>>,
) -> PyResult<Outcome<'py>> {
    let future = environment.create_future.bind(py).call0()?;
    let mut futures = swap(Vec::new())?;
    if futures.len() >= FUTURES {
        let is_done =
            |future: &Py<PyAny>| future.call_method0(py, intern!(py, "done"))?.is_truthy(py);
        futures.retain(|future| !is_done(future).unwrap_or(false));
    }
    futures.push(future.clone().unbind());
    swap(futures)?;
    // As `await` does it: the future notes that somebody waits.
    let waits = future.call_method0(intern!(py, "__await__"))?;
    Ok(Outcome::Waits(waits.call_method0(intern!(py, "__next__"))?))
}
