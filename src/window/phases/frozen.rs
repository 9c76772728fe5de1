//! A window that ends before the sources are read, because they were frozen: what was seen of it is
//! gathered before the start, and judged once it is known what was read.
//!
//! ```no_run
//! use cabk::intake::consistent::Consistent;
//! use cabk::window::evidence::SecondLook;
//! use cabk::window::observe::Trees;
//! use cabk::window::phases::{Aborted, Armed, Judged, Restarted};
//!
//! fn window(armed: Armed, trees: &Trees<'_>) -> Result<(Option<Consistent<u8>>, Restarted), Aborted> {
//!     let quiescent = armed.stop()?.quiesce(trees)?; // whoever freezes, freezes here
//!     let thawed = quiescent.gather(&SecondLook::default(), trees)?.restart(vec![]);
//!     let (read, look) = (7, SecondLook::default()); // whoever reads what was frozen, reads here
//!     Ok(match thawed.judge(&look) {
//!         Judged::Held(proof) => (Some(Consistent::of_frozen(read, &proof)), proof.into_restarted()),
//!         Judged::Broken(restarted) => (None, restarted),
//!     })
//! }
//! ```
//! ```compile_fail,E0451
//! fn forged(proof: cabk::window::phases::Vouched) {
//!     let cabk::window::phases::Vouched { restarted } = proof;
//! }
//! ```
//! ```compile_fail,E0599
//! fn unproven(gathered: cabk::window::phases::Gathered) {
//!     gathered.judge(&cabk::window::evidence::SecondLook::default());
//! }
//! ```
//! ```compile_fail,E0382
//! fn judged_twice(thawed: cabk::window::phases::Thawed) {
//!     let look = cabk::window::evidence::SecondLook::default();
//!     let first = thawed.judge(&look);
//!     let second = thawed.judge(&look);
//! }
//! ```

use super::{AbortReason, Aborted, Evidence, Looks, Quiescent, Restarted, give_up, sqlite};
use crate::format::manifest::FrozenRecord;
use crate::window::evidence::{self, SecondLook};
use crate::window::observe::Trees;
use crate::window::running::Core;

/// The sources are frozen, and everything that can be seen of the window was seen. The services are
/// due.
pub struct Gathered {
    core: Core,
}

/// The services run again, and what was frozen waits to be read.
pub struct Thawed {
    restarted: Restarted,
    /// What was seen before the start.
    seen: usize,
    node: String,
}

/// Proof that what was read had been frozen while nothing moved (invariant 4): all evidence held.
pub struct Vouched {
    restarted: Restarted,
}

/// What a window with frozen sources came to.
#[must_use]
pub enum Judged {
    /// All evidence held.
    Held(Vouched),
    /// Some did not.
    Broken(Restarted),
}

impl Quiescent {
    /// Looks a second time after the sources were frozen. Of the second look only its databases count,
    /// and whether events tell of all changes: what was read is judged later.
    ///
    /// # Errors
    /// [`Aborted`] by a signal.
    pub fn gather(self, second: &SecondLook, trees: &Trees<'_>) -> Result<Gathered, Aborted> {
        self.done_reading();
        let Self { mut core, before, after, unwritten } = self;
        if core.context.interrupt.is_set() {
            return Err(give_up(core, AbortReason::Interrupted));
        }
        core.evidence = core.gathered((&before, after), second, trees);
        core.evidence.extend(unwritten);
        core.marks.proven.get_or_init(|| core.context.clock.monotonic());
        Ok(Gathered { core })
    }
}

impl Core {
    /// What is seen at the end of a window, but for what was read.
    pub(super) fn gathered(
        &self,
        (before, after): (&Looks, Option<Looks>),
        second: &SecondLook,
        trees: &Trees<'_>,
    ) -> Vec<Evidence> {
        let observer = &*self.context.observer;
        let after = after.unwrap_or_else(|| self.everywhere().look(trees));
        let asserted = self.plan.rules.asserts("sqlite-settled");
        // Locks are listed by pid namespace too, and need no privilege to be seen.
        let sees_host = after.local_scope().starts_with("host");
        let blind = (!sees_host).then_some("locks of other pid namespaces are out of sight");
        let scope = if sees_host { "host" } else { "pid namespace" };
        let mut all = self.stopped_evidence();
        all.extend(self.everywhere().judge(before, &after, trees, second.is_by_events()));
        all.extend(evidence::clients(&second.still_open));
        all.extend(sqlite::settled(&second.sqlite, observer, blind, scope, asserted));
        all
    }
}

impl Gathered {
    /// Starts what ran before, and closes the window.
    pub fn restart(mut self, frozen: Vec<FrozenRecord>) -> Thawed {
        let leave_stopped = self.core.plan.leave_stopped;
        let seen = self.core.evidence.len();
        let node = self.core.context.observer.node();
        let mut restarted = self.core.close(leave_stopped);
        restarted.record.frozen = frozen;
        Thawed { restarted, seen, node }
    }
}

impl Thawed {
    /// How the window was closed.
    #[must_use]
    pub const fn restarted(&self) -> &Restarted {
        &self.restarted
    }

    /// Judges, now that everything was read: by what was seen before the start, and by what the look
    /// says of trees and sources.
    pub fn judge(self, look: &SecondLook) -> Judged {
        let Self { mut restarted, seen, node } = self;
        let mut all = evidence::trees(&look.trees, &node);
        all.extend(evidence::sources(&look.sources, &node));
        let before = &restarted.evidence[..seen];
        let held = before.iter().chain(&all).all(|one: &Evidence| one.held);
        restarted.evidence.splice(seen..seen, all);
        if held { Judged::Held(Vouched { restarted }) } else { Judged::Broken(restarted) }
    }
}

impl Vouched {
    /// How the window was closed, with all evidence.
    #[must_use]
    pub fn into_restarted(self) -> Restarted {
        self.restarted
    }
}
