//! Contents and list chunks.
#![no_main]

use cabk::format::content::{Content, List};
use cabk::format::wire::Reader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(content) = Content::decode(&mut Reader::new(bytes)) {
        let mut again = Vec::new();
        content.encode(&mut again);
        assert_eq!(again, bytes[..again.len()]);
        let _ = content.len();
    }
    for level in [0, 1, 2, u8::MAX] {
        if let Ok(list) = List::decode(bytes, level) {
            assert_eq!(list.encode(), bytes);
        }
    }
});
