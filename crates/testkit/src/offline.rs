//! A machine whose network is unplugged.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Brings the loopback up, says so, and holds the namespace until its input ends.
const HOLDER: &str = "
import fcntl, socket, struct, sys
up = struct.pack('16sh14s', b'lo', 0x41, b'')
fcntl.ioctl(socket.socket(), 0x8914, up)
print('up', flush=True)
sys.stdin.read()
";

/// Runs something in a thread, all of whose sockets and processes are in a network of
/// their own that has nothing but a loopback. False when this user may not make one:
/// nothing was run then.
///
/// # Panics
/// When what is run does.
pub fn offline(run: impl FnOnce() + Send) -> bool {
    let mut command = Command::new("unshare");
    command.args(["--net", "python3", "-c", HOLDER]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut holder) = command.stderr(Stdio::null()).spawn() else { return false };
    let mut line = String::new();
    if let Some(out) = holder.stdout.take() {
        let _ = BufReader::new(out).read_line(&mut line);
    }
    let network = File::open(format!("/proc/{}/ns/net", holder.id()));
    let ran = line.trim() == "up" && network.is_ok();
    let ended = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let (true, Ok(network)) = (ran, network) else { return };
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind).expect("into the network");
            run();
        });
        inside.join()
    });
    drop(holder.stdin.take());
    let _ = holder.wait();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
    ran
}
