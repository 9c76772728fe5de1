//! What a unit's own node does for it while it is stopped: a timer starts it, whatever becomes of
//! the machine that stopped it, and a hold keeps others from starting it meanwhile.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{QUESTION, Systemd};
use crate::host::node::{Rights, Sharing};
use crate::host::run::KEPT_OUTPUT;
use crate::host::service::{Action, Precaution, ServiceError};

const SCRIPT: &str = include_str!("guard.sh");

/// The name of a drop-in that heeds holds.
pub const DROP_IN: &str = "50-cabk-hold.conf";

/// The file that keeps a unit from being started.
#[must_use]
pub fn hold_name(unit: &str) -> String {
    format!("hold-{unit}")
}

/// The name of the timer for a unit, without its ending: one a unit, so that one that a killed run
/// left does not fire in the middle of a later window.
fn timer_name(unit: &str) -> String {
    let base = unit.strip_suffix(".service").unwrap_or(unit);
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let readable: String = base.chars().take(60).map(fits).collect();
    format!("cabk-guard-{readable}-{}", &blake3::hash(unit.as_bytes()).to_hex()[..8])
}

impl Systemd {
    /// Tells that a timer and a hold of an earlier process may be there: the hold goes before the
    /// next start, the timer after it.
    pub fn remember_guard(&self) {
        self.guarded.store(true, Ordering::SeqCst);
        self.timed.store(!self.node.is_local(), Ordering::SeqCst);
    }

    fn hold(&self) -> PathBuf {
        self.hold_dir.join(hold_name(&self.unit))
    }

    /// Takes the hold away. On this machine that costs nothing, and is done in any case.
    pub(super) fn release(&self) -> Result<(), ServiceError> {
        if self.node.is_local() {
            return match std::fs::remove_file(self.hold()) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(ServiceError::Hold { path: self.hold().display().to_string(), source })
                }
                _ => Ok(()),
            };
        }
        if !self.guarded.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.script("rm -f -- \"$1\"\n", &[self.hold().into()])
    }

    /// Cancels the timer, once it is not needed.
    pub(super) fn cancel(&self) -> Result<(), ServiceError> {
        if !self.timed.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let timer = format!("{}.timer", timer_name(&self.unit));
        let words = [self.program.clone().into_os_string(), timer.into()];
        self.script("\"$1\" stop -- \"$2\"\n", &words)
    }

    fn script(&self, text: &str, arguments: &[OsString]) -> Result<(), ServiceError> {
        let (label, action) = (self.unit.clone(), Action::Start);
        let done = self
            .node
            .script(Rights::Root, text, arguments, KEPT_OUTPUT, Sharing::Join, QUESTION)
            .map_err(|source| ServiceError::Run { label, action, source })?;
        self.succeeded(action, &done)
    }
}

impl Precaution for Systemd {
    fn arm(&self, after: Option<Duration>, hold: &str) -> Result<(), ServiceError> {
        let seconds = after.map(|after| {
            let whole = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
            whole.to_string()
        });
        let drop_in = self.unit_dir.join(format!("{}.d", self.unit)).join(DROP_IN);
        let arguments: [OsString; 8] = [
            self.unit.clone().into(),
            timer_name(&self.unit).into(),
            seconds.unwrap_or_default().into(),
            self.hold().into(),
            drop_in.into(),
            hold.into(),
            self.program.clone().into(),
            self.run_program.clone().into(),
        ];
        self.guarded.store(true, Ordering::SeqCst);
        self.timed.store(after.is_some(), Ordering::SeqCst);
        self.script(SCRIPT, &arguments)
    }

    fn disarm(&self) -> Result<(), ServiceError> {
        self.release()?;
        self.cancel()
    }
}
