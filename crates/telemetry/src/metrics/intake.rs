//! Receives the counters of fronts and of the daemon.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mfserv_core::wire::metrics::{Source, ToTelemetry};
use mfserv_platform::link::Link;
use mfserv_platform::sync::lock;
use rustix::event::{PollFd, PollFlags, poll};

use super::LOOK;
use super::listener::SocketListener;
use super::registry::{Registry, Store};

/// The most connections at a time: two fronts and two daemons live during a handover.
const CONNECTIONS_MAX: usize = 16;

/// Receives counters, in threads: one that accepts, and one for each connection.
pub struct Intake {
    listener: SocketListener,
    registry: Arc<Mutex<Registry>>,
    ends: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    store: Store,
}

impl Intake {
    /// One that listens on this socket until `ends` is set. `store`: where what was received is
    /// kept for the next process.
    pub fn new(
        socket: PathBuf,
        registry: Arc<Mutex<Registry>>,
        ends: Arc<AtomicBool>,
        store: Store,
    ) -> Self {
        let listener = SocketListener::new(socket);
        Self { listener, registry, ends, connections: Arc::default(), store }
    }

    /// Accepts until it is to end.
    pub fn run(mut self) {
        let mut problem = String::new();
        while !self.ends.load(Ordering::Relaxed) {
            if let Err(why) = self.listener.look_after() {
                super::report_once(&mut problem, format!("no socket to receive metrics: {why}"));
            }
            self.wait();
            while let Some(stream) = self.listener.accept() {
                self.receive(stream);
            }
            self.store.look(&self.registry, false);
        }
        self.store.look(&self.registry, true);
    }

    fn wait(&self) {
        let timeout = super::timespec(LOOK);
        let mut all: Vec<PollFd<'_>> = Vec::new();
        all.extend(self.listener.socket().map(|socket| PollFd::new(socket, PollFlags::IN)));
        // Interrupted or not: everything is looked at again.
        let _ = poll(&mut all, Some(&timeout));
    }

    fn receive(&self, stream: UnixStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (registry, ends) = (self.registry.clone(), self.ends.clone());
        let connections = self.connections.clone();
        let thread = std::thread::Builder::new().name("metrics-from".into());
        let spawned = thread.spawn(move || {
            receive_all(&mut Link::new(stream), &registry, &ends);
            connections.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn receive_all(link: &mut Link, registry: &Mutex<Registry>, ends: &AtomicBool) {
    let mut sender: Option<Source> = None;
    while !ends.load(Ordering::Relaxed) {
        match link.receive_until::<ToTelemetry>(Instant::now() + LOOK) {
            Ok(None) => {}
            // Who says nothing of itself is not listened to.
            Ok(Some(ToTelemetry::Hello(source))) if sender.is_none() => {
                lock(registry).connected(&source);
                sender = Some(source);
            }
            Ok(Some(message)) => match &sender {
                Some(source) => lock(registry).receive(source, message),
                None => break,
            },
            Err(_) => break,
        }
    }
    // If this process ends, the other one has not: the next process will hear it again.
    if let Some(source) = sender.filter(|_| !ends.load(Ordering::Relaxed)) {
        lock(registry).disconnected(&source);
    }
}
