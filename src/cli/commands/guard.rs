//! `window guard`: what a run puts beside itself before it stops anything. Not for people.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::GuardArgs;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::host::clock::{Clock, SystemClock};
use crate::host::signal::Interrupt;
use crate::host::watchdog::{Watch, detach, this_program};
use crate::window::guard::{Ended, Guard, GuardUnits, Guards, OutsideGuards, by_process};
use crate::window::intent::{Intent, IntentError, IntentStore};
use crate::window::recover::service_of;

/// The guards of a run of this program.
pub fn outside(state_dir: &Path, clock: &Arc<dyn Clock>) -> Arc<dyn Guards> {
    let guards = OutsideGuards::new(this_program(), state_dir, Arc::clone(clock));
    Arc::new(guards.with_units(GuardUnits::of_this_machine()))
}

/// Is one of a guard's processes, until it is not needed any more. It needs neither configuration
/// nor repository, for those may be what broke.
///
/// # Errors
/// What keeps it from watching.
pub fn run(args: &GuardArgs) -> Result<Exit, CliError> {
    let failed = |error: std::io::Error| CliError::from_error(Kind::Failed, &error);
    if !args.watching && !args.by_process {
        let mut again: Vec<OsString> = std::env::args_os().skip(1).collect();
        again.push("--watching".into());
        detach(this_program(), &again).map_err(failed)?;
        return Ok(Exit::Ok);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = IntentStore::open(&args.state_dir);
    let Some(intent) = store.read(&args.site)? else { return Ok(Exit::Ok) };
    // Noted and not obeyed: what asks everybody to end asks the guarded process, too.
    let interrupt = Interrupt::install().map_err(failed)?;
    let make = |intent: &_, service: &_| service_of(intent, service, &clock);
    let log = |text: &str| note(&store, &intent, &*clock, text);
    let guard =
        Guard { store: &store, intent: intent.clone(), make: &make, clock: &*clock, log: &log };
    let within = Duration::from_millis(args.within_ms);
    let ended = if args.by_process {
        let mut news = by_process(&store, &intent, &*clock);
        guard.stand(within, &mut news, &mut || {})
    } else {
        let watch = std::cell::RefCell::new(Watch::begin().map_err(failed)?);
        let mut news = |within| watch.borrow().news(within);
        guard.stand(within, &mut news, &mut || watch.borrow_mut().as_before())
    };
    drop(interrupt);
    Ok(if ended == Ended::Down { Exit::ServiceDown } else { Exit::Ok })
}

/// Adds a line to the site's guard log, which only a guard that acts makes.
fn note(store: &IntentStore, intent: &Intent, clock: &dyn Clock, text: &str) {
    let line = format!("{} guard {}: {text}\n", clock.now(), std::process::id());
    let made: Result<(), IntentError> = store.append_log(&intent.site, line.as_bytes());
    // There is nobody to tell, and the service matters more. Where standard error leads somewhere,
    // as in a unit's journal, it is told there as well.
    drop(made);
    let _ = std::io::stderr().write_all(line.as_bytes());
}
