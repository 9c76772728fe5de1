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

/// Whether this process was started with `SIGINT` ignored, as by a script in the background: its
/// children ignore it, too, and keep ignoring it.
#[allow(dead_code, reason = "few test files send signals")]
pub(crate) fn ignores_interrupts() -> bool {
    const SIGINT: u64 = 2;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (SIGINT - 1)) != 0
}
