//! Environment files, as systemd reads them.
#![no_main]

use cabk::site::envfile::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = parse(bytes) {
        let _ = format!("{file:?}");
    }
});
