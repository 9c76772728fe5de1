//! Running another program within a bound of time.
//!
//! Output goes to unnamed memory (`memfd`), not to pipes. A service that a start command leaves
//! behind keeps its standard output: on a pipe it would die of `SIGPIPE` at its next line, once
//! cabk has closed the other end, and until then it would keep us waiting for an end of file. With
//! a `memfd` nothing needs a reader, a full disk cannot keep a service from being started, and the
//! command has ended when its process has. A service that writes much should redirect its output,
//! for what it writes stays in memory while it lives.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::base::path::printable;
use crate::host::clock::Clock;

#[cfg(test)]
mod tests;

/// Bytes of each stream that are kept; what lies beyond is counted.
pub const KEPT_OUTPUT: usize = 64 * 1024;

/// Bytes of one stream at which a program is killed: it runs wild, and its output lies in memory.
pub const MAX_OUTPUT: u64 = 64 * 1024 * 1024;

/// Time between the request to end (`SIGTERM`) and the end by force (`SIGKILL`).
const TERM_GRACE: Duration = Duration::from_millis(300);

/// Time for a process that was killed to be gone; longer only where the kernel holds it.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// A command that an operator gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandLine {
    /// One string, run by `/bin/sh -c`.
    Shell(String),
    /// A program, found on `PATH`, and its arguments; no shell.
    Argv(Vec<String>),
}

impl CommandLine {
    /// The command for people, control characters escaped.
    #[must_use]
    pub fn display(&self) -> String {
        match self {
            Self::Shell(text) => printable(text.as_bytes()),
            Self::Argv(words) => printable(words.join(" ").as_bytes()),
        }
    }

    fn words(&self) -> Vec<OsString> {
        match self {
            Self::Shell(text) => vec!["/bin/sh".into(), "-c".into(), text.into()],
            Self::Argv(words) => words.iter().map(OsString::from).collect(),
        }
    }
}

/// What a program wrote to one stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Captured {
    /// The first bytes, at most [`KEPT_OUTPUT`].
    pub kept: Vec<u8>,
    /// All bytes, those not kept among them.
    pub total: u64,
}

impl Captured {
    /// Whether bytes were left out.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.total > u64::try_from(self.kept.len()).unwrap_or(u64::MAX)
    }

    /// What was kept as text, without white space at its end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim_end().to_owned()
    }
}

/// A program that ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Finished {
    /// How it ended, for people: `exit code 1`, `signal 9`.
    #[must_use]
    pub fn ending(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        }
    }

    /// The end of what it said, for an error: standard error, or standard output where that is
    /// empty; at most 400 characters, control characters escaped.
    #[must_use]
    pub fn said(&self) -> String {
        excerpt(&self.stdout, &self.stderr)
    }
}

/// What kept a program from ending by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The command has no words.
    #[error("the command is empty")]
    Empty,
    /// It could not be started.
    #[error("cannot run {command}")]
    Spawn {
        /// The command.
        command: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// It could not be waited for.
    #[error("cannot wait for {command}")]
    Wait {
        /// The command.
        command: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// It did not end in time, and its process group was ended.
    #[error("{command} did not end within {} ms{}", after.as_millis(), colon(output))]
    TimedOut {
        /// The command.
        command: String,
        /// The time that it had.
        after: Duration,
        /// The end of what it said until then.
        output: String,
    },
    /// The node that it was to run on cannot be reached.
    #[error("{node} cannot be reached{}", colon(said))]
    Unreachable {
        /// The node's address.
        node: String,
        /// The end of what `ssh` said.
        said: String,
    },
    /// It wrote more than [`MAX_OUTPUT`] bytes, and its process group was ended.
    #[error("{command} wrote more than {MAX_OUTPUT} bytes")]
    TooMuchOutput {
        /// The command.
        command: String,
    },
}

/// `text` behind a colon, or nothing.
pub(crate) fn colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Runs a command until it ends, for at most `timeout`; then its process group is ended.
///
/// The environment is this process's, without cabk's own passwords, and `env` on top. Standard
/// input is empty. Processes that the command leaves behind are not waited for and stay alive.
///
/// # Errors
/// [`RunError`]; a command that fails is no error here, its status is in the result.
pub fn run_bounded(
    command: &CommandLine,
    env: &[(&str, &OsStr)],
    timeout: Duration,
    clock: &dyn Clock,
) -> Result<Finished, RunError> {
    run_words(&command.words(), env, timeout, clock)
}

/// As [`run_bounded`], in a directory of its own where one is given.
///
/// # Errors
/// As [`run_bounded`].
pub fn run_within(
    command: &CommandLine,
    env: &[(&str, &OsStr)],
    dir: Option<&Path>,
    timeout: Duration,
    clock: &dyn Clock,
) -> Result<Finished, RunError> {
    let around = Surroundings { env, dir, ..Surroundings::default() };
    run_with(&command.words(), &around, timeout, clock)
}

/// As [`run_bounded`], for a program with arguments that need not be text.
///
/// # Errors
/// As [`run_bounded`].
pub fn run_words(
    words: &[OsString],
    env: &[(&str, &OsStr)],
    timeout: Duration,
    clock: &dyn Clock,
) -> Result<Finished, RunError> {
    run_with(words, &Surroundings { env, ..Surroundings::default() }, timeout, clock)
}

/// What a program gets beside its arguments, and what is kept of it.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Variables on top of this process's own.
    pub env: &'a [(&'a str, &'a OsStr)],
    /// What it reads on standard input, whole before it begins: nobody has to write while it runs.
    pub input: &'a [u8],
    /// Bytes of each stream that are kept.
    pub keep: usize,
    /// What it is called in messages, instead of all its words.
    pub name: Option<&'a str>,
    /// The directory that it runs in, instead of this process's own.
    pub dir: Option<&'a Path>,
}

impl Default for Surroundings<'_> {
    fn default() -> Self {
        Self { env: &[], input: &[], keep: KEPT_OUTPUT, name: None, dir: None }
    }
}

/// As [`run_words`], with an input and bounds of its own.
///
/// # Errors
/// As [`run_bounded`].
pub fn run_with(
    words: &[OsString],
    around: &Surroundings<'_>,
    timeout: Duration,
    clock: &dyn Clock,
) -> Result<Finished, RunError> {
    let (program, arguments) = words.split_first().ok_or(RunError::Empty)?;
    if program.is_empty() {
        return Err(RunError::Empty);
    }
    let all = || printable(words.join(OsStr::new(" ")).as_encoded_bytes());
    let name = around.name.map_or_else(all, str::to_owned);
    let spawn_error = |source: io::Error| RunError::Spawn { command: name.clone(), source };
    let streams = Streams::new().map_err(spawn_error)?;
    let began = clock.monotonic();
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    if let Some(dir) = around.dir {
        command.current_dir(dir);
    }
    command.stdin(input(around.input).map_err(spawn_error)?);
    for (key, _) in std::env::vars_os() {
        if is_password(&key) {
            command.env_remove(key);
        }
    }
    command.envs(around.env.iter().copied());
    command.stdout(streams.out.try_clone().map_err(spawn_error)?);
    command.stderr(streams.err.try_clone().map_err(spawn_error)?);
    let mut child = command.spawn().map_err(spawn_error)?;
    let elapsed = || clock.monotonic().saturating_sub(began);
    let wait_error = |source: io::Error| RunError::Wait { command: name.clone(), source };
    loop {
        if let Some(status) = child.try_wait().map_err(wait_error)? {
            let (stdout, stderr) = streams.read(around.keep).map_err(wait_error)?;
            return Ok(Finished { status, stdout, stderr, elapsed: elapsed() });
        }
        let wild = streams.len().map_err(wait_error)? > MAX_OUTPUT;
        if wild || elapsed() >= timeout {
            end_group(&mut child, clock).map_err(wait_error)?;
            if wild {
                return Err(RunError::TooMuchOutput { command: name });
            }
            let (stdout, stderr) = streams.read(KEPT_OUTPUT).map_err(wait_error)?;
            let output = excerpt(&stdout, &stderr);
            return Err(RunError::TimedOut { command: name, after: timeout, output });
        }
        clock.sleep(pause(elapsed()).min(timeout.saturating_sub(elapsed())));
    }
}

/// A standard input that holds these bytes.
fn input(bytes: &[u8]) -> io::Result<Stdio> {
    if bytes.is_empty() {
        return Ok(Stdio::null());
    }
    let made = rustix::fs::memfd_create("cabk-stdin", rustix::fs::MemfdFlags::CLOEXEC)?;
    let file = File::from(made);
    // The position stays at the beginning.
    file.write_all_at(bytes, 0)?;
    Ok(file.into())
}

/// Whether a variable holds a password of cabk's.
pub(crate) fn is_password(key: &OsStr) -> bool {
    let key = key.as_encoded_bytes();
    key.starts_with(b"CABK_") && key.ends_with(b"PASSWORD")
}

/// How long to sleep between two looks: short at first, for the window counts milliseconds.
fn pause(elapsed: Duration) -> Duration {
    Duration::from_millis(match elapsed.as_millis() {
        0..200 => 1,
        200..5_000 => 5,
        _ => 25,
    })
}

/// Ends the process group of a child that has not been waited for yet, and waits for the child.
fn end_group(child: &mut Child, clock: &dyn Clock) -> io::Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = group.ok_or_else(|| io::Error::other("the child has no process id"))?;
    // The child stays unreaped until its group was killed: so nobody else can have its number.
    signal_group(group, Signal::TERM)?;
    let began = clock.monotonic();
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while clock.monotonic().saturating_sub(began) < TERM_GRACE
        && rustix::process::waitid(WaitId::Pid(group), look)?.is_none()
    {
        clock.sleep(Duration::from_millis(2));
    }
    signal_group(group, Signal::KILL)?;
    let killed = clock.monotonic();
    while child.try_wait()?.is_none() {
        if clock.monotonic().saturating_sub(killed) >= KILL_GRACE {
            return Err(io::Error::other("the process was killed and is still there"));
        }
        clock.sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Signals a group; one that is gone is no error.
fn signal_group(group: Pid, signal: Signal) -> io::Result<()> {
    match rustix::process::kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Where a child's output goes.
struct Streams {
    out: File,
    err: File,
}

impl Streams {
    fn new() -> io::Result<Self> {
        let make = |name: &str| {
            rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map(File::from)
        };
        Ok(Self { out: make("cabk-stdout")?, err: make("cabk-stderr")? })
    }

    /// Bytes of the longer of both.
    fn len(&self) -> io::Result<u64> {
        Ok(self.out.metadata()?.len().max(self.err.metadata()?.len()))
    }

    fn read(&self, keep: usize) -> io::Result<(Captured, Captured)> {
        Ok((captured(&self.out, keep)?, captured(&self.err, keep)?))
    }
}

fn captured(file: &File, keep: usize) -> io::Result<Captured> {
    let total = file.metadata()?.len();
    let wanted = usize::try_from(total).unwrap_or(keep).min(keep);
    let mut kept = vec![0; wanted];
    // The position is shared with the child, so it is neither used nor moved.
    file.read_exact_at(&mut kept, 0)?;
    Ok(Captured { kept, total })
}

/// The end of what a program said, for an error message.
fn excerpt(stdout: &Captured, stderr: &Captured) -> String {
    const MOST: usize = 400;
    let mut text = stderr.text();
    if text.trim().is_empty() {
        text = stdout.text();
    }
    let text = printable(text.trim().as_bytes());
    let length = text.chars().count();
    if length <= MOST {
        return text;
    }
    let tail: String = text.chars().skip(length - MOST).collect();
    format!("... {tail}")
}
