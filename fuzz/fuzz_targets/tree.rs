//! Pages of directories, and entries.
#![no_main]

use cabk::base::id::ContentHash;
use cabk::format::tree::{Entry, Page};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let empty = ContentHash::from_array([0; 32]);
    if let Ok(entry) = Entry::decode(bytes, &empty) {
        let mut again = Vec::new();
        entry.encode(&mut again);
        assert_eq!(Entry::decode(&again, &empty), Ok(entry));
    }
    for level in [None, Some(0), Some(1), Some(u8::MAX)] {
        if let Ok(page) = Page::decode(bytes, level, &empty) {
            assert_eq!(Page::decode(&page.encode(), level, &empty), Ok(page));
        }
    }
});
