//! Maps of data and holes. The first eight bytes are the file's size.
#![no_main]

use cabk::format::tree::{data_len, decode_stretches, encode_stretches};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((size, map)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    if let Ok(list) = decode_stretches(map, size) {
        assert!(data_len(&list) <= size);
        assert_eq!(encode_stretches(&list), map);
    }
});
