//! Unit files, and words as `ExecStart=` and `Environment=` split them.
#![no_main]

use cabk::site::unit::{parse, words};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(directives) = parse(bytes) {
        let _ = format!("{directives:?}");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = words(text);
    }
});
