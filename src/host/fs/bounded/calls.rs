//! Calls of the kernel that are given up when they take too long. The thread that made such a call
//! cannot be ended; it is left behind, and ends by itself when the call does.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::time::human_duration;
use crate::host::clock::{Clock, SystemClock};
use crate::host::signal::Interrupt;

/// Threads that may be left behind on one file system; with more, all of it is given up.
const LEFT_BEHIND_MAX: usize = 64;

/// How often a wait looks whether it should end.
const TICK: Duration = Duration::from_millis(100);

/// How long a file system has to show that only one of its files does not answer.
const PROBE: Duration = Duration::from_secs(5);

/// How long a silent file system is left alone.
const QUIET: Duration = Duration::from_secs(10);

/// What a call has even where this process was asked to end.
const GRACE: Duration = Duration::from_millis(200);

/// Bytes of stack of a thread that only makes calls.
const STACK: usize = 256 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that make calls for others.
pub(super) struct Calls {
    limit: Duration,
    interrupt: Interrupt,
    idle: Mutex<Vec<Sender<Job>>>,
}

/// What is known of one file system's answers.
#[derive(Default)]
pub(super) struct Answers {
    /// Calls that were given up and are still under way.
    left_behind: AtomicUsize,
    silent: AtomicBool,
    /// When a silent file system may be asked again, in milliseconds of the monotonic clock.
    ask_again: AtomicU64,
}

/// Whether a long call gets on.
#[derive(Clone, Default)]
pub(super) struct Beat(Arc<AtomicU64>);

impl Beat {
    /// It does.
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a call's result is put.
struct Outcome<T> {
    state: Mutex<State<T>>,
    come: Condvar,
}

enum State<T> {
    Waiting,
    Done(T),
    /// Nobody waits any more.
    GivenUp,
}

/// A call that was given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GivenUp {
    TooLate,
    Interrupted,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    u64::try_from(SystemClock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

impl Calls {
    /// Threads whose calls may take this long, each.
    pub(super) fn new(limit: Duration, interrupt: Interrupt) -> Self {
        Self { limit, interrupt, idle: Mutex::default() }
    }

    /// Makes a call on a file system. Where it takes too long `probe` is called as well, to tell a
    /// file that does not answer from a file system that does not; of the latter nothing is asked
    /// for a while.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it was given up, [`io::ErrorKind::Interrupted`] where this
    /// process was asked to end meanwhile; or no thread could be made.
    pub(super) fn call<T: Send + 'static>(
        &self,
        on: &Arc<Answers>,
        probe: impl FnOnce() + Send + 'static,
        call: impl FnOnce(&Beat) -> T + Send + 'static,
    ) -> io::Result<T> {
        if !on.may_be_asked() {
            return Err(silent());
        }
        let was_silent = on.silent.load(Ordering::Acquire);
        let limit = if was_silent { PROBE.min(self.limit) } else { self.limit };
        match self.make(on, limit, call)? {
            Ok(value) => Ok(value),
            Err(GivenUp::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
            Err(GivenUp::TooLate) => {
                let alone = !was_silent
                    && on.left_behind.load(Ordering::Acquire) < LEFT_BEHIND_MAX
                    && self.make(on, PROBE.min(self.limit), move |_| probe())?.is_ok();
                if alone {
                    return Err(late(limit));
                }
                on.ask_again.store(now().saturating_add(millis(QUIET)), Ordering::Release);
                on.silent.store(true, Ordering::Release);
                Err(if was_silent { silent() } else { late(limit) })
            }
        }
    }

    fn make<T: Send + 'static>(
        &self,
        on: &Arc<Answers>,
        limit: Duration,
        call: impl FnOnce(&Beat) -> T + Send + 'static,
    ) -> io::Result<Result<T, GivenUp>> {
        let outcome = Arc::new(Outcome { state: Mutex::new(State::Waiting), come: Condvar::new() });
        let beat = Beat::default();
        let job: Job = {
            let (outcome, beat, on) = (Arc::clone(&outcome), beat.clone(), Arc::clone(on));
            Box::new(move || outcome.put(call(&beat), &on))
        };
        let worker = self.send(job)?;
        let waited = outcome.wait(limit, &beat, &self.interrupt, on);
        if waited.is_ok() {
            lock(&self.idle).push(worker);
        }
        Ok(waited)
    }

    fn send(&self, mut job: Job) -> io::Result<Sender<Job>> {
        while let Some(worker) = { lock(&self.idle).pop() } {
            match worker.send(job) {
                Ok(()) => return Ok(worker),
                // Its last call panicked.
                Err(back) => job = back.0,
            }
        }
        let (worker, jobs) = channel::<Job>();
        std::thread::Builder::new()
            .name("call".into())
            .stack_size(STACK)
            .spawn(move || jobs.into_iter().for_each(|job| job()))?;
        // The thread has only just begun.
        worker.send(job).map_err(|_| io::Error::other("a thread ended early"))?;
        Ok(worker)
    }
}

impl<T> Outcome<T> {
    /// Puts the result, or drops it where nobody waits.
    fn put(&self, value: T, on: &Answers) {
        on.silent.store(false, Ordering::Release);
        let mut state = lock(&self.state);
        match *state {
            State::GivenUp => {
                on.left_behind.fetch_sub(1, Ordering::AcqRel);
            }
            _ => *state = State::Done(value),
        }
        self.come.notify_one();
    }

    fn wait(
        &self,
        limit: Duration,
        beat: &Beat,
        interrupt: &Interrupt,
        on: &Answers,
    ) -> Result<T, GivenUp> {
        let mut state = lock(&self.state);
        let mut began: Option<Duration> = None;
        let mut beats = beat.count();
        loop {
            match std::mem::replace(&mut *state, State::Waiting) {
                State::Done(value) => return Ok(value),
                other => *state = other,
            }
            let now = SystemClock.monotonic();
            let since = *began.get_or_insert(now);
            let waited = now.saturating_sub(since);
            if beat.count() != beats {
                (beats, began) = (beat.count(), Some(now));
            } else if waited >= limit || (waited >= GRACE && interrupt.is_set()) {
                *state = State::GivenUp;
                on.left_behind.fetch_add(1, Ordering::AcqRel);
                let late = waited >= limit;
                return Err(if late { GivenUp::TooLate } else { GivenUp::Interrupted });
            }
            let pause = TICK.min(limit.saturating_sub(waited)).max(Duration::from_millis(1));
            state = self.come.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Answers {
    /// Whether a call is worth its while: always, but for a file system that was silent just now.
    fn may_be_asked(&self) -> bool {
        if self.left_behind.load(Ordering::Acquire) >= LEFT_BEHIND_MAX {
            return false;
        }
        if !self.silent.load(Ordering::Acquire) {
            return true;
        }
        let due = self.ask_again.load(Ordering::Acquire);
        let now = now();
        // One asks, the others go on without.
        now >= due
            && self
                .ask_again
                .compare_exchange(
                    due,
                    now.saturating_add(millis(QUIET)),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                )
                .is_ok()
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn late(limit: Duration) -> io::Error {
    let said = format!("no answer within {}", human_duration(limit));
    io::Error::new(io::ErrorKind::TimedOut, said)
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the file system does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn calls(limit: u64) -> (Calls, Arc<Answers>) {
        (Calls::new(Duration::from_millis(limit), Interrupt::manual()), Arc::default())
    }

    fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
        result.err().map(|e| e.kind())
    }

    #[test]
    fn what_answers_is_handed_over_and_threads_are_used_again() -> io::Result<()> {
        let (calls, on) = calls(10_000);
        let first = calls.call(&on, || (), |_| std::thread::current().id())?;
        for _ in 0..50 {
            assert_eq!(calls.call(&on, || (), |_| std::thread::current().id())?, first);
        }
        Ok(())
    }

    #[test]
    fn a_call_that_hangs_is_given_up_and_the_others_go_on() -> io::Result<()> {
        let (calls, on) = calls(50);
        let (release, held) = mpsc::channel::<()>();
        let hung = calls.call(&on, || (), move |_| held.recv().is_ok());
        assert_eq!(kind(hung), Some(io::ErrorKind::TimedOut));
        assert_eq!(calls.call(&on, || (), |_| 7)?, 7);
        assert_eq!(on.left_behind.load(Ordering::Acquire), 1);
        drop(release);
        while on.left_behind.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        Ok(())
    }

    #[test]
    fn a_file_system_that_is_silent_is_asked_no_more_until_it_answers() -> io::Result<()> {
        let (calls, on) = calls(50);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let hang = |held: &Arc<Mutex<mpsc::Receiver<()>>>| {
            let held = Arc::clone(held);
            move || {
                let _ = lock(&held).recv();
            }
        };
        let (probe, call) = (hang(&held), hang(&held));
        assert_eq!(kind(calls.call(&on, probe, move |_| call())), Some(io::ErrorKind::TimedOut));
        let began = SystemClock.monotonic();
        let called = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&called);
        let next = calls.call(&on, || (), move |_| seen.store(true, Ordering::Release));
        assert_eq!(kind(next), Some(io::ErrorKind::TimedOut));
        assert!(!called.load(Ordering::Acquire));
        assert!(SystemClock.monotonic().saturating_sub(began) < Duration::from_secs(5));
        drop(release);
        while on.left_behind.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(calls.call(&on, || (), |_| 7)?, 7);
        Ok(())
    }

    #[test]
    fn what_gets_on_is_waited_for() -> io::Result<()> {
        let (calls, on) = calls(400);
        let (_keep, never) = mpsc::channel::<()>();
        let slow = calls.call(
            &on,
            || (),
            move |beat| {
                for _ in 0..10 {
                    beat.beat();
                    let _ = never.recv_timeout(Duration::from_millis(80));
                }
                7
            },
        )?;
        assert_eq!(slow, 7);
        Ok(())
    }

    #[test]
    fn who_is_asked_to_end_waits_no_longer() {
        let interrupt = Interrupt::manual();
        let calls = Calls::new(Duration::from_secs(600), interrupt.clone());
        let (_keep, held) = mpsc::channel::<()>();
        interrupt.trigger();
        let hung = calls.call(&Arc::default(), || (), move |_| held.recv().is_ok());
        assert_eq!(kind(hung), Some(io::ErrorKind::Interrupted));
    }
}
