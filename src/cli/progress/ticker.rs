//! The countdown of an open window: drawn again and again, also while nothing else is told.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::millis;
use crate::base::progress::OpenWindow;
use crate::base::time::human_duration;

/// A window that is open, and since when by the monotonic clock.
pub(super) struct Countdown {
    pub(super) open: OpenWindow,
    pub(super) began: Duration,
}

/// How far a window is, for scripts.
#[derive(Serialize)]
pub(super) struct JsonWindow {
    down_ms: u64,
    estimate_ms: Option<u64>,
    left_ms: u64,
}

impl Countdown {
    fn down(&self, now: Duration) -> (Duration, Duration) {
        let down = now.saturating_sub(self.began);
        (down, self.open.longest.saturating_sub(down))
    }

    pub(super) fn json(&self, now: Duration) -> JsonWindow {
        let (down, left) = self.down(now);
        let estimate_ms = self.open.estimate.map(millis);
        JsonWindow { down_ms: millis(down), estimate_ms, left_ms: millis(left) }
    }

    pub(super) fn text(&self, now: Duration) -> String {
        let (down, left) = self.down(now);
        let about = self.open.estimate.map(|all| format!(" of about {}", human_duration(all)));
        let (down, about) = (human_duration(down), about.unwrap_or_default());
        format!("down {down}{about}, {} left at most", human_duration(left))
    }
}

/// Does something again and again on a thread of its own, until it is dropped.
pub(super) struct Ticker {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn new(every: Duration, act: impl Fn() + Send + 'static) -> Self {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&ended);
        let tick = move || {
            let (flag, bell) = &*shared;
            let mut over = flag.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                let waited = bell.wait_timeout(over, every);
                over = waited.unwrap_or_else(PoisonError::into_inner).0;
                if !*over {
                    act();
                }
            }
        };
        // Without a thread there is no countdown, and the window is none the worse.
        let thread = std::thread::Builder::new().name("countdown".into()).spawn(tick).ok();
        Self { ended, thread }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        let (flag, bell) = &*self.ended;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
        if let Some(thread) = self.thread.take() {
            // It draws, and has nothing to tell.
            let _ = thread.join();
        }
    }
}
