//! A bundle as publishers make it: a tar in a gzip file. Small, and of one kind: regular files in
//! the ustar form, and deflate's stored blocks.

/// Bytes of a tar's block.
const BLOCK: usize = 512;

/// Most bytes in a stored block of deflate.
const STORED_MAX: usize = 0xffff;

/// A file to be packed: its name, its permission bits, its content.
pub(super) struct Member<'a> {
    /// At most 100 bytes, no slash at its beginning.
    pub(super) name: &'a str,
    /// Permission bits.
    pub(super) mode: u32,
    /// The content.
    pub(super) data: &'a [u8],
}

/// A `.tar.gz` of these files, all changed at `mtime` (seconds since 1970).
pub(super) fn tar_gz(members: &[Member<'_>], mtime: u32) -> Vec<u8> {
    gzip(&tar(members, mtime))
}

fn tar(members: &[Member<'_>], mtime: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        out.extend_from_slice(&header(member, mtime));
        out.extend_from_slice(member.data);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end an archive.
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn header(member: &Member<'_>, mtime: u32) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let name = member.name.as_bytes();
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{:07o}", member.mode).as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{:011o}", member.data.len()).as_bytes());
    put(136, format!("{mtime:011o}").as_bytes());
    // The sum is made as if its own field were blanks.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(265, b"publisher");
    put(297, b"publisher");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn gzip(data: &[u8]) -> Vec<u8> {
    // Method 8, no flags, no time, no hint of the level, made on Unix.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut blocks = data.chunks(STORED_MAX).peekable();
    while let Some(block) = blocks.next() {
        out.push(u8::from(blocks.peek().is_none()));
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(data).to_le_bytes());
    // The length counts modulo 2^32, as the format has it.
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out
}

/// The checksum of gzip.
fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut at = 0;
        while at < 256 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    let step = |sum: u32, &byte: &u8| TABLE[((sum ^ u32::from(byte)) & 0xff) as usize] ^ (sum >> 8);
    !data.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn tar_unpacks_what_was_packed() {
        let long: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let members = [
            Member { name: "manifest.json", mode: 0o644, data: b"{}\n" },
            Member { name: "data/long.bin", mode: 0o600, data: &long },
            Member { name: "empty", mode: 0o755, data: b"" },
        ];
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("1.tar.gz");
        std::fs::write(&archive, tar_gz(&members, 1_700_000_000)).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&archive).arg("-C").arg(dir.path()).stdin(Stdio::null());
        match tar.output() {
            Ok(done) => assert!(done.status.success() && done.stderr.is_empty(), "{done:?}"),
            Err(error) => return eprintln!("skipped: tar cannot be run: {error}"),
        }
        for member in members {
            let path = dir.path().join(member.name);
            assert_eq!(std::fs::read(&path).unwrap(), member.data);
            let meta = std::fs::metadata(&path).unwrap();
            let mtime = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(mtime.as_secs(), 1_700_000_000);
        }
    }
}
