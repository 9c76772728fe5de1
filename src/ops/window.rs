//! `window`: what a killed run left, and starting what it had stopped.

use std::path::Path;
use std::sync::Arc;

use crate::host::clock::Clock;
use crate::window::intent::IntentError;
use crate::window::recover::{self, Recovery, WindowStatus, service_of};

/// Which windows are open, and whether anybody is in them.
///
/// # Errors
/// Where the state directory cannot be listed.
pub fn status(state_dir: &Path) -> Result<WindowStatus, IntentError> {
    recover::status(state_dir)
}

/// Starts what runs that are dead had stopped. A window whose owner lives is left alone.
///
/// # Errors
/// Where the state directory cannot be listed; what is wrong with one intent is in the result.
pub fn recover(state_dir: &Path, clock: &Arc<dyn Clock>) -> Result<Recovery, IntentError> {
    let make = |intent: &_, service: &_| service_of(intent, service, clock);
    recover::recover(state_dir, &make, &**clock, false)
}
