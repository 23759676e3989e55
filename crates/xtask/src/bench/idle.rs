//! Memory and CPU of a node that nobody asks anything, beside other supervisors.

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_core::status::Status;

use super::cost::{self, Cost, MIB};
use super::machine;
use super::nginx::{Nginx, Server};
use super::peers::{self, Peer, Tools};
use crate::node::{self, Node};
use crate::process;

/// The samples: plugin and template, as `make run` has them.
const SAMPLES: [(&str, &str); 3] =
    [("sample_flask", "python3_flask"), ("sample_node", "node"), ("sample_static", "static")];
/// How often the node is started for the time to start, after one start that is not counted.
const STARTS: usize = 5;
/// How long, and beside whom.
#[derive(Debug, Args)]
pub struct Idle {
    /// How long CPU time and wake-ups are counted, seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only mfserv: nothing is installed from PyPI and npm, nginx is not started.
    #[arg(long)]
    alone: bool,
}

impl Idle {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let machine = machine::line(&[
            ("python3", &["--version"]),
            ("node", &["--version"]),
            ("/usr/sbin/nginx", &["-v"]),
        ]);
        let program = node::build()?;
        let node = Node::new(&program)?;
        for (name, template) in SAMPLES {
            let dir = node.make(template, name)?;
            node.link(&dir)?;
        }
        let starts = cost::starts(&node, STARTS)?;
        let status = node.status()?;
        let own = cost::own(&status, self.seconds)?;
        let workers = workers(&status)?;
        drop(node);
        println!("{machine}\n\n`{}`\n", self.command());
        println!("Idle, after a start that was {}:\n", cost::starts_in_words(&starts));
        cost::print(&own, self.seconds);
        println!("\nWorkers beside them: {workers}.");
        if !self.alone {
            let others = self.others()?;
            println!(
                "\nOther supervisors, each alone with gunicorn (4 workers) and 4 Node servers, and nginx:\n"
            );
            cost::print(&others, self.seconds);
            println!();
            print_ratios(&own, &others);
        }
        Ok(())
    }

    fn command(&self) -> String {
        let alone = if self.alone { " --alone" } else { "" };
        format!("cargo xtask bench idle --seconds {}{alone}", self.seconds)
    }

    /// Each of the others, one after the other.
    fn others(&self) -> Result<Vec<Cost>, Diagnostic> {
        let tools = Tools::install()?;
        let mut costs = Vec::new();
        for kind in peers::KINDS {
            eprintln!("measuring {kind}");
            let peer = Peer::start(kind, &tools)?;
            costs.extend(cost::measure(
                &[(kind.to_string(), vec![peer.supervisor()])],
                self.seconds,
            )?);
        }
        eprintln!("measuring nginx");
        let server = Server::of_sockets("", &["/nonexistent".into()]);
        let nginx = Nginx::start("auto", &[server])?;
        let mut pids = vec![nginx.pid()];
        pids.extend(process::descendants(nginx.pid()));
        costs.extend(cost::measure(
            &[("nginx (master and a worker per core)".to_string(), pids)],
            self.seconds,
        )?);
        Ok(costs)
    }
}

/// The workers of plugins, by plugin.
fn workers(status: &Status) -> Result<String, Diagnostic> {
    let mut parts = Vec::new();
    for watcher in status.watchers.iter().filter(|watcher| watcher.plugin.is_some()) {
        let own = watcher.workers.iter().filter_map(|worker| worker.pid);
        let all: Vec<u32> =
            own.flat_map(|pid| [vec![pid], process::descendants(pid)].concat()).collect();
        let pss = process::pss(&all)? as f64 / MIB;
        parts.push(format!("{} of {} {pss:.0} MiB", watcher.workers.len(), watcher.name));
    }
    Ok(parts.join(", "))
}

/// The memory of each supervisor with nginx, divided by that of mfserv.
fn print_ratios(own: &[Cost], others: &[Cost]) {
    let (Some(own), Some((nginx, supervisors))) = (own.last(), others.split_last()) else { return };
    println!("| | PSS, times that of mfserv |");
    println!("|---|---|");
    for supervisor in supervisors {
        let times = (supervisor.pss_mib + nginx.pss_mib) / own.pss_mib;
        println!("| {} + nginx | {times:.1} |", supervisor.name);
    }
}
