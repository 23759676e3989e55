//! A lane as its requests see it. A lane is one thread that serves clients, with a reactor
//! of its own; `lanes/` starts it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use mfserv_platform::sync::lock;

use super::gauge::{Gauge, InWork, UnderWay};
use super::request_id::RequestIds;
use super::state::{Front, InForce};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::Cause;
use crate::embedded::clients::trace::{Trace, as_trace_id};

/// The table of a request. The lane counts its users with a counter of its own, so that a
/// request writes to no memory that other threads read.
pub type Table = Rc<Arc<InForce>>;

/// A lane.
pub struct Lane {
    /// What all lanes share.
    pub front: Arc<Front>,
    /// Its number, from 0.
    pub number: usize,
    gauge: Arc<Gauge>,
    /// The version of `table`.
    version: Cell<u64>,
    table: RefCell<Option<Table>>,
    ids: RequestIds,
}

impl Lane {
    /// A lane with this number and gauge.
    pub fn new(front: Arc<Front>, number: usize, gauge: Arc<Gauge>) -> Rc<Self> {
        let (version, table, ids) = (Cell::new(0), RefCell::default(), RequestIds::new());
        Rc::new(Self { front, number, gauge, version, table, ids })
    }

    /// The table in force; `None` before the first one.
    pub fn table(&self) -> Option<Table> {
        let version = self.front.version();
        if self.version.get() != version {
            self.version.set(version);
            *self.table.borrow_mut() = self.front.in_force().map(Rc::new);
        }
        self.table.borrow().clone()
    }

    /// Counts a request as in work until the returned value is dropped.
    pub fn begin_request(&self) -> InWork<'_> {
        self.gauge.begin_request()
    }

    /// Counts a request to an app until the returned value is dropped.
    pub fn begin_under_way(&self) -> UnderWay<'_> {
        self.gauge.begin_under_way()
    }

    /// Counts a request that is over. `fault`: why the front answered in place of the app.
    pub fn count(&self, exchange: &Exchange<'_>, fault: Option<Cause>) {
        let (subject, measured) = exchange.measured();
        lock(&self.gauge.counts).count(subject, &measured, fault);
    }

    /// Begins a trace for a request to an app that is part of none. Its id is the request id
    /// where that can be one: then one id leads to both.
    pub fn begin_trace(&self, exchange: &mut Exchange<'_>) {
        let Some(percent) = exchange.settings().trace_sample else { return };
        if exchange.trace() != Trace::None {
            return;
        }
        let id = as_trace_id(exchange.id()).or_else(|| {
            let mut new = Vec::new();
            self.new_id(&mut new);
            as_trace_id(&new)
        });
        if let Some(id) = id {
            exchange.set_trace(Trace::begin(id, percent));
        }
    }

    /// Writes a new request id: 32 lower-case hexadecimal digits.
    pub fn new_id(&self, id: &mut Vec<u8>) {
        self.ids.next(id);
    }
}
