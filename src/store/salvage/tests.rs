use std::sync::Arc;

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::base::time::Timestamp;
use crate::codec::compress::{Compressor, Effort};
use crate::format::pack::{ChunkKind, Class, TableEntry, block_len};
use crate::host::entropy::SystemEntropy;
use crate::store::cut::ChunkSizes;
use crate::store::pack_builder::{FinishedPack, PackBuilder, PackedBlock, Scratch};
use crate::store::repository::{InitOptions, init};

fn repository() -> Repository {
    let options = InitOptions {
        password: None,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to: None,
        now: Timestamp::EPOCH,
    };
    init(Arc::new(MemoryBackend::new()), Arc::new(SystemEntropy), &options).unwrap()
}

/// A pack of blocks with 3, 1 and 5 chunks.
fn pack(repository: &Repository) -> (FinishedPack, Vec<u8>) {
    let mut compressor = Compressor::new(Effort { level: 3, long: false }).unwrap();
    let mut builder = PackBuilder::new(repository).unwrap();
    for (number, count) in [3u8, 1, 5].into_iter().enumerate() {
        let mut plain = Vec::new();
        let mut chunks = Vec::new();
        for n in 0..count {
            let bytes = vec![number as u8 * 16 + n; 100 + usize::from(n)];
            let id = repository.namer().name(ChunkKind::Data, &bytes);
            chunks.push(TableEntry { kind: ChunkKind::Data, id, len: bytes.len() as u32 });
            plain.extend(bytes);
        }
        let table = BlockTable { chunks };
        let mut scratch = Scratch::default();
        let block =
            PackedBlock::pack(Class::Data, table, &plain, &mut compressor, &mut scratch).unwrap();
        builder.add(block).unwrap();
    }
    let pack = builder.finish().unwrap();
    let bytes = pack.bytes.clone();
    (pack, bytes)
}

fn scanned(repository: &Repository, bytes: &[u8]) -> Salvaged {
    let header = header_of(bytes).unwrap();
    scan(repository, header, bytes, None, &mut Decompressor::new().unwrap()).unwrap()
}

/// Where each block ends; the first boundary is the header's end.
fn boundaries(pack: &FinishedPack) -> Vec<usize> {
    let mut ends = vec![HEADER_LEN];
    for (_, offset, block) in pack.entry.blocks_with_offsets() {
        ends.push((offset + block_len(&block.header)) as usize);
    }
    ends
}

#[test]
fn a_whole_pack_gives_what_its_index_entry_says() {
    let repository = repository();
    let (pack, bytes) = pack(&repository);
    let found = scanned(&repository, &bytes);
    assert!(found.faults.is_empty());
    assert_eq!(found.end as usize, *boundaries(&pack).last().unwrap());
    assert_eq!(found.entry(pack.entry.id, bytes.len() as u64), pack.entry);
}

#[test]
fn a_pack_cut_anywhere_gives_all_blocks_in_front_of_the_cut() {
    let repository = repository();
    let (pack, bytes) = pack(&repository);
    let ends = boundaries(&pack);
    for (number, end) in ends.iter().enumerate() {
        for cut in [end - 1, *end, end + 1] {
            if cut < HEADER_LEN {
                assert!(header_of(&bytes[..cut]).is_err());
                continue;
            }
            let found = scanned(&repository, &bytes[..cut]);
            let expected = if cut < *end { number - 1 } else { number };
            assert_eq!(found.good_blocks(), expected, "cut at {cut}");
            assert_eq!(found.end as usize, ends[expected]);
            let entry = found.entry(pack.entry.id, cut as u64);
            assert_eq!(entry.blocks, pack.entry.blocks[..expected]);
        }
    }
}

#[test]
fn a_damaged_block_keeps_its_place_and_those_behind_it_are_found() {
    let repository = repository();
    let (pack, bytes) = pack(&repository);
    let ends = boundaries(&pack);
    for at in [ends[1] + BLOCK_HEADER_LEN, ends[2] - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let found = scanned(&repository, &damaged);
        assert_eq!(found.faults.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1]);
        assert_eq!(found.good_blocks(), 2);
        let entry = found.entry(pack.entry.id, bytes.len() as u64);
        assert!(entry.blocks[1].chunks.is_empty());
        assert_eq!(entry.blocks[2], pack.entry.blocks[2]);
    }
}

#[test]
fn a_damaged_header_is_made_up_for_by_the_one_that_the_index_keeps() {
    let repository = repository();
    let (pack, mut bytes) = pack(&repository);
    bytes[40] ^= 1; // the salt
    assert_eq!(scanned(&repository, &bytes).good_blocks(), 0);
    bytes[0] ^= 1;
    let mut unpacker = Decompressor::new().unwrap();
    assert!(scan(&repository, header_of(&bytes).unwrap(), &bytes, None, &mut unpacker).is_err());
    let found = scan(&repository, pack.entry.header, &bytes, None, &mut unpacker).unwrap();
    assert_eq!(found.good_blocks(), 3);
}

#[test]
fn any_lengths_in_a_block_header_are_no_panic() {
    let repository = repository();
    let (_, bytes) = pack(&repository);
    for at in HEADER_LEN..HEADER_LEN + BLOCK_HEADER_LEN {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            let found = scanned(&repository, &damaged);
            assert!(found.end <= damaged.len() as u64);
        }
    }
}
