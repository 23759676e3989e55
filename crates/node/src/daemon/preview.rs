//! What a reload would do: the plan is made as a reload makes it, and is not applied.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use mfserv_core::Diagnostic;
use mfserv_core::plan::Plan;
use mfserv_core::plan::preview::{Measured, PlanPreview};
use mfserv_core::status::WatcherStatus;
use mfserv_platform::disk::Disk;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::DaemonOptions;
use super::node::Node;
use super::reconcile::look;
use crate::port_holder;

impl Node {
    /// What a reload would do now. Nothing is changed, and nothing is written.
    pub(super) async fn preview(&self) -> Result<PlanPreview, Diagnostic> {
        self.refuse_while_stopping()?;
        let current = self.shown_plan()?;
        let measured = measured(self.parts.supervisor.status().await);
        let (options, disk) = (self.parts.options.clone(), self.parts.world.disk.clone());
        // The disk and the resolver may be slow: the event loop must not wait for them.
        let made = tokio::task::spawn_blocking(move || {
            preview(&options, &*disk, Some(&current), &measured)
        });
        made.await.map_err(|e| Diagnostic::error("making the plan failed").because(e))?
    }
}

/// What the plan of the present configuration would change of this one.
pub fn preview(
    options: &DaemonOptions,
    disk: &dyn Disk,
    current: Option<&Plan>,
    measured: &Measured,
) -> Result<PlanPreview, Diagnostic> {
    let plan = look(options, disk, current)?.plan;
    let mut preview = PlanPreview::between(current, &plan, measured);
    preview.problems.extend(preview.listen.iter().filter_map(|address| taken(address)));
    Ok(preview)
}

fn measured(watchers: Vec<WatcherStatus>) -> Measured {
    let of = |watcher: WatcherStatus| {
        let memory = watcher.workers.iter().filter_map(|worker| worker.memory_bytes).collect();
        (watcher.name, memory)
    };
    watchers.into_iter().map(of).collect()
}

/// Why the keeper could not listen on an address. It is bound and not listened on: that fails
/// beside a listener, takes no client from anybody, and hinders no reload at the same moment.
fn taken(address: &str) -> Option<Diagnostic> {
    let numeric = address.replace("localhost:", "127.0.0.1:");
    let to: SocketAddr = numeric.parse().ok()?;
    let error = std::io::Error::from(bound(&to).err()?);
    Some(port_holder::refused(address, &error.to_string()))
}

fn bound(to: &SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, to)?;
    Ok(socket)
}
