//! The work of this process done by a second one, for whose end nobody need wait.
//!
//! A call of the kernel for which a file server or a FUSE process never answers cannot be ended, and
//! a process with a thread in such a call cannot end either: whoever waits for it waits for the
//! server. So where sources lie on such file systems the program runs itself anew, with the same
//! standard streams. The second process says what it would end with; the first one ends with that,
//! and leaves the second to end when it can. What asks the first to end asks the second, and the end
//! of the first is that of the second.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::clock::Clock;
use super::signal::Interrupt;

/// How often the first process looks.
const TICK: Duration = Duration::from_millis(10);

/// Time that the second process has to end once it has said with what.
const ENDING: Duration = Duration::from_secs(1);

/// Where the second process says what it ends with, and who waits for that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aside {
    fd: u32,
    parent: i32,
}

impl FromStr for Aside {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (fd, parent) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { fd: fd.parse()?, parent: parent.parse()? })
    }
}

/// Runs a program with these arguments and one more, which it has to parse into an [`Aside`] and
/// begin with, and gives the code that it said, or that it ended with.
///
/// # Errors
/// What kept it from being run.
pub fn run(
    program: &Path,
    arguments: &[OsString],
    option: &str,
    interrupt: &Interrupt,
    clock: &dyn Clock,
) -> io::Result<u8> {
    // Its other end goes to the child, who keeps it from its own.
    let (read, write) = rustix::pipe::pipe()?;
    rustix::io::fcntl_setfd(&read, FdFlags::CLOEXEC)?;
    let (first, rest) = arguments.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.arg0(first).args(rest).arg(option);
    command.arg(format!("{}:{}", write.as_raw_fd(), std::process::id()));
    let mut child = command.spawn()?;
    drop(write);
    let said = listen(read);
    let pid = Pid::from_child(&child);
    let mut told = 0;
    let mut code = None;
    let mut since = clock.monotonic();
    loop {
        if let Some(status) = child.try_wait()? {
            let ended = status.code().or(status.signal().map(|signal| 128 + signal));
            let last = said.try_recv().ok().or(code);
            return Ok(last.unwrap_or(ended.and_then(|n| u8::try_from(n).ok()).unwrap_or(1)));
        }
        if code.is_none() {
            code = said.try_recv().ok();
            since = clock.monotonic();
        }
        if let Some(code) = code.filter(|_| clock.monotonic().saturating_sub(since) >= ENDING) {
            return Ok(code);
        }
        if interrupt.count() > told {
            told = interrupt.count();
            let signal = interrupt.signal().and_then(Signal::from_named_raw);
            // One that has just ended need not be told.
            let _ = kill_process(pid, signal.unwrap_or(Signal::TERM));
        }
        clock.sleep(TICK);
    }
}

fn listen(read: OwnedFd) -> mpsc::Receiver<u8> {
    let (send, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut code = [0];
        if File::from(read).read_exact(&mut code).is_ok() {
            // Nobody listens any more where the child has ended meanwhile.
            let _ = send.send(code[0]);
        }
    });
    said
}

impl Aside {
    /// The second process's beginning: its end is that of the first one.
    ///
    /// # Errors
    /// Where the first one is gone, or this was not called by it.
    pub fn begin(&self) -> io::Result<Telling> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let parent = rustix::process::getppid().map(Pid::as_raw_pid);
        if parent != Some(self.parent) {
            return Err(io::Error::other("the process that waits for this one is gone"));
        }
        // Opened anew: this one is closed for the programs that this process runs.
        let pipe = File::options().write(true).open(format!("/proc/self/fd/{}", self.fd))?;
        Ok(Telling { pipe })
    }
}

/// The second process's word.
pub struct Telling {
    pipe: File,
}

impl Telling {
    /// Says what this process ends with, at the very end. Its standard streams end with it, though
    /// a thread of it may live on.
    pub fn tell(mut self, code: u8) {
        // Whoever cannot be told sees the end of the process.
        let _ = io::stdout().flush();
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        let _ = self.pipe.write_all(&[code]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;

    fn run_shell(script: &str) -> io::Result<u8> {
        let arguments = ["sh", "-c", script].map(OsString::from);
        run(Path::new("/bin/sh"), &arguments, "x", &Interrupt::manual(), &SystemClock)
    }

    #[test]
    fn the_code_that_was_said_counts_and_nobody_waits_longer() -> io::Result<()> {
        assert_eq!(run_shell("exit 7")?, 7);
        assert_eq!(run_shell("kill -KILL $$")?, 137);
        let began = SystemClock.monotonic();
        let script = r"printf '\004' >/proc/self/fd/${1%:*}; exec sleep 20 >&- 2>&-";
        let said = run_shell(script)?;
        assert_eq!(said, 4);
        assert!(SystemClock.monotonic().saturating_sub(began) < Duration::from_secs(15));
        Ok(())
    }

    #[test]
    fn what_asks_the_first_to_end_asks_the_second() -> io::Result<()> {
        let interrupt = Interrupt::manual();
        interrupt.trigger();
        let arguments = ["sh", "-c", "trap 'exit 9' INT TERM; while :; do sleep 0.05; done"];
        let arguments = arguments.map(OsString::from);
        let code = run(Path::new("/bin/sh"), &arguments, "x", &interrupt, &SystemClock)?;
        // It may be told before it listens.
        assert!(code == 9 || code == 130, "{code}");
        Ok(())
    }

    #[test]
    fn the_option_is_a_descriptor_and_a_process() {
        assert!("x:1".parse::<Aside>().is_err() && "1".parse::<Aside>().is_err());
        assert_eq!("3:7".parse(), Ok(Aside { fd: 3, parent: 7 }));
    }
}
