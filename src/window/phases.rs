//! The way of a window: `Armed -> Stopped -> Quiescent -> Undisturbed -> Restarted`.
//!
//! Each step consumes the one before, so none can be left out or done twice (invariants 4 and 5).
//! This is the way:
//!
//! ```no_run
//! use cabk::intake::consistent::Consistent;
//! use cabk::window::evidence::SecondLook;
//! use cabk::window::observe::Trees;
//! use cabk::window::phases::{Aborted, Armed, Proven, Restarted};
//!
//! fn window(armed: Armed, trees: &Trees<'_>) -> Result<(Option<Consistent<u8>>, Restarted), Aborted> {
//!     let quiescent = armed.stop()?.quiesce(trees)?;
//!     let (read, look) = (7, SecondLook::default()); // whoever reads, reads here
//!     Ok(match quiescent.prove_unmoved(&look, trees)? {
//!         Proven::Undisturbed(proof) => (Some(Consistent::mint(read, &proof)), proof.restart()),
//!         Proven::Disturbed(disturbed) => (None, disturbed.restart()),
//!     })
//! }
//! ```
//! And these are not:
//!
//! ```compile_fail,E0382
//! fn twice(undisturbed: cabk::window::phases::Undisturbed) {
//!     undisturbed.restart();
//!     undisturbed.restart();
//! }
//! ```
//! ```compile_fail,E0599
//! fn unproven(stopped: cabk::window::phases::Stopped) {
//!     stopped.restart();
//! }
//! ```
//! ```compile_fail,E0382
//! fn stopped_twice(armed: cabk::window::phases::Armed) {
//!     let first = armed.stop();
//!     let second = armed.stop();
//! }
//! ```
//! ```compile_fail,E0451
//! fn forged(proof: cabk::window::phases::Undisturbed) {
//!     let cabk::window::phases::Undisturbed { core } = proof;
//! }
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::chain;
use super::evidence::{self, Rules, SecondLook, few};
use super::guard::Guards;
use super::intent::{IntentService, IntentStore, ServiceKind};
use super::nodes::{Looks, at_once, by_node};
use super::observe::{Observer, Trees};
use super::running::{Core, Watched};
use super::site_lock::SiteLock;
use super::sqlite;
use super::start::ask;
use super::visitor::Gate;
use crate::base::time::human_duration;
use crate::format::manifest::{Evidence, WindowRecord};
use crate::host::clock::Clock;
use crate::host::health::Health;
use crate::host::service::{Precaution, Service, ServiceError, ServiceState};
use crate::host::signal::Interrupt;

mod errors;
mod frozen;
mod quiet;
mod ready;
mod stopped;
#[cfg(test)]
mod tests;

pub(super) use ready::disarm_nodes;

pub use errors::{AbortReason, Aborted, ArmError};
pub use frozen::{Gathered, Judged, Thawed, Vouched};
pub use quiet::Due;

/// Whether a window stops anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// What runs is stopped and started again.
    StopAndStart,
    /// The operator says that it is stopped, and it stays so; services that are named are looked at.
    AlreadyStopped,
    /// Plain directories: there is no service.
    NoService,
}

impl Mode {
    /// Whether services are stopped and started.
    #[must_use]
    pub const fn stops(self) -> bool {
        matches!(self, Self::StopAndStart)
    }
}

/// A service and how another process would reach it.
#[derive(Clone)]
pub struct PlannedService {
    /// The service on its node.
    pub service: Arc<dyn Service>,
    /// What goes into the intent.
    pub how: ServiceKind,
    /// What its own node does beforehand, if it can.
    pub precaution: Option<Arc<dyn Precaution>>,
}

/// What a window is to do.
#[derive(Clone)]
pub struct Plan {
    /// Site label.
    pub site: String,
    /// The services in the order of their stops.
    pub services: Vec<PlannedService>,
    /// What can be seen of other nodes: those of the services, and whichever else was named.
    pub others: Vec<Arc<dyn Observer>>,
    /// Whether they are stopped.
    pub mode: Mode,
    /// Whether they stay stopped when the window closes as it should.
    pub leave_stopped: bool,
    /// Whether a run that cannot become a snapshot goes on all the same.
    pub allow_capture: bool,
    /// Time that one stop has.
    pub stop_timeout: Duration,
    /// Time that one start has.
    pub start_timeout: Duration,
    /// Time from the first stop to the start, at most.
    pub max_downtime: Duration,
    /// Time for processes to leave the tree after the stop.
    pub wait_quiet: Duration,
    /// What is asked whether the services are well, once they were started.
    pub health: Option<Arc<dyn Health>>,
    /// What the operator said about evidence.
    pub rules: Rules,
}

/// What a window needs of the machine.
#[derive(Clone)]
pub struct Context {
    /// Where intents are kept.
    pub store: IntentStore,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The wish to end.
    pub interrupt: Interrupt,
    /// What can be seen of this machine's processes and locks.
    pub observer: Arc<dyn Observer>,
    /// What watches over the window from outside.
    pub guards: Arc<dyn Guards>,
}

/// A service that ran before and does not now (exit code 30).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotRunning {
    /// Its node.
    pub node: String,
    /// The service.
    pub service: String,
    /// What was seen.
    pub why: String,
    /// What a person types to start it.
    pub hint: String,
}

impl NotRunning {
    pub(super) fn new(intent: &IntentService, why: String) -> Self {
        Self {
            node: intent.node.clone(),
            service: intent.service.clone(),
            why,
            hint: intent.how.start_by_hand(&intent.node),
        }
    }

    /// One line for a person.
    #[must_use]
    pub fn message(&self) -> String {
        let Self { node, service, why, hint } = self;
        format!(
            "{service} on {node} is not running: {why}; start it with `{hint}` or `cabk window recover`"
        )
    }
}

/// A window that is closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restarted {
    /// When it was open and what it was about.
    pub record: WindowRecord,
    /// All evidence, that of the start among it.
    pub evidence: Vec<Evidence>,
    /// What ran before and does not now.
    pub not_running: Vec<NotRunning>,
    /// Why a service that runs is not well, where that was asked.
    pub unwell: Option<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A window whose intent is on disk. Nothing is stopped yet.
pub struct Armed {
    core: Core,
}

/// The services are stopped.
pub struct Stopped {
    core: Core,
}

/// The services are stopped, and processes had their time to leave the trees. Now is the time to
/// read.
pub struct Quiescent {
    core: Core,
    before: Looks,
    /// The last look at the processes, once it was made.
    after: Option<Looks>,
    /// Nodes of which it is not known that all they wrote can be read here.
    unwritten: Vec<Evidence>,
}

/// Proof that nothing moved while the sources were read (invariant 4): all evidence held.
pub struct Undisturbed {
    core: Core,
}

/// What was read may not be consistent: some evidence did not hold.
pub struct Disturbed {
    core: Core,
}

/// What a window came to.
#[must_use]
pub enum Proven {
    /// All evidence held.
    Undisturbed(Undisturbed),
    /// Some did not.
    Disturbed(Disturbed),
}

/// Asks every service for its status and puts the intent on disk.
///
/// # Errors
/// [`ArmError`]: nothing was stopped, and no intent is left.
pub fn arm(plan: Plan, context: Context, lock: &SiteLock) -> Result<Armed, ArmError> {
    if lock.site() != plan.site {
        return Err(ArmError::OtherSite(lock.site().to_owned()));
    }
    if plan.mode.stops() && context.store.read(&plan.site)?.is_some() {
        return Err(ArmError::LeftBehind(plan.site));
    }
    let mut services = look_at_all(&plan, &*context.clock)?;
    if plan.mode.stops() {
        if services.is_empty() {
            return Err(ArmError::NoServices);
        }
        if !services.iter().any(Watched::ran) {
            return Err(ArmError::NoneRuns(services[0].intent.service.clone()));
        }
    }
    if context.interrupt.is_set() {
        return Err(ArmError::Interrupted);
    }
    let gate = Gate::close(&context.store, &plan.site, &*context.clock, &context.interrupt)?;
    let armed = if plan.mode.stops() {
        Some(ready::put_in_place(&plan, &mut services, &context)?)
    } else {
        None
    };
    let mut core = Core::new(plan, context, services, armed, lock.clone());
    core.admit_nobody(gate);
    core.clocks = core.everywhere().clocks();
    Ok(Armed { core })
}

/// Asks for the status of every service, all nodes at once.
fn look_at_all(plan: &Plan, clock: &dyn Clock) -> Result<Vec<Watched>, ArmError> {
    let numbered = plan.services.iter().enumerate();
    let groups = by_node(numbered.map(|one| (one.1.service.node(), one)));
    let asked = at_once(groups, |group| {
        let each = |(index, planned)| (index, look_at(planned, plan, clock));
        group.into_iter().map(each).collect::<Vec<_>>()
    });
    let mut all: Vec<(usize, Result<Watched, ArmError>)> = asked.into_iter().flatten().collect();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, watched)| watched).collect()
}

fn look_at(planned: &PlannedService, plan: &Plan, clock: &dyn Clock) -> Result<Watched, ArmError> {
    let (service, node) = (planned.service.label(), planned.service.node());
    let was = ask(&*planned.service, clock).map_err(|source| match source {
        ServiceError::UnknownUnit(_) | ServiceError::BadUnitName(_) => {
            ArmError::NoSuchService { node: node.clone(), source: source.into() }
        }
        source => {
            ArmError::Status { service: service.clone(), node: node.clone(), source: source.into() }
        }
    })?;
    let was = ready::settled(&*planned.service, was, plan, clock)?;
    let goes_on = plan.allow_capture || plan.rules.asserts("service-stopped");
    match &was.state {
        ServiceState::Unknown(seen) if plan.mode.stops() && !goes_on => {
            return Err(ArmError::Unknown { service, node, seen: seen.clone() });
        }
        ServiceState::Running if !plan.mode.stops() && !plan.allow_capture => {
            return Err(ArmError::Runs { service, node });
        }
        _ => {}
    }
    if let (true, ServiceState::Running, Some(why)) =
        (plan.mode.stops(), &was.state, was.start_refused.clone())
    {
        return Err(ArmError::CannotStart { service, node, why });
    }
    Ok(Watched::new(planned, was))
}

fn give_up(mut core: Core, reason: AbortReason) -> Aborted {
    Aborted { reason, restarted: Box::new(core.close(false)) }
}

macro_rules! abortable {
    ($($phase:ident),*) => {$(
        impl $phase {
            /// Gives the window up: what was stopped is started, whatever the plan wished.
            pub fn abort(self, reason: AbortReason) -> Aborted {
                give_up(self.core, reason)
            }

            /// The evidence so far.
            #[must_use]
            pub fn evidence(&self) -> &[Evidence] {
                &self.core.evidence
            }

            /// Time until the services are due again; `None` where none was stopped.
            #[must_use]
            pub fn time_left(&self) -> Option<Duration> {
                self.core.time_left()
            }
        }
    )*};
}
abortable!(Armed, Stopped, Quiescent, Undisturbed, Disturbed);

impl Armed {
    /// Stops what runs, in order. One that does not stop ends the window, and those that were
    /// stopped are started again.
    ///
    /// # Errors
    /// [`Aborted`].
    pub fn stop(mut self) -> Result<Stopped, Aborted> {
        match self.core.stop_all() {
            Ok(()) => Ok(Stopped { core: self.core }),
            Err(reason) => Err(give_up(self.core, reason)),
        }
    }
}

impl Quiescent {
    /// Who still uses the trees, for a person; empty where nobody does.
    #[must_use]
    pub fn intruders(&self) -> Vec<String> {
        self.before.breaking().cloned().collect()
    }

    /// Looks at the processes a last time, when everything was read and before it is asked what
    /// changed. Whoever had a file mapped while it was read is either still there now, or has let go
    /// of it, which the kernel tells: a store through a mapping alone it does not tell.
    pub fn look_last(&mut self, trees: &Trees<'_>) {
        self.done_reading();
        self.after = Some(self.core.everywhere().look(trees));
    }

    /// Everything that is read in the window was read: what follows is proof.
    pub fn done_reading(&self) {
        self.core.marks.read.get_or_init(|| self.core.context.clock.monotonic());
    }

    /// Looks a second time, and judges.
    ///
    /// # Errors
    /// [`Aborted`] by a signal.
    pub fn prove_unmoved(self, second: &SecondLook, trees: &Trees<'_>) -> Result<Proven, Aborted> {
        self.done_reading();
        let Self { mut core, before, after, unwritten } = self;
        if core.context.interrupt.is_set() {
            return Err(give_up(core, AbortReason::Interrupted));
        }
        let node = core.context.observer.node();
        let mut all = core.gathered((&before, after), second, trees);
        all.extend(unwritten);
        all.extend(evidence::trees(&second.trees, &node));
        all.extend(evidence::sources(&second.sources, &node));
        let held = all.iter().all(|one| one.held);
        let first = core.marks.quiet_at.get().copied();
        evidence::stamp(&mut all, first, core.context.clock.now());
        core.evidence = all;
        core.marks.proven.get_or_init(|| core.context.clock.monotonic());
        Ok(if held {
            Proven::Undisturbed(Undisturbed { core })
        } else {
            Proven::Disturbed(Disturbed { core })
        })
    }
}

impl Undisturbed {
    /// Starts what ran before, and closes the window.
    pub fn restart(mut self) -> Restarted {
        let leave_stopped = self.core.plan.leave_stopped;
        self.core.close(leave_stopped)
    }
}

impl Disturbed {
    /// Starts what ran before, and closes the window.
    pub fn restart(mut self) -> Restarted {
        let leave_stopped = self.core.plan.leave_stopped;
        self.core.close(leave_stopped)
    }

    /// The checks that did not hold, a line each.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let broken = self.core.evidence.iter().filter(|one| !one.held);
        broken.map(|one| format!("{}: {}: {}", one.check, one.subject, one.detail)).collect()
    }
}
