//! Waiting for processes to leave the trees, and until when may be read.

use super::{AbortReason, Aborted, Arc, Clock, Core, Duration, Quiescent, Stopped, Trees, give_up};
use crate::window::nodes::Looks;

/// Longest time between two looks at the processes.
const LONGEST: Duration = Duration::from_secs(1);

/// When the services of a window are due again: a reader should end then, and say that it did not
/// read everything.
#[derive(Clone)]
pub struct Due {
    /// By the monotonic clock; none where nothing was stopped.
    at: Option<Duration>,
    clock: Arc<dyn Clock>,
}

impl Due {
    fn of(core: &Core) -> Self {
        Self { at: core.due(), clock: Arc::clone(&core.context.clock) }
    }

    /// Whether they are.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.at.is_some_and(|at| self.clock.monotonic() >= at)
    }
}

impl Quiescent {
    /// Until when may be read.
    #[must_use]
    pub fn due(&self) -> Due {
        Due::of(&self.core)
    }
}

impl Stopped {
    /// Until when may be read.
    #[must_use]
    pub fn due(&self) -> Due {
        Due::of(&self.core)
    }

    /// Waits for processes to leave the trees and the services' control groups, for at most the
    /// plan's `wait_quiet`. What is still there afterwards goes into the evidence.
    ///
    /// # Errors
    /// [`Aborted`] by a signal.
    pub fn quiesce(self, trees: &Trees<'_>) -> Result<Quiescent, Aborted> {
        Ok(self.wait(trees, None)?.0)
    }

    /// As [`Self::quiesce`], and something is done beside the first look at the processes. The last
    /// value says whether that was the only look: if not, somebody was there meanwhile whom a second
    /// look showed to be gone, and what was done is to be done again.
    ///
    /// This is for what a change would be told of whoever made it, however briefly he was there. Who
    /// only reads on this machine then breaks nothing and is not waited for: a rendering that
    /// outlived the stop is waited for all the same in its service's control group, and where
    /// services have none, it cannot be told from a reader.
    ///
    /// # Errors
    /// [`Aborted`] by a signal.
    pub fn quiesce_beside<T>(
        self,
        trees: &Trees<'_>,
        beside: impl FnOnce() -> T,
    ) -> Result<(Quiescent, T, bool), Aborted> {
        let began = self.core.context.clock.monotonic();
        let everywhere = self.core.everywhere();
        let (first, done) = std::thread::scope(|scope| {
            let looking = scope.spawn(|| everywhere.look(trees));
            let done = beside();
            (looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), done)
        });
        let (quiescent, once) = self.wait(trees, Some((first, began)))?;
        Ok((quiescent, done, once))
    }

    /// The second value says whether one look was enough.
    fn wait(
        self,
        trees: &Trees<'_>,
        mut beside: Option<(Looks, Duration)>,
    ) -> Result<(Quiescent, bool), Aborted> {
        let core = self.core;
        let clock = &*core.context.clock;
        let began = clock.monotonic();
        let mut pause = Duration::from_millis(25);
        let readers_may_stay = beside.is_some() && core.groups_are_known();
        let read_from = beside.as_ref().map(|(_, from)| *from);
        let mut once = true;
        loop {
            if core.context.interrupt.is_set() {
                return Err(give_up(core, AbortReason::Interrupted));
            }
            let first = beside.take().map(|(looks, _)| looks);
            let before = first.unwrap_or_else(|| core.everywhere().look(trees));
            let waited = clock.monotonic().saturating_sub(began);
            let mut left = core.plan.wait_quiet.saturating_sub(waited);
            left = left.min(core.time_left().unwrap_or(Duration::MAX));
            let quiet = !before.hold_up(readers_may_stay) && core.groups_are_empty();
            if quiet || left.is_zero() {
                // What was read beside the only look was no wait.
                let until = read_from.filter(|_| once).unwrap_or_else(|| clock.monotonic());
                core.marks.quiet.get_or_init(|| until);
                core.marks.quiet_at.get_or_init(|| clock.now());
                let unwritten = core.everywhere().write_back(trees.paths);
                let quiescent = Quiescent { core, before, after: None, unwritten };
                return Ok((quiescent, once));
            }
            clock.sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST);
            once = false;
        }
    }
}
