//! The 64 bytes with which every object begins.
#![no_main]

use cabk::format::header::{Header, ObjectKind};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for kind in ObjectKind::ALL {
        if let Ok(header) = Header::decode(bytes, kind) {
            assert_eq!(header.encode()[..10], bytes[..10]);
            let _ = header.unknown_delete_features();
        }
    }
});
