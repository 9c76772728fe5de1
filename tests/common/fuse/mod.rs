//! A FUSE file system of the tests' own, which stands for a network file system: it passes
//! everything to a directory below, and adds what a network adds. Each metadata call can take a
//! while, what the kernel keeps may be stale (two views of one directory do not see each other's
//! changes until their time is over), and calls for a name can hang or fail.
//!
//! Requests are answered side by side, however many are outstanding: each is worked on at once,
//! and only its answer waits.

#![allow(dead_code, reason = "each user takes its part")]
#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

mod below;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use fuser::{BackgroundSession, Config, MountOption};

/// How a view behaves.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What each metadata call takes longer; reading, writing and closing do not.
    pub(crate) delay: Duration,
    /// How long the kernel may answer for attributes and names by itself.
    pub(crate) ttl: Duration,
    /// The kernel keeps listings of directories, too, until it sees one changed.
    pub(crate) keep_listings: bool,
    /// The kernel keeps content over closing and opening, until it sees a file changed.
    pub(crate) keep_content: bool,
    /// A listing brings the attributes along.
    pub(crate) listings_with_attributes: bool,
    /// No inode number is used twice; costs an open file for each inode.
    pub(crate) numbers_are_unique: bool,
    /// The server's clock stands still: this is the time of every change.
    pub(crate) clock: Option<SystemTime>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            ttl: Duration::ZERO,
            keep_listings: false,
            keep_content: false,
            listings_with_attributes: false,
            numbers_are_unique: false,
            clock: None,
        }
    }
}

impl Options {
    /// For a bench: each metadata call takes `delay` longer, and nothing is ever stale.
    pub(crate) fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// Like a network file system whose caches answer for `ttl`.
    pub(crate) fn stale_for(ttl: Duration) -> Self {
        Self {
            ttl,
            keep_listings: true,
            keep_content: true,
            numbers_are_unique: true,
            ..Self::default()
        }
    }
}

/// A kind of call that can be made to hang or to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Op {
    /// A name is looked for in its directory.
    Lookup,
    /// Attributes of what is known already.
    Getattr,
    Opendir,
    Readdir,
    Open,
    Read,
    Readlink,
    Xattr,
    /// Whatever changes something.
    Change,
}

/// What happens to the calls of one kind for one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    Hang,
    Fail,
}

type Answer = Box<dyn FnOnce() + Send>;

/// What is shared by a view, its threads and the test.
#[derive(Default)]
struct Shared {
    delay: Mutex<Duration>,
    troubles: Mutex<BTreeMap<(Op, OsString), Trouble>>,
    calls: Mutex<BTreeMap<Op, u64>>,
    waiting: Mutex<VecDeque<(Instant, Answer)>>,
    woken: Condvar,
    parked: Mutex<Vec<Answer>>,
    /// Nothing is answered any more.
    silent: AtomicBool,
    ended: AtomicBool,
}

impl Shared {
    /// Counts a call for a name, and answers it when its time has come. Gives an error instead if
    /// it is to fail.
    fn serve(&self, op: Op, name: &OsStr, answer: impl FnOnce(io::Result<()>) + Send + 'static) {
        *self.calls.lock().unwrap().entry(op).or_default() += 1;
        let trouble = self.troubles.lock().unwrap().get(&(op, name.to_owned())).copied();
        let silent = self.silent.load(Ordering::Acquire).then_some(Trouble::Hang);
        match silent.or(trouble) {
            Some(Trouble::Hang) => self.parked.lock().unwrap().push(Box::new(|| answer(Ok(())))),
            Some(Trouble::Fail) => answer(Err(io::Error::from_raw_os_error(5))),
            None => {
                let delay = *self.delay.lock().unwrap();
                if op == Op::Read || delay.is_zero() {
                    return answer(Ok(()));
                }
                let due = Instant::now() + delay;
                self.waiting.lock().unwrap().push_back((due, Box::new(|| answer(Ok(())))));
                self.woken.notify_one();
            }
        }
    }

    /// Gives the answers whose time has come, until the end.
    fn answer_in_time(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        while !self.ended.load(Ordering::Acquire) {
            let now = Instant::now();
            match waiting.front().map(|(due, _)| due.saturating_duration_since(now)) {
                None => waiting = self.woken.wait(waiting).unwrap(),
                Some(left) if left.is_zero() => {
                    let ready = waiting.iter().take_while(|(due, _)| *due <= now).count();
                    let ready: Vec<_> = waiting.drain(..ready).collect();
                    drop(waiting);
                    ready.into_iter().for_each(|(_, answer)| answer());
                    waiting = self.waiting.lock().unwrap();
                }
                Some(left) => waiting = self.woken.wait_timeout(waiting, left).unwrap().0,
            }
        }
    }

    /// Lets everything go that hangs.
    fn release(&self) {
        self.silent.store(false, Ordering::Release);
        self.troubles.lock().unwrap().clear();
        let parked = std::mem::take(&mut *self.parked.lock().unwrap());
        parked.into_iter().for_each(|answer| answer());
    }
}

/// A mounted view of a directory; unmounted when it is dropped.
pub(crate) struct View {
    shared: Arc<Shared>,
    point: PathBuf,
    session: Option<BackgroundSession>,
}

impl View {
    /// Mounts a view of `below` at `point`, an empty directory.
    ///
    /// # Errors
    /// Where FUSE cannot be used: the test is to be skipped with that reason.
    pub(crate) fn new(below: &Path, point: &Path, options: &Options) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        *shared.delay.lock().unwrap() = options.delay;
        let served = serve::Passed::new(below, options, shared.clone())?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("cabk-tests:{}", below.display())),
            MountOption::Subtype("cabktests".into()),
            MountOption::DefaultPermissions,
        ];
        config.n_threads = Some(2);
        let session = fuser::spawn_mount(served, point, &config)?;
        let clock = shared.clone();
        std::thread::spawn(move || clock.answer_in_time());
        Ok(Self { shared, point: point.to_owned(), session: Some(session) })
    }

    /// A file or directory below, as this view shows it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.point.clone() } else { self.point.join(name) }
    }

    /// From now on calls of this kind for this name (the last part of a path; the top's is empty)
    /// hang until [`View::release`].
    pub(crate) fn hang(&self, op: Op, name: &str) {
        self.shared.troubles.lock().unwrap().insert((op, name.into()), Trouble::Hang);
    }

    /// From now on every call hangs until [`View::release`], as where a server is gone.
    pub(crate) fn silence(&self) {
        self.shared.silent.store(true, Ordering::Release);
    }

    /// From now on calls of this kind for this name end with `EIO`.
    pub(crate) fn fail(&self, op: Op, name: &str) {
        self.shared.troubles.lock().unwrap().insert((op, name.into()), Trouble::Fail);
    }

    /// How many calls hang now.
    pub(crate) fn hanging(&self) -> usize {
        self.shared.parked.lock().unwrap().len()
    }

    /// Answers what hangs, and lets nothing hang or fail from now on.
    pub(crate) fn release(&self) {
        self.shared.release();
    }

    /// What each metadata call takes longer from now on.
    pub(crate) fn set_delay(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    /// The calls that came since the last time this was asked.
    pub(crate) fn calls(&self) -> BTreeMap<Op, u64> {
        std::mem::take(&mut *self.shared.calls.lock().unwrap())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.release();
        // What still uses the mount keeps it, without a name, and no test waits for it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.point).status();
        drop(self.session.take());
        self.shared.ended.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *self.shared.waiting.lock().unwrap());
        waiting.into_iter().for_each(|(_, answer)| answer());
        self.shared.woken.notify_all();
    }
}
