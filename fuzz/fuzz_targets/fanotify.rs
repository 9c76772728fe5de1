//! Records of fanotify.
#![no_main]

use cabk::host::fanotify::decode::{HANDLE_MAX, events};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut count = 0;
    let told = events(bytes, &mut |event| {
        count += 1;
        for handle in [event.object, event.dir, event.new_dir].into_iter().flatten() {
            assert!(!handle.bytes.is_empty() && handle.bytes.len() <= HANDLE_MAX);
        }
    });
    if let Ok(told) = told {
        assert_eq!(told, count);
    }
});
