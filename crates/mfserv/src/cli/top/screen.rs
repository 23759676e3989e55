//! The terminal while `top` has it: no echo, its second screen, no cursor. It is given back as it
//! was, whatever ends the program but SIGKILL.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mfserv_platform::sync::lock;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use rustix::time::Timespec;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use std::sync::Mutex;

/// The second screen, without a cursor; lines that are too long are cut.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// The first screen as it was.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// What a terminal has that does not say its size.
const USUAL: (usize, usize) = (80, 24);
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];

/// What restores the terminal.
struct Restore {
    terminal: OwnedFd,
    before: Termios,
    is_taken: AtomicBool,
}

impl Restore {
    fn take(&self) -> io::Result<()> {
        let mut taken = self.before.clone();
        // Keys of signals work: Ctrl-Z stops every process of this job, as it should.
        taken.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
        taken.special_codes[SpecialCodeIndex::VMIN] = 1;
        taken.special_codes[SpecialCodeIndex::VTIME] = 0;
        self.is_taken.store(true, Ordering::SeqCst);
        tcsetattr(&self.terminal, OptionalActions::Flush, &taken)?;
        self.write(ENTER)
    }

    fn give_back(&self) {
        if self.is_taken.swap(false, Ordering::SeqCst) {
            // A terminal that has gone needs nothing.
            let _ = self.write(LEAVE);
            let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
        }
    }

    fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.terminal, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// The terminal has sent something.
    Input,
    /// It has another size, or shows something else.
    Changed,
    /// Somebody called [`Waker::wake`], or the time is over.
    Time,
    /// The program is to end.
    End,
}

/// The terminal.
pub struct Screen {
    restore: Arc<Restore>,
    input: File,
    woken: UnixStream,
    wake: UnixStream,
    signals: Vec<(i32, Arc<AtomicBool>)>,
}

/// Ends the waiting of a screen.
pub struct Waker(UnixStream);

impl Waker {
    /// Something is there to be shown.
    pub fn wake(&mut self) {
        // If it is full, it wakes all the same.
        let _ = self.0.write(&[0]);
    }
}

/// The screen that a panic gives back before it says anything.
static TAKEN: OnceLock<Mutex<Option<Arc<Restore>>>> = OnceLock::new();

fn give_back_before_a_panic(restore: &Arc<Restore>) {
    let taken = TAKEN.get_or_init(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |what| {
            let taken = TAKEN.get().and_then(|taken| lock(taken).clone());
            taken.iter().for_each(|restore| restore.give_back());
            usual(what);
        }));
        Mutex::default()
    });
    *lock(taken) = Some(restore.clone());
}

impl Screen {
    /// Takes a terminal: where it is read, and where it is written.
    ///
    /// # Errors
    /// It is no terminal, or has gone.
    pub fn take(input: File, output: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&output)?;
        let restore =
            Arc::new(Restore { terminal: output, before, is_taken: AtomicBool::new(false) });
        let (woken, wake) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let mut signals = Vec::new();
        for signal in [SIGWINCH, SIGTSTP, SIGCONT].into_iter().chain(ENDING) {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, flag.clone())?;
            signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
            signals.push((signal, flag));
        }
        give_back_before_a_panic(&restore);
        let screen = Self { restore, input, woken, wake, signals };
        screen.restore.take()?;
        Ok(screen)
    }

    /// Another thread may end the waiting with it.
    pub fn waker(&self) -> io::Result<Waker> {
        Ok(Waker(self.wake.try_clone()?))
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(&self.restore.terminal).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        size.filter(|(columns, lines)| *columns > 0 && *lines > 0).unwrap_or(USUAL)
    }

    /// Writes bytes to the terminal.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.restore.write(bytes)
    }

    /// Reads what the terminal has sent.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 256];
        let count = self.input.read(&mut bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Waits until something happens, at most so long.
    pub fn wait(&mut self, time: Duration) -> Happened {
        let timeout =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let mut all =
            [PollFd::new(&self.input, PollFlags::IN), PollFd::new(&self.woken, PollFlags::IN)];
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut all, Some(&timeout));
        let has_input = !all[0].revents().is_empty();
        let mut some = [0; 64];
        while (&self.woken).read(&mut some).is_ok_and(|count| count == some.len()) {}
        if ENDING.iter().any(|signal| self.came(*signal)) {
            return Happened::End;
        }
        if self.came(SIGTSTP) {
            self.stop();
            return Happened::Changed;
        }
        // Stopped by SIGSTOP, which nobody can notice before.
        if self.came(SIGCONT) {
            return if self.restore.take().is_ok() { Happened::Changed } else { Happened::End };
        }
        match (self.came(SIGWINCH), has_input) {
            (true, _) => Happened::Changed,
            (false, true) => Happened::Input,
            (false, false) => Happened::Time,
        }
    }

    fn came(&self, signal: i32) -> bool {
        let flag = self.signals.iter().find(|(known, _)| *known == signal);
        flag.is_some_and(|(_, flag)| flag.swap(false, Ordering::SeqCst))
    }

    /// Stops this process, as SIGTSTP would have done, and goes on when it is continued.
    fn stop(&self) {
        self.restore.give_back();
        let _ = kill_process(getpid(), Signal::STOP);
        self.came(SIGCONT);
        let _ = self.restore.take();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.restore.give_back();
        if let Some(taken) = TAKEN.get() {
            *lock(taken) = None;
        }
    }
}

/// Standard output, as a terminal.
pub fn standard_output() -> io::Result<OwnedFd> {
    io::stdout().as_fd().try_clone_to_owned()
}

/// Standard input, as a terminal.
pub fn standard_input() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_terminal_is_given_back_before_a_panic_says_anything() {
        let (ours, theirs) = mfserv_testkit::pty();
        let before = tcgetattr(&theirs).unwrap();
        let is_raw =
            |terminal: &File| !tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO);
        let (input, output) = (theirs.try_clone().unwrap(), theirs.try_clone().unwrap().into());
        let looked = theirs.try_clone().unwrap();
        let panicked = std::panic::catch_unwind(move || {
            let _screen = Screen::take(input, output).unwrap();
            assert!(is_raw(&looked), "taken");
            panic!("on purpose");
        });
        assert!(panicked.is_err() && theirs.as_raw_fd() > 0);
        assert_eq!(tcgetattr(&theirs).unwrap().local_modes, before.local_modes);
        let expected = [ENTER, LEAVE].concat();
        let mut said = vec![0; expected.len()];
        File::from(ours).read_exact(&mut said).unwrap();
        assert_eq!(said, expected);
    }
}
