//! How a read gives way to others while the service lives: idle threads, a bound of bytes a second,
//! and pauses while others wait for their disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::host::clock::Clock;
use crate::host::pressure::io_stalled;
use crate::host::priority;
use crate::host::signal::Interrupt;

/// A debt of time that is not worth a sleep: a timer is no finer.
const SMALL: Duration = Duration::from_millis(5);

/// Longest sleep in a row, so that a signal is noticed.
const SLICE: Duration = Duration::from_millis(100);

/// Bytes that one read has at least, however slow it is to be.
const READ_MIN: u64 = 16 << 10;

/// How long is read before it is looked whether others wait for I/O.
const LOOK: Duration = Duration::from_secs(2);

/// Longest time between two looks, where it is cabk's own reading that the kernel counts.
const LOOK_MAX: Duration = Duration::from_secs(32);

/// Length of a pause. What the kernel counts meanwhile is not cabk's reading.
const QUIET: Duration = Duration::from_millis(250);

/// A pause is repeated while others wait, but for no longer than so many times the reading that may
/// precede it: so a run takes at most four times as long.
const PAUSES: u32 = 3;

/// Part of the time in which somebody waits for I/O that is too much, as 1 of so many. Single
/// requests of an ordinary service stay below, a queue at its disk does not.
const SHARE: u32 = 5;

/// For how long somebody was waiting for I/O since some moment, where that is known.
type Stalled = dyn Fn() -> Option<Duration> + Send + Sync;

/// How a read gives way to others.
pub struct Manners {
    clock: Arc<dyn Clock>,
    idle: bool,
    rate: Option<Rate>,
    stalls: Option<Stalls>,
}

/// Bytes a second, and by when what was read is paid for.
struct Rate {
    bytes: u64,
    paid: Mutex<Duration>,
}

/// What is known of others' waiting.
struct Stalls {
    stalled: Box<Stalled>,
    since: Mutex<Since>,
}

struct Since {
    at: Duration,
    stalled: Option<Duration>,
    look: Duration,
}

impl Manners {
    /// Manners that are none.
    #[must_use]
    pub fn none(clock: Arc<dyn Clock>) -> Self {
        Self { clock, idle: false, rate: None, stalls: None }
    }

    /// With threads that give way, and pauses while others wait for I/O where the kernel counts
    /// that.
    #[must_use]
    pub fn giving_way(self) -> Self {
        Self { idle: true, ..self }.pausing_by(Box::new(io_stalled))
    }

    fn pausing_by(self, stalled: Box<Stalled>) -> Self {
        let since = Since { at: self.clock.monotonic(), stalled: stalled(), look: LOOK };
        Self { stalls: Some(Stalls { stalled, since: Mutex::new(since) }), ..self }
    }

    /// With at most so many bytes a second.
    #[must_use]
    pub fn at_most(self, bytes_a_second: u64) -> Self {
        let paid = Mutex::new(Duration::ZERO);
        Self { rate: Some(Rate { bytes: bytes_a_second.max(1), paid }), ..self }
    }

    /// Called by each thread of its own that looks or reads, before it does, where
    /// [`Self::is_idle`].
    pub(super) fn idle_thread() {
        // A courtesy to others, and no condition of the work.
        let _ = priority::give_way();
    }

    /// Whether threads give way.
    pub(super) const fn is_idle(&self) -> bool {
        self.idle
    }

    /// How much of a buffer one read should fill.
    pub(super) fn fitting<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let Some(rate) = &self.rate else { return buffer };
        let most = usize::try_from((rate.bytes / 4).max(READ_MIN)).unwrap_or(usize::MAX);
        let len = buffer.len().min(most);
        &mut buffer[..len]
    }

    /// Bytes were read: waits until they are paid for.
    pub(super) fn have_read(&self, bytes: usize, interrupt: &Interrupt) {
        let Some(rate) = &self.rate else { return };
        let cost = u128::from(bytes as u64) * 1_000_000_000 / u128::from(rate.bytes);
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        let until = {
            let mut paid = rate.paid.lock().unwrap_or_else(PoisonError::into_inner);
            *paid = (*paid).max(self.clock.monotonic()).saturating_add(cost);
            *paid
        };
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            if left < SMALL || interrupt.is_set() {
                return;
            }
            self.clock.sleep(left.min(SLICE));
        }
    }

    /// Waits, within bounds, while others wait for I/O. All threads wait for the one that looks.
    pub(super) fn give_way(&self, interrupt: &Interrupt) {
        let Some(stalls) = &self.stalls else { return };
        let mut since = stalls.since.lock().unwrap_or_else(PoisonError::into_inner);
        let worked = self.clock.monotonic().saturating_sub(since.at);
        if worked < since.look {
            return;
        }
        let stalled = (stalls.stalled)();
        if is_much(since.stalled, stalled, worked) {
            let others = self.pause(&stalls.stalled, interrupt);
            since.look = if others { LOOK } else { (since.look * 2).min(LOOK_MAX) };
        }
        since.at = self.clock.monotonic();
        since.stalled = (stalls.stalled)();
    }

    /// Reads nothing until others do not wait any more, or for as long as is bearable; whether
    /// others waited at all.
    fn pause(&self, stalled: &Stalled, interrupt: &Interrupt) -> bool {
        let began = self.clock.monotonic();
        let mut pauses = 0;
        loop {
            let (at, before) = (self.clock.monotonic(), stalled());
            self.clock.sleep(QUIET);
            let now = self.clock.monotonic();
            pauses += 1;
            let others = is_much(before, stalled(), now.saturating_sub(at));
            let too_long = now.saturating_sub(began) >= LOOK * PAUSES;
            if !others || too_long || interrupt.is_set() {
                // What was under way when the first pause began may have been cabk's own.
                return pauses > 2;
            }
        }
    }
}

/// Whether somebody waited for too much of a time.
fn is_much(before: Option<Duration>, after: Option<Duration>, time: Duration) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    after.saturating_sub(before) * SHARE >= time
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SimClock;

    fn sim() -> (Arc<SimClock>, Interrupt) {
        (Arc::new(SimClock::new()), Interrupt::manual())
    }

    #[test]
    fn bytes_are_paid_for_by_time() {
        let (clock, interrupt) = sim();
        let manners = Manners::none(clock.clone()).at_most(1 << 20);
        let mut buffer = vec![0; 4 << 20];
        assert_eq!(manners.fitting(&mut buffer).len(), 256 << 10);
        for _ in 0..40 {
            manners.have_read(256 << 10, &interrupt);
        }
        let took = clock.monotonic();
        let (least, most) = (Duration::from_secs_f64(9.9), Duration::from_secs_f64(10.1));
        assert!(took > least && took < most, "{took:?}");
        // Time in which nothing was read is no credit.
        clock.advance(Duration::from_secs(100));
        let from = clock.monotonic();
        manners.have_read(1 << 20, &interrupt);
        assert!(clock.monotonic() - from > Duration::from_millis(990));
        // A signal ends the wait.
        interrupt.trigger();
        let from = clock.monotonic();
        manners.have_read(100 << 20, &interrupt);
        assert_eq!(clock.monotonic(), from);
    }

    #[test]
    fn a_slow_rate_still_reads_and_no_rate_reads_whole_buffers() {
        let (clock, interrupt) = sim();
        let mut buffer = vec![0; 1 << 20];
        let slow = Manners::none(clock.clone()).at_most(1);
        assert_eq!(slow.fitting(&mut buffer).len(), 16 << 10);
        let none = Manners::none(clock.clone());
        assert_eq!(none.fitting(&mut buffer).len(), 1 << 20);
        none.have_read(1 << 30, &interrupt);
        none.give_way(&interrupt);
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }

    /// Reads for a time, in steps of 100 ms; for how long it was paused. `share` in percent of the
    /// time is what others wait, `own` what the reading itself waits.
    fn paused(reading: Duration, share: u32, own: u32) -> Duration {
        let (clock, interrupt) = sim();
        let worked = Arc::new(Mutex::new(Duration::ZERO));
        let (time, by_itself) = (clock.clone(), Arc::clone(&worked));
        let manners = Manners::none(clock.clone()).pausing_by(Box::new(move || {
            Some(time.monotonic() * share / 100 + *by_itself.lock().unwrap() * own / 100)
        }));
        let step = Duration::from_millis(100);
        while *worked.lock().unwrap() < reading {
            manners.give_way(&interrupt);
            clock.advance(step);
            *worked.lock().unwrap() += step;
        }
        clock.monotonic() - reading
    }

    #[test]
    fn others_that_wait_are_given_way_within_bounds() {
        let minute = Duration::from_secs(60);
        assert_eq!(paused(minute, 0, 0), Duration::ZERO);
        assert_eq!(paused(minute, 19, 0), Duration::ZERO, "single requests");
        let long = paused(minute, 90, 0);
        assert!(long > 2 * minute && long <= 3 * minute + Duration::from_secs(7), "{long:?}");
    }

    #[test]
    fn its_own_waiting_costs_it_little() {
        let hour = Duration::from_secs(3600);
        let lost = paused(hour, 0, 100);
        assert!(lost > Duration::ZERO && lost < hour / 50, "{lost:?}");
    }

    #[test]
    fn a_kernel_that_does_not_count_is_not_asked_for_pauses() {
        let (clock, interrupt) = sim();
        let manners = Manners::none(clock.clone()).pausing_by(Box::new(|| None));
        clock.advance(Duration::from_secs(10));
        manners.give_way(&interrupt);
        assert_eq!(clock.monotonic(), Duration::from_secs(10));
    }
}
