//! What the integration tests share.

use std::io::Write;

/// Says on stderr why a test does not run here, and notes it in the file that `CABK_SKIP_LOG`
/// names, so that whoever runs all tests can count what was left out.
#[allow(dead_code)] // not every test file has tests to skip
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("CABK_SKIP_LOG") {
        let mut log = std::fs::File::options().append(true).create(true).open(path).unwrap();
        log.write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
    }
}
