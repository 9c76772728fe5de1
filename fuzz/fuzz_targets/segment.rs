//! Index segments.
#![no_main]

use cabk::format::segment::Segment;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(segment) = Segment::decode(bytes) {
        assert_eq!(segment.encode(), bytes);
        for pack in &segment.packs {
            assert!(pack.blocks_with_offsets().all(|(_, offset, _)| offset <= pack.len));
        }
    }
});
