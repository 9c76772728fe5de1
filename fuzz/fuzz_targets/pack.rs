//! A pack's block headers, tables, footer and trailer.
#![no_main]

use cabk::format::pack::{BlockHeader, BlockTable, Footer, Trailer};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = BlockHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..16]);
    }
    if let Ok(table) = BlockTable::decode(bytes) {
        assert_eq!(table.encode(), bytes);
    }
    if let Ok(footer) = Footer::decode(bytes) {
        assert_eq!(Footer::decode(&footer.encode()), Ok(footer));
    }
    if let Ok(trailer) = Trailer::decode(bytes) {
        assert_eq!(trailer.encode(), bytes[..16]);
    }
});
