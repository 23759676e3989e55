//! A thread that serves clients, and how connections come to it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use mfserv_core::Diagnostic;
use mfserv_platform::sync::lock;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use crate::embedded::clients::idle_eviction;
use crate::embedded::io::wire::Wire;
use crate::embedded::lanes::listener::Listener;
use crate::embedded::request::request_id::RequestIds;
use crate::embedded::request::serve;
use crate::embedded::request::state::{Front, InForce};

/// When there are too many clients, one in so many is ended, if they are idle: all are
/// looked at for it.
const ROOM_FOR: usize = 64;
/// Threads of each lane that open and read files.
const FILE_THREADS: usize = 4;

/// The table of a request. One counter of the lane keeps it alive: a request writes to
/// no memory that other threads read.
pub type Table = Rc<Arc<InForce>>;

/// What a lane has done and does. Written by the lane alone, except `connections`.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Gauge {
    /// Client connections given to it and not yet closed.
    pub connections: AtomicU64,
    /// Requests answered.
    pub requests: AtomicU64,
    /// Requests being read or answered now.
    pub busy: AtomicU64,
}

impl Gauge {
    /// Adds to a counter that only this thread writes: no locked instruction.
    fn add(counter: &AtomicU64, by: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }
}

/// A lane, as the connections in it see it.
pub struct Lane {
    /// What all lanes share.
    pub front: Arc<Front>,
    /// Its number, from 0.
    pub number: usize,
    lanes: Arc<Lanes>,
    gauge: Arc<Gauge>,
    seen: Cell<u64>,
    table: RefCell<Option<Table>>,
    ids: RequestIds,
}

/// A request in work.
pub struct InWork<'a>(&'a Gauge);

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        Gauge::add(&self.0.busy, 1u64.wrapping_neg());
        Gauge::add(&self.0.requests, 1);
    }
}

impl Lane {
    fn new(lanes: Arc<Lanes>, number: usize, gauge: Arc<Gauge>) -> Rc<Self> {
        Rc::new(Self {
            front: lanes.front.clone(),
            number,
            lanes,
            gauge,
            seen: Cell::new(0),
            table: RefCell::default(),
            ids: RequestIds::new(),
        })
    }

    /// The table in force; none before the first.
    pub fn table(&self) -> Option<Table> {
        let version = self.front.version();
        if self.seen.get() != version {
            self.seen.set(version);
            *self.table.borrow_mut() = self.front.in_force().map(Rc::new);
        }
        self.table.borrow().clone()
    }

    /// A request begins; it is counted as in work until what is returned is dropped.
    pub fn begin_request(&self) -> InWork<'_> {
        Gauge::add(&self.gauge.busy, 1);
        InWork(&self.gauge)
    }

    /// Requests answered and requests in work now, of all lanes.
    pub fn requests(&self) -> (u64, u64) {
        self.lanes.requests()
    }

    /// A new request id: 32 lower-case hexadecimal digits.
    pub fn new_id(&self, id: &mut Vec<u8>) {
        self.ids.next(id);
    }
}

/// A connection that counts as long as it lives.
pub struct Counted {
    front: Arc<Front>,
    gauge: Arc<Gauge>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.connections.fetch_sub(1, Ordering::Relaxed);
        self.front.connection_closed();
    }
}

/// What a lane is asked to do.
enum Errand {
    /// Serve this client.
    Serve { socket: OwnedFd, address: Option<IpAddr>, counted: Counted },
    /// Accept here.
    Accept(Listener),
    /// Others come: end the longest rests.
    MakeRoom,
    /// Go home.
    End,
}

/// The way into a lane.
struct Door {
    gauge: Arc<Gauge>,
    errands: UnboundedSender<Errand>,
    thread: Option<JoinHandle<()>>,
}

/// All lanes of a front. There are never fewer than there were; connections go to as
/// many as the last table says.
pub struct Lanes {
    front: Arc<Front>,
    doors: Mutex<Vec<Door>>,
}

impl Lanes {
    /// Starts the first lane.
    pub fn start(front: Arc<Front>) -> Result<Arc<Self>, Diagnostic> {
        let lanes = Arc::new(Self { front, doors: Mutex::default() });
        lanes
            .grow(1)
            .map_err(|why| Diagnostic::error("the front has no thread to serve").because(why))?;
        Ok(lanes)
    }

    /// Starts lanes until there are `wanted`.
    pub fn grow(self: &Arc<Self>, wanted: usize) -> std::io::Result<()> {
        let mut doors = self.doors();
        while doors.len() < wanted.max(1) {
            let number = doors.len();
            let gauge = Arc::new(Gauge::default());
            let (errands, received) = mpsc::unbounded_channel();
            let (lanes, theirs) = (self.clone(), gauge.clone());
            let (tell, started) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new().name(format!("lane-{number}"));
            let thread = thread.spawn(move || {
                let runtime = match runtime() {
                    Ok(runtime) => runtime,
                    Err(why) => return drop(tell.send(Err(why))),
                };
                drop(tell.send(Ok(())));
                runtime.block_on(live(Lane::new(lanes, number, theirs), received));
                runtime.shutdown_background();
            })?;
            started.recv().unwrap_or_else(|_| Err(std::io::Error::other("it ended at once")))?;
            doors.push(Door { gauge, errands, thread: Some(thread) });
        }
        Ok(())
    }

    /// The first lane accepts from this socket on.
    pub fn accept(&self, listener: Listener) {
        if let Some(first) = self.doors().first() {
            // A lane ends only after the last errand.
            let _ = first.errands.send(Errand::Accept(listener));
        }
    }

    /// Gives a connection to the lane with the fewest.
    pub fn give(&self, socket: OwnedFd, address: Option<IpAddr>, threads: usize) {
        let doors = self.doors();
        let used = &doors[..threads.clamp(1, doors.len())];
        let load = |door: &&Door| door.gauge.connections.load(Ordering::Relaxed);
        let Some(door) = used.iter().min_by_key(load) else { return };
        door.gauge.connections.fetch_add(1, Ordering::Relaxed);
        self.front.connection_opened();
        let counted = Counted { front: self.front.clone(), gauge: door.gauge.clone() };
        // A lane that ends closes what it is given.
        let _ = door.errands.send(Errand::Serve { socket, address, counted });
    }

    /// Clients wait that cannot be accepted: others that have been idle for long are ended.
    pub fn make_room(&self) {
        for door in self.doors().iter() {
            // A lane that ends closes all.
            let _ = door.errands.send(Errand::MakeRoom);
        }
    }

    /// Requests answered, and requests in work now.
    pub fn requests(&self) -> (u64, u64) {
        let doors = self.doors();
        let sum = |of: fn(&Gauge) -> &AtomicU64| {
            doors.iter().map(|door| of(&door.gauge).load(Ordering::Relaxed)).sum()
        };
        (sum(|gauge| &gauge.requests), sum(|gauge| &gauge.busy))
    }

    /// Ends all lanes with what they hold.
    pub fn end(&self) {
        let mut threads = Vec::new();
        for door in self.doors().iter_mut() {
            let _ = door.errands.send(Errand::End);
            threads.extend(door.thread.take());
        }
        for thread in threads {
            // A lane that panicked has ended as well.
            let _ = thread.join();
        }
    }

    fn doors(&self) -> std::sync::MutexGuard<'_, Vec<Door>> {
        lock(&self.doors)
    }
}

fn runtime() -> std::io::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .build_local(LocalOptions::default())
}

/// The life of a lane's thread.
async fn live(lane: Rc<Lane>, mut errands: UnboundedReceiver<Errand>) {
    while let Some(errand) = errands.recv().await {
        match errand {
            Errand::Serve { socket, address, counted } => {
                let Ok(wire) = Wire::adopt(socket, address.is_none()) else { continue };
                let lane = lane.clone();
                tokio::task::spawn_local(async move {
                    serve::serve(lane, wire, address).await;
                    drop(counted);
                });
            }
            Errand::Accept(listener) => {
                let (front, lanes) = (lane.front.clone(), lane.lanes.clone());
                tokio::task::spawn_local(listener.serve(front, lanes));
            }
            Errand::MakeRoom => idle_eviction::end_longest(ROOM_FOR, Instant::now()),
            Errand::End => return,
        }
    }
}
