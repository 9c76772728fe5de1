//! One window a site: a lock that ends with its holder, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::FdFlags;

use super::intent::{IntentError, IntentStore};
use crate::base::path::{bytes, printable};
use crate::host::clock::Clock;
use crate::host::signal::Interrupt;

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// The shortest time between two tries.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// Time for a child of a dead holder to become its own program.
const LATE_CHILD: Duration = Duration::from_secs(5);

/// Bytes of a lock file that are looked at: it only names its holder.
const HOLDER_BYTES: u64 = 200;

/// What kept a lock from being taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has a window of this site.
    #[error("another run has the window of this site{}", held_by(holder))]
    Busy {
        /// What the holder wrote of itself.
        holder: Option<String>,
    },
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// The state directory could not be made.
    #[error("the state directory cannot be used")]
    State(#[from] IntentError),
    /// A call failed.
    #[error("cannot lock {}", printable(bytes(path)))]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

fn held_by(holder: &Option<String>) -> String {
    holder.as_ref().map(|who| format!(" ({who})")).unwrap_or_default()
}

/// The right to open a window of a site. It is held while any clone of it lives.
#[derive(Clone, Debug)]
pub struct SiteLock {
    site: String,
    _file: Arc<File>,
}

impl SiteLock {
    /// Takes the lock, waiting for at most `wait`.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(
        store: &IntentStore,
        site: &str,
        wait: Duration,
        clock: &dyn Clock,
        interrupt: &Interrupt,
    ) -> Result<Self, LockError> {
        store.prepare()?;
        let path = store.path(site, "lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut file = open(&path).map_err(failed)?;
        let began = clock.monotonic();
        while !try_lock(&file).map_err(failed)? {
            let waited = clock.monotonic().saturating_sub(began);
            if interrupt.is_set() {
                return Err(LockError::Interrupted);
            }
            if waited >= wait {
                let holder = holder(&mut file);
                // A child that was being made when its parent was killed holds what it inherited
                // until it becomes its own program.
                let soon = waited < LATE_CHILD && holder.as_deref().is_some_and(is_gone);
                if !soon {
                    return Err(LockError::Busy { holder });
                }
            }
            clock.sleep(PAUSE.min(wait.saturating_sub(waited).max(SHORT_PAUSE)));
        }
        // For the message of those who have to wait: the lock itself does not need it.
        let text = format!("process {} since {}", std::process::id(), clock.now());
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)?;
        Ok(Self { site: site.to_owned(), _file: Arc::new(file) })
    }

    /// The site that it is about.
    #[must_use]
    pub fn site(&self) -> &str {
        &self.site
    }
}

/// A lock that the commands run meanwhile inherit, so that it is held while a stop is under way
/// even when the process that asked for it was killed.
pub(super) struct StopLock {
    file: File,
}

impl StopLock {
    /// Takes it, waiting for at most `wait`; `None` where a stop is still under way.
    pub(super) fn acquire(
        store: &IntentStore,
        site: &str,
        wait: Duration,
        clock: &dyn Clock,
    ) -> Result<Option<Self>, LockError> {
        store.prepare()?;
        let path = store.path(site, "stop");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let file = open(&path).map_err(failed)?;
        let began = clock.monotonic();
        while !try_lock(&file).map_err(failed)? {
            let waited = clock.monotonic().saturating_sub(began);
            if waited >= wait {
                return Ok(None);
            }
            clock.sleep(PAUSE.min(wait.saturating_sub(waited)));
        }
        Ok(Some(Self { file }))
    }

    /// Does something whose child processes inherit the lock.
    pub(super) fn inherited<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        let flags = rustix::io::fcntl_getfd(self.file.as_fd())?;
        rustix::io::fcntl_setfd(self.file.as_fd(), flags - FdFlags::CLOEXEC)?;
        let done = act();
        rustix::io::fcntl_setfd(self.file.as_fd(), flags)?;
        Ok(done)
    }
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path)
}

fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether the process that wrote this is not there any more.
fn is_gone(holder: &str) -> bool {
    let pid = holder.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
    let pid = pid.and_then(|digits| digits.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// What the holder wrote; nothing where it did not come to it.
fn holder(file: &mut File) -> Option<String> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(HOLDER_BYTES).read_to_end(&mut text).ok()?;
    Some(printable(&text)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::{SimClock, SystemClock};

    #[test]
    fn one_window_a_site_and_the_wait_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = IntentStore::open(dir.path());
        let (clock, interrupt) = (SimClock::new(), Interrupt::manual());
        let take = |site: &str, secs| {
            SiteLock::acquire(&store, site, Duration::from_secs(secs), &clock, &interrupt)
        };
        let first = take("a", 0).unwrap();
        let clone = first.clone();
        let other = take("b", 0).unwrap();
        assert_eq!(other.site(), "b");
        let began = clock.monotonic();
        match take("a", 3) {
            Err(LockError::Busy { holder: Some(who) }) => {
                assert!(who.starts_with(&format!("process {} since ", std::process::id())));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(clock.monotonic() - began, Duration::from_secs(3));
        drop(first);
        assert!(matches!(take("a", 0), Err(LockError::Busy { .. })), "a clone holds it");
        interrupt.trigger();
        assert!(matches!(take("a", 9), Err(LockError::Interrupted)));
        drop(clone);
        // A child that another test forks holds it until it becomes its program.
        let wait = Duration::from_secs(5);
        SiteLock::acquire(&store, "a", wait, &SystemClock, &Interrupt::manual()).unwrap();
    }

    #[test]
    fn a_stop_is_under_way_while_its_command_lives() {
        let dir = tempfile::tempdir().unwrap();
        let store = IntentStore::open(dir.path());
        let take = |millis| {
            let wait = Duration::from_millis(millis);
            StopLock::acquire(&store, "a", wait, &SystemClock).unwrap()
        };
        let lock = take(0).unwrap();
        let mut child = lock
            .inherited(|| std::process::Command::new("sleep").arg("60").spawn().unwrap())
            .unwrap();
        drop(lock);
        assert!(take(200).is_none(), "the command holds it");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(take(10_000).is_some());
    }

    #[test]
    fn a_dead_holder_is_told_from_a_living_one() {
        let own = format!("process {} since 2026-01-01T00:00:00Z", std::process::id());
        assert!(!is_gone(&own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(is_gone(&format!("process {pid} since 2026-01-01T00:00:00Z")));
        assert!(!is_gone("nonsense") && !is_gone("process x since y"));
    }
}
