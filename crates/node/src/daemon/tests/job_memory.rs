//! The memory of runs of jobs, measured in a played world.

use std::fs::{self, File};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mfserv_core::job::RunResult;
use mfserv_core::memory::{Mechanism, MemoryControl, MemoryLimits};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::kit::House;

/// Longer than anything takes here, and than a measurement that nobody answers.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn the_daemon_answers_while_the_kernel_takes_its_time_to_say_what_a_run_uses() {
    let cgroup = tempfile::tempdir().unwrap();
    let slow = cgroup.path().join("memory.oom_control");
    mknodat(CWD, &slow, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let (read, is_read) = mpsc::sync_channel(1);
    let (answered, is_answered) = mpsc::sync_channel(1);
    // Whoever reads it waits until the daemon has answered.
    let kernel = thread::spawn(move || {
        let mut file = File::options().write(true).open(&slow).unwrap();
        // The next measurement does not wait.
        fs::remove_file(&slow).unwrap();
        read.send(()).unwrap();
        let in_time = is_answered.recv_timeout(PATIENCE / 2).is_ok();
        std::io::Write::write_all(&mut file, b"oom_kill 1\n").unwrap();
        in_time
    });
    let house = House::new();
    let limits = MemoryLimits { limit: 1 << 25, high: 0 };
    let (mechanism, cgroup) = (Mechanism::CgroupV1, Some(cgroup.path().to_owned()));
    let control = MemoryControl { limits, mechanism, cgroup, why_not_better: String::new() };
    house.keeper.books().run_memory = Some(control);
    let section = "[job_big]\nschedule = 0 0 1 1 *\n_cmd_and_args = big\nmemory_limit = 32M\n";
    house.jobs("hello", "", section);
    let daemon = house.running().await;
    let jobs = &daemon.node.parts.jobs;
    jobs.run("hello.big").await.unwrap();
    let began = Instant::now();
    // Paused time stands still during a measurement: nothing sleeps here.
    while is_read.try_recv().is_err() {
        assert!(began.elapsed() < PATIENCE, "the run is not measured");
        tokio::task::yield_now().await;
    }
    jobs.list().await;
    let _ = answered.send(());
    assert!(kernel.join().unwrap(), "the daemon did nothing else during a measurement");
    let ended = loop {
        assert!(began.elapsed() < PATIENCE, "the run is not killed");
        tokio::task::yield_now().await;
        if let Some(end) = jobs.history("hello.big").await.unwrap().runs.remove(0).end {
            break end.result;
        }
    };
    assert_eq!(ended, RunResult::OutOfMemory { limit_bytes: None });
}
