//! A process that outlives this one and learns of its end: it holds the reading end of a pipe whose
//! other end nobody else has.
//!
//! The program is run anew (so that no lock, thread or memory of this process is in it), in a session
//! of its own, by a helper that ends at once. What ends this process, its group, its session or its
//! parent does not reach it. Which program that is and what it does is the caller's.
#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::io::FdFlags;

use super::clock::Clock;
use super::run::is_password;
use crate::base::path::printable;

/// What is written before the pipe is closed in order.
const CLOSED: u8 = b'D';

/// What the guarding process writes once it watches.
const READY: u8 = b'R';

/// Bytes of a helper's complaint that are kept.
const SAID: u64 = 2000;

/// Time that the guarding process has to say that it watches.
const ARMING: Duration = Duration::from_secs(20);

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// The end that the guarded process holds. Where it is dropped without [`Watchdog::dismiss`], the
/// guard takes this process for dead.
#[derive(Debug)]
pub struct Watchdog {
    pipe: ChildStdin,
}

impl Watchdog {
    /// Runs the program, which has to call [`detach`] and then [`Watch::begin`], and returns when it
    /// watches.
    ///
    /// The environment is this process's, without cabk's own passwords.
    ///
    /// # Errors
    /// What kept it from watching.
    pub fn spawn(program: &Path, arguments: &[OsString], clock: &dyn Clock) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/");
        for (key, _) in std::env::vars_os() {
            if is_password(&key) {
                command.env_remove(key);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut helper = command.spawn()?;
        // It was made with `O_CLOEXEC`: no program that this process runs inherits it.
        let pipe = helper.stdin.take().ok_or_else(|| io::Error::other("there is no pipe"))?;
        let status = wait(&mut helper, ARMING, clock)?;
        if status.success() {
            return Ok(Self { pipe });
        }
        let mut said = Vec::new();
        if let Some(stderr) = helper.stderr.take() {
            stderr.take(SAID).read_to_end(&mut said)?;
        }
        Err(io::Error::other(format!("{status}: {}", printable(said.trim_ascii()))))
    }

    /// Tells the guard that it is not needed any more. A guard that is gone needs no telling.
    pub fn dismiss(mut self) {
        let _ = self.pipe.write_all(&[CLOSED]);
    }
}

/// Waits for a helper to end. One that takes too long is killed.
fn wait(
    helper: &mut Child,
    within: Duration,
    clock: &dyn Clock,
) -> io::Result<std::process::ExitStatus> {
    let began = clock.monotonic();
    loop {
        if let Some(status) = helper.try_wait()? {
            return Ok(status);
        }
        if clock.monotonic().saturating_sub(began) >= within {
            helper.kill()?;
            helper.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not begin to watch"));
        }
        clock.sleep(Duration::from_millis(1));
    }
}

/// The helper's part: leaves the session, runs the program again with these arguments and the same
/// pipe, and returns when that one watches.
///
/// # Errors
/// What kept it from being run, or from watching.
pub fn detach(program: &Path, arguments: &[OsString]) -> io::Result<()> {
    rustix::process::setsid()?;
    close_others_on_exec()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watching = command.spawn()?;
    let mut said = [0];
    let stdout = watching.stdout.take().ok_or_else(|| io::Error::other("there is no pipe"))?;
    match { stdout }.read(&mut said)? {
        1 if said[0] == READY => Ok(()),
        _ => Err(io::Error::other(format!("it ended at once with {}", watching.wait()?))),
    }
}

/// What this process inherited beside its standard streams goes no further.
fn close_others_on_exec() -> io::Result<()> {
    for name in std::fs::read_dir("/proc/self/fd")? {
        let name = name?.file_name();
        let Some(fd) = name.to_str().and_then(|text| text.parse::<RawFd>().ok()) else { continue };
        if fd <= 2 {
            continue;
        }
        // SAFETY: the descriptor was open a moment ago and is borrowed for one call that changes
        // nothing but its flag. Where it is closed already (that of the listing), the call fails.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        match rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC) {
            Ok(()) | Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What became of the guarded process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// It said that no guard is needed any more.
    Closed,
    /// It is gone.
    Gone,
}

/// The guard's end of the pipe, which is its standard input.
pub struct Watch {
    news: Receiver<News>,
    /// What the machine thought of this process before.
    oom_score: Option<String>,
}

impl Watch {
    /// Tells the helper that this process watches, and watches.
    ///
    /// Where that is allowed the machine does not kill this process for memory, until
    /// [`Watch::as_before`].
    ///
    /// # Errors
    /// What the operating system says.
    pub fn begin() -> io::Result<Self> {
        let oom_score = spare_me();
        let (tell, news) = mpsc::channel();
        std::thread::Builder::new().name("watch".into()).spawn(move || {
            // Nobody to tell: the process ends.
            let _ = tell.send(read_news(&mut io::stdin().lock()));
        })?;
        let mut out = io::stdout().lock();
        out.write_all(&[READY])?;
        out.flush()?;
        let nowhere = File::options().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&nowhere)?;
        Ok(Self { news, oom_score })
    }

    /// Waits for news, for at most this long.
    #[must_use]
    pub fn news(&self, within: Duration) -> Option<News> {
        match self.news.recv_timeout(within) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            // The reading thread is gone, and with it all that could be learnt.
            Err(RecvTimeoutError::Disconnected) => Some(News::Gone),
        }
    }

    /// The machine may kill this process for memory as any other: what it starts inherits that.
    pub fn as_before(&mut self) {
        if let Some(score) = self.oom_score.take() {
            // It was allowed to be lowered, so it may be raised.
            let _ = std::fs::write(OOM_SCORE, score);
        }
    }
}

/// The score before, where it could be lowered.
fn spare_me() -> Option<String> {
    let before = std::fs::read_to_string(OOM_SCORE).ok()?;
    std::fs::write(OOM_SCORE, "-1000").ok()?;
    Some(before.trim().to_owned())
}

fn read_news(pipe: &mut dyn Read) -> News {
    let mut byte = [0];
    loop {
        return match pipe.read(&mut byte) {
            Ok(1) if byte[0] == CLOSED => News::Closed,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => News::Gone,
        };
    }
}

/// This program, to be run anew, also where its file was replaced meanwhile.
#[must_use]
pub fn this_program() -> &'static Path {
    Path::new(OsStr::new("/proc/self/exe"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;

    #[test]
    fn the_closing_byte_is_told_from_an_end() {
        assert_eq!(read_news(&mut &b"D"[..]), News::Closed);
        assert_eq!(read_news(&mut &b""[..]), News::Gone);
        assert_eq!(read_news(&mut &b"x"[..]), News::Gone);
    }

    #[test]
    fn a_helper_that_fails_says_why() {
        let words = ["-c", "echo no room >&2; exit 7"].map(OsString::from);
        let error = Watchdog::spawn(Path::new("/bin/sh"), &words, &SystemClock).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no room") && text.contains('7'), "{text}");
        assert!(Watchdog::spawn(Path::new("/none"), &[], &SystemClock).is_err());
    }
}
