//! Clocks, behind a trait so that a run can be replayed.

use std::time::Duration;

use crate::base::time::Timestamp;

/// What the machine knows of time. Nothing that decides about deleting ever asks it.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Lets time pass.
    fn sleep(&self, length: Duration);
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp { secs: time.tv_sec, nanos: u32::try_from(time.tv_nsec).unwrap_or(0) }
    }

    fn monotonic(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    fn sleep(&self, length: Duration) {
        std::thread::sleep(length);
    }
}

/// A clock that stands still until somebody sleeps. It begins at 2020-01-01T00:00:00Z.
#[derive(Debug, Default)]
pub struct SimClock {
    passed: std::sync::Mutex<Duration>,
}

impl SimClock {
    const BEGIN: i64 = 1_577_836_800;

    /// A clock at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets time pass without anybody sleeping.
    pub fn advance(&self, length: Duration) {
        let mut passed = self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *passed = passed.saturating_add(length);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = self.monotonic();
        let secs = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
        Timestamp { secs: Self::BEGIN.saturating_add(secs), nanos: passed.subsec_nanos() }
    }

    fn monotonic(&self) -> Duration {
        *self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sleep(&self, length: Duration) {
        self.advance(length);
    }
}
