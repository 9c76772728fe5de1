//! Cutting and naming: FastCDC with the repository's table, keyed BLAKE3, both one after the other.

mod common;

use cabk::base::secret::SecretKey;
use cabk::format::pack::ChunkKind;
use cabk::store::cut::{ChunkSizes, Cutter};
use cabk::store::naming::Namer;
use common::{Table, Work, noise, sized};

fn cuts(cutter: &Cutter, source: &[u8], mut each: impl FnMut(&[u8])) -> u64 {
    let (mut rest, mut count) = (source, 0);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(cutter.cut(rest));
        each(chunk);
        rest = after;
        count += 1;
    }
    count
}

fn main() {
    let len = sized(128 << 20, 1 << 30) as usize;
    let data = noise(len, 1);
    let cutter = Cutter::new(&SecretKey::new([1; 32]), ChunkSizes::DEFAULT);
    let namer = Namer::new(&SecretKey::new([2; 32]));
    let work = Work::Bytes(len as u64);
    let mut copy = vec![0; len];

    let mut table = Table::new(&format!("chunking, {} MiB of noise, one thread", len >> 20));
    table.floor("copy the bytes", work, || copy.copy_from_slice(&data));
    table.line("cut", work, || cuts(&cutter, &data, |_| ()));
    table.line("name chunks of 64 KiB", work, || {
        data.chunks(64 << 10).map(|c| namer.name(ChunkKind::Data, c).as_bytes()[0]).max()
    });
    table.line("cut and name", work, || {
        cuts(&cutter, &data, |c| {
            std::hint::black_box(namer.name(ChunkKind::Data, c));
        })
    });
    table.line("cut, name, hash of the whole", work, || {
        let mut whole = namer.content_hasher();
        cuts(&cutter, &data, |c| {
            whole.update(c);
            std::hint::black_box(namer.name(ChunkKind::Data, c));
        });
        whole.finalize()
    });
    let small = Work::Items((len >> 12) as u64);
    table.floor("BLAKE3 of 4 KiB, not keyed", small, || {
        data.chunks(4 << 10).map(|c| blake3::hash(c).as_bytes()[0]).max()
    });
    table.line("name chunks of 4 KiB", small, || {
        data.chunks(4 << 10).map(|c| namer.name(ChunkKind::Data, c).as_bytes()[0]).max()
    });
    let chunks = cuts(&cutter, &data, |_| ());
    println!("{chunks} chunks, {} bytes in the mean", len as u64 / chunks);
}
