//! Arming guards, and what keeps them from being armed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::intent::{Intent, IntentStore};
use super::MARGIN;
use crate::host::clock::Clock;
use crate::host::machine;
use crate::host::service::ServiceError;
use crate::host::watchdog::{News, Watchdog};

/// Time between two looks at a process that is no child.
const LOOK: Duration = Duration::from_millis(50);

/// Why a guard is not in place. Nothing is stopped then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The process that watches could not be started.
    #[error("no process can watch over this run")]
    Watchdog(#[source] std::io::Error),
    /// A node's own timer could not be armed.
    #[error("{service} on {node} cannot be guarded by a timer of that node")]
    Timer {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What happened.
        source: Box<ServiceError>,
    },
}

/// Arms what watches over a window from outside this process.
pub trait Guards: Send + Sync {
    /// Arms it for the intent that is on disk.
    ///
    /// # Errors
    /// [`GuardError`]; nothing is left armed then.
    fn arm(&self, intent: &Intent) -> Result<Box<dyn Standing>, GuardError>;
}

/// Something that watches.
pub trait Standing: Send + Sync {
    /// The window is closed.
    fn dismiss(self: Box<Self>);
}

/// Nothing watches: for windows of the tests' own.
pub struct NoGuards;

impl Guards for NoGuards {
    fn arm(&self, _intent: &Intent) -> Result<Box<dyn Standing>, GuardError> {
        Ok(Box::new(Nobody))
    }
}

struct Nobody;

impl Standing for Nobody {
    fn dismiss(self: Box<Self>) {}
}

/// A process of its own, and where systemd runs the machine a unit of its own as well.
pub struct OutsideGuards {
    program: PathBuf,
    state_dir: PathBuf,
    clock: Arc<dyn Clock>,
}

impl OutsideGuards {
    /// Guards that are this program, run anew for intents below a state directory.
    #[must_use]
    pub fn new(program: &Path, state_dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { program: program.to_owned(), state_dir: state_dir.to_owned(), clock }
    }

    fn arguments(&self, intent: &Intent, within: Duration) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["window", "guard", "--state-dir"].map(Into::into).into();
        words.push(self.state_dir.clone().into());
        words.extend(["--within-ms".into(), within.as_millis().to_string().into()]);
        // A label may begin with a dash.
        words.push(format!("--site={}", intent.site).into());
        words
    }
}

impl Guards for OutsideGuards {
    fn arm(&self, intent: &Intent) -> Result<Box<dyn Standing>, GuardError> {
        let left = Duration::from_millis(intent.deadline.millis_since(self.clock.now()));
        let arguments = self.arguments(intent, left.saturating_add(MARGIN));
        let dog = Watchdog::spawn(&self.program, &arguments, &*self.clock);
        let dog = dog.map_err(GuardError::Watchdog)?;
        Ok(Box::new(Armed { dog }))
    }
}

struct Armed {
    dog: Watchdog,
}

impl Standing for Armed {
    fn dismiss(self: Box<Self>) {
        self.dog.dismiss();
    }
}

/// News of an owner that is no child of this process, by its number and its intent.
pub fn by_process<'a>(
    store: &'a IntentStore,
    intent: &'a Intent,
    clock: &'a dyn Clock,
) -> impl FnMut(Duration) -> Option<News> + 'a {
    move |within| {
        let began = clock.monotonic();
        loop {
            let owner = &intent.owner;
            // What cannot be told now can be told the next time.
            if machine::process_alive(owner.pid, owner.start_time).is_ok_and(|alive| !alive) {
                return Some(News::Gone);
            }
            let ours = |found: &Intent| (&found.owner, found.time) == (owner, intent.time);
            if store.read(&intent.site).is_ok_and(|found| !found.is_some_and(|f| ours(&f))) {
                return Some(News::Closed);
            }
            let left = within.saturating_sub(clock.monotonic().saturating_sub(began));
            if left.is_zero() {
                return None;
            }
            clock.sleep(LOOK.min(left));
        }
    }
}
