//! `window`: what a killed run left, and starting what it had stopped.

mod install;

use std::path::Path;
use std::sync::Arc;

use crate::host::clock::Clock;
use crate::window::frozen::{FrozenStore, Swept};
use crate::window::guard::{HOLDS, sweep_holds};
use crate::window::intent::IntentError;
use crate::window::recover::{self, Recovery, service_of};
use crate::window::status::{self, WindowStatus};

pub use install::{Install, InstallError, install, uninstall};

/// Which windows are open, and whether anybody is in them.
///
/// # Errors
/// Where the state directory cannot be listed.
pub fn status(state_dir: &Path, clock: &dyn Clock) -> Result<WindowStatus, IntentError> {
    status::status(state_dir, clock.now())
}

/// Starts what runs that are dead had stopped, and removes what they left frozen. A window whose owner
/// lives is left alone.
///
/// # Errors
/// Where the state directory cannot be listed; what is wrong with one intent is in the result.
pub fn recover(state_dir: &Path, clock: &Arc<dyn Clock>) -> Result<(Recovery, Swept), IntentError> {
    let make = |intent: &_, service: &_| service_of(intent, service, clock);
    let done = recover::recover(state_dir, &make, &**clock, false);
    // Whoever is dead or late holds nothing any more, also where no intent tells of it.
    sweep_holds(&HOLDS.into(), &**clock);
    // Services first: what is frozen only takes space.
    Ok((done?, FrozenStore::open(state_dir).sweep(&**clock)))
}
