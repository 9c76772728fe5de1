//! Asking the server's program for its version.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::host::clock::Clock;
use crate::host::run::run_words;
use crate::site::discover::version_from_output;

/// How long the program may take to say its version.
pub const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The version of the server's program.
///
/// # Errors
/// A sentence for a warning: it could not be run, failed, or said nothing that is a version.
pub fn connect_version(program: &Path, clock: &dyn Clock) -> Result<String, String> {
    let words = [program.as_os_str().to_owned(), OsString::from("--version")];
    let unknown = |why: String| format!("the version of the server is not known: {why}");
    let done = run_words(&words, &[], VERSION_TIMEOUT, clock).map_err(|e| match e.source() {
        Some(source) => unknown(format!("{e}: {source}")),
        None => unknown(e.to_string()),
    })?;
    if !done.status.success() {
        return Err(unknown(format!("{} --version: {}", program.display(), done.ending())));
    }
    version_from_output(&done.stdout.text())
        .ok_or_else(|| unknown(format!("{} --version says nothing that is one", program.display())))
}
