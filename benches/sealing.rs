//! Compression with its check, and sealing with its check, each beside the bare primitive.

mod common;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce};
use cabk::base::id::RepoId;
use cabk::base::secret::SecretKey;
use cabk::codec::compress::{Compressor, Decompressor, Effort};
use cabk::codec::seal::{ObjectKey, RecordSealer};
use cabk::format::header::{ObjectKind, Suite};
use cabk::format::pack::Packing;
use common::{Table, Work, noise, sized, text};

const RECORD: usize = 1 << 20;

fn key(suite: Suite) -> ObjectKey {
    let secret = SecretKey::new([1; 32]);
    let repo = RepoId::from_array([2; 16]);
    ObjectKey::new(suite, &secret, &repo, ObjectKind::Pack, &[3; 32], b"front")
}

fn sealing(records: u64) {
    let plain = noise(RECORD, 1);
    let work = Work::Bytes(records * RECORD as u64);
    let mut table = Table::new(&format!("sealing, {records} records of 1 MiB, one thread"));
    let mut buffer = Vec::with_capacity(RECORD + 16);
    let fill = |buffer: &mut Vec<u8>| {
        buffer.clear();
        buffer.extend_from_slice(&plain);
    };
    table.floor("copy the bytes", work, || (0..records).for_each(|_| fill(&mut buffer)));
    let bare = Aes256Gcm::new(&[7; 32].into());
    let mut number = 0u64;
    table.floor("copy, bare AES-256-GCM", work, || {
        for _ in 0..records {
            fill(&mut buffer);
            number += 1;
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&number.to_le_bytes());
            let nonce: Nonce<_> = nonce.into();
            bare.encrypt_inout_detached(&nonce, b"", buffer.as_mut_slice().into()).unwrap();
        }
    });
    for (name, suite) in [("sealed", Suite::Aes256Gcm), ("checksum only", Suite::Checksum)] {
        let key = key(suite);
        table.line(&format!("seal ({name})"), work, || {
            for record in 0..records {
                fill(&mut buffer);
                key.seal(record, &mut buffer).unwrap();
            }
        });
        table.line(&format!("seal and open ({name})"), work, || {
            for record in 0..records {
                fill(&mut buffer);
                key.seal(record, &mut buffer).unwrap();
                key.open(record, &mut buffer).unwrap();
            }
        });
        let mut sealer = RecordSealer::new(self::key(suite));
        let mut scratch = Vec::new();
        table.line(&format!("seal, open, compare ({name})"), work, || {
            for _ in 0..records {
                buffer.clear();
                sealer.seal(&plain, &mut buffer, &mut scratch).unwrap();
            }
        });
    }
}

fn packing(name: &str, data: &[u8]) {
    let work = Work::Bytes(data.len() as u64);
    let mib = data.len() >> 20;
    let mut table = Table::new(&format!("packing, {mib} MiB of {name}, zstd 3, one thread"));
    for (long, block) in [(false, 1 << 20), (true, 4 << 20)] {
        let kind = if long { "4 MiB blocks, long matches" } else { "1 MiB blocks" };
        let mut bare = zstd::bulk::Compressor::new(3).unwrap();
        if long {
            bare.set_parameter(zstd::zstd_safe::CParameter::EnableLongDistanceMatching(true))
                .unwrap();
            bare.set_parameter(zstd::zstd_safe::CParameter::WindowLog(22)).unwrap();
        }
        table.floor(&format!("bare zstd, {kind}"), work, || {
            data.chunks(block).map(|b| bare.compress(b).unwrap().len()).sum::<usize>()
        });
        let mut packer = Compressor::new(Effort { level: 3, long }).unwrap();
        let (mut body, mut out) = (Vec::new(), Vec::new());
        table.line("pack, unpack, compare", work, || {
            for plain in data.chunks(block) {
                body.clear();
                packer.pack(plain, &mut body, &mut out).unwrap();
            }
        });
        let packed: Vec<(Packing, Vec<u8>, usize)> = data
            .chunks(block)
            .map(|plain| {
                let mut body = Vec::new();
                let packing = packer.pack(plain, &mut body, &mut out).unwrap();
                (packing, body, plain.len())
            })
            .collect();
        let mut unpacker = Decompressor::new().unwrap();
        table.line("unpack", work, || {
            for (packing, body, len) in &packed {
                unpacker.unpack(*packing, body, *len, &mut out).unwrap();
            }
        });
        let size: usize = packed.iter().map(|p| p.1.len()).sum();
        println!("  {:.3} of the plain bytes", size as f64 / data.len() as f64);
    }
}

fn main() {
    sealing(sized(64, 512));
    let len = sized(32 << 20, 256 << 20) as usize;
    packing("text", &text(len, 1));
    packing("noise", &noise(len, 2));
}
