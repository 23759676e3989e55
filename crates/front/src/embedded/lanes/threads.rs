//! The lanes: their threads, and the commands that they get.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use mfserv_core::Diagnostic;
use mfserv_platform::sync::lock;
use mfserv_scheduling::{Company, Scheduling};
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use crate::embedded::clients::connection::Ends;
use crate::embedded::clients::idle_eviction;
use crate::embedded::io::wire::Wire;
use crate::embedded::request::gauge::Gauge;
use crate::embedded::request::lane::Lane;
use crate::embedded::request::serve;
use crate::embedded::request::state::Front;
use crate::embedded::workers::upstream::Upstream;

/// The threads of each lane that open and read files. What waits for them is bounded by the
/// number of requests: each has at most one file operation at a time.
const FILE_THREADS: usize = 4;

/// A client connection that is counted until it is closed.
struct Counted {
    front: Arc<Front>,
    gauge: Arc<Gauge>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.connections.fetch_sub(1, Ordering::Relaxed);
        self.front.connection_closed();
    }
}

/// Makes a task, in the thread that runs it.
type StartTask = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A command to a lane.
enum Command {
    /// Serve this client.
    Serve { socket: OwnedFd, ends: Ends, counted: Counted },
    /// Start this task.
    Start(StartTask),
    /// Evict one of so many clients, of those that are idle, because others wait.
    Evict(usize),
    /// End, with all connections.
    End,
}

/// What others have of a lane.
struct Handle {
    gauge: Arc<Gauge>,
    commands: UnboundedSender<Command>,
    /// An `Evict` is on its way.
    evicts: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// All lanes of a front. Their number never shrinks; connections go to as many of them as
/// the last table says.
pub struct Lanes {
    front: Arc<Front>,
    handles: Mutex<Vec<Handle>>,
}

impl Lanes {
    /// Starts the first lane.
    pub fn start(front: Arc<Front>) -> Result<Arc<Self>, Diagnostic> {
        let lanes = Arc::new(Self { front, handles: Mutex::default() });
        lanes
            .grow(1)
            .map_err(|why| Diagnostic::error("the front has no thread to serve").because(why))?;
        Ok(lanes)
    }

    /// Starts lanes until there are `wanted`.
    pub fn grow(&self, wanted: usize) -> std::io::Result<()> {
        let mut handles = self.handles();
        while handles.len() < wanted.max(1) {
            let number = handles.len();
            let gauge = self.front.new_gauge();
            let evicts = Arc::<AtomicBool>::default();
            // Bounded in fact: a `Serve` is a connection, of which there are at most
            // `max_connections`; `Start` comes once per listener and per link to a worker, `End`
            // once; of `Evict` there is one at a time.
            let (commands, received) = mpsc::unbounded_channel();
            let lane = (self.front.clone(), number, gauge.clone(), evicts.clone());
            let (report, started) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name(format!("lane-{number}"));
            let thread = thread.spawn(move || {
                let runtime = match runtime(lane.0.pool.company.clone()) {
                    Ok(runtime) => runtime,
                    Err(why) => return drop(report.send(Err(why))),
                };
                drop(report.send(Ok(())));
                runtime.block_on(live(lane, received));
                runtime.shutdown_background();
            })?;
            started.recv().unwrap_or_else(|_| Err(std::io::Error::other("it ended at once")))?;
            handles.push(Handle { gauge, commands, evicts, thread: Some(thread) });
        }
        Ok(())
    }

    /// Offers queues to the workers of these apps that pull and have none.
    pub fn link_workers(&self, upstreams: &[Arc<Upstream>]) {
        let handles = self.handles();
        for upstream in upstreams {
            for (number, peer) in upstream.take_unlinked() {
                let link = upstream.clone();
                let task: StartTask = Box::new(move || Box::pin(link.keep_link(peer)));
                let lane = &handles[number as usize % handles.len().max(1)];
                // A lane that has ended starts nothing.
                let _ = lane.commands.send(Command::Start(task));
            }
        }
    }

    /// Starts a task in the first lane.
    pub fn start_in_first<T: Future<Output = ()> + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) {
        if let Some(first) = self.handles().first() {
            // A lane that has ended starts nothing.
            let _ = first.commands.send(Command::Start(Box::new(|| Box::pin(task()))));
        }
    }

    /// Gives a connection to the lane with the fewest.
    pub fn give(&self, socket: OwnedFd, ends: Ends, threads: usize) {
        let handles = self.handles();
        let used = &handles[..threads.clamp(1, handles.len())];
        let load = |handle: &&Handle| handle.gauge.connections.load(Ordering::Relaxed);
        let Some(handle) = used.iter().min_by_key(load) else { return };
        handle.gauge.connections.fetch_add(1, Ordering::Relaxed);
        self.front.connection_opened();
        let counted = Counted { front: self.front.clone(), gauge: handle.gauge.clone() };
        // A lane that has ended closes the connection.
        let _ = handle.commands.send(Command::Serve { socket, ends, counted });
    }

    /// Evicts clients that have been idle long, one of so many, because others wait to be
    /// accepted.
    pub fn evict_idle(&self, one_in: usize) {
        for handle in self.handles().iter() {
            if !handle.evicts.swap(true, Ordering::AcqRel) {
                // A lane that has ended has closed all its connections.
                let _ = handle.commands.send(Command::Evict(one_in));
            }
        }
    }

    /// Ends all lanes with their connections.
    pub fn end(&self) {
        let mut threads = Vec::new();
        for handle in self.handles().iter_mut() {
            let _ = handle.commands.send(Command::End);
            threads.extend(handle.thread.take());
        }
        for thread in threads {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }

    fn handles(&self) -> MutexGuard<'_, Vec<Handle>> {
        lock(&self.handles)
    }
}

/// `company`: the workers, which yield as long as the lanes do.
fn runtime(company: Arc<Company>) -> std::io::Result<tokio::runtime::LocalRuntime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(FILE_THREADS);
    // A sandbox may forbid it: then the lane is scheduled as any thread.
    if let Ok(Some(scheduling)) = Scheduling::of_this_thread(company) {
        let scheduling = Mutex::new(scheduling);
        builder.on_thread_park(move || lock(&scheduling).look());
    }
    builder.build_local(LocalOptions::default())
}

/// Carries out the commands to a lane, in its thread.
async fn live(
    (front, number, gauge, evicts): (Arc<Front>, usize, Arc<Gauge>, Arc<AtomicBool>),
    mut commands: UnboundedReceiver<Command>,
) {
    let lane = Lane::new(front, number, gauge);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve { socket, ends, counted } => {
                let adopted = match ends.is_tls {
                    true => Wire::adopt_tls(socket, &lane.front.tls),
                    false => Wire::adopt(socket, ends.client.is_none()),
                };
                let Ok(wire) = adopted else { continue };
                let lane = lane.clone();
                tokio::task::spawn_local(async move {
                    serve::serve(lane, wire, ends).await;
                    drop(counted);
                });
            }
            Command::Start(task) => drop(tokio::task::spawn_local(task())),
            Command::Evict(one_in) => {
                evicts.store(false, Ordering::Release);
                idle_eviction::evict_longest_idle(one_in, Instant::now());
            }
            Command::End => return,
        }
    }
}
