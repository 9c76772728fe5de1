//! Extended attributes as content keeps them.
#![no_main]

use cabk::format::tree::{decode_xattrs, encode_xattrs};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(list) = decode_xattrs(bytes) {
        assert_eq!(encode_xattrs(&list), bytes);
    }
});
