use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::super::tests::Bed;
use super::*;

fn bytes(path: &std::path::Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}

#[test]
fn files_arrive_with_their_names_owners_and_bytes() {
    let bed = Bed::new(false);
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap().join("it's an etc");
    let long = top.join("d".repeat(120)).join("e".repeat(200));
    std::fs::create_dir_all(&long).unwrap();
    let files = [top.join("a.gcfg"), top.join("empty"), long.join("f")];
    std::fs::write(&files[0], vec![7; 1000]).unwrap();
    std::fs::write(&files[1], "").unwrap();
    std::fs::write(&files[2], "deep").unwrap();
    std::os::unix::fs::symlink("../elsewhere", top.join("link")).unwrap();
    let outer = dir.path().canonicalize().unwrap().join("through");
    std::os::unix::fs::symlink(&top, &outer).unwrap();
    let fetched =
        fetch(&bed.node, Which::All, &[bytes(&outer), b"/no/such; thing".to_vec()]).unwrap();
    let find = |path: &std::path::Path| {
        let path = bytes(path);
        fetched.iter().find(|one| one.path == path).unwrap_or_else(|| panic!("{fetched:?}"))
    };
    for path in &files {
        let (one, stat) = (find(path), std::fs::metadata(path).unwrap());
        assert_eq!(one.kind, FetchedKind::File(std::fs::read(path).unwrap()));
        assert_eq!((one.mode, one.uid, one.gid), (stat.mode() & 0o7777, stat.uid(), stat.gid()));
        assert_eq!(i64::try_from(one.mtime), Ok(stat.mtime()));
    }
    assert_eq!(find(&top).kind, FetchedKind::Dir);
    assert_eq!(find(&top.join("link")).kind, FetchedKind::Link(b"../elsewhere".to_vec()));
    assert_eq!(find(&outer).kind, FetchedKind::Link(bytes(&top)));
    assert_eq!(fetch(&bed.node, Which::All, &[b"/no/such".to_vec()]).unwrap(), []);
    let only = fetch(&bed.node, Which::Files, &[bytes(&top), bytes(&files[0])]).unwrap();
    assert_eq!(only.len(), 1);
    // POSIX's form of the same.
    let mut command = Command::new("tar");
    command.args(["--format=pax", "-cf", "-", "-C", "/"]).arg(format!(".{}", long.display()));
    let archive = command.output().unwrap().stdout;
    let again = read(&archive).unwrap();
    assert!(again.iter().any(|one| one.path == bytes(&files[2])), "{again:?}");
    let big = std::fs::File::create(top.join("big")).unwrap();
    big.set_len(40 << 20).unwrap();
    assert!(
        fetch(&bed.node, Which::All, &[bytes(&top)]).unwrap_err().to_string().contains("more than")
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_archive_or_an_error(bytes in proptest::collection::vec(0_u8.., 0..3000)) {
        let _ = read(&bytes);
        // With a header that is one, whatever follows it.
        let mut with_head = archive(b"./a", b'x', b"")[..BLOCK].to_vec();
        with_head.extend(&bytes);
        let _ = read(&with_head);
        let _ = pax(&bytes, &mut Before::default());
    }
}

/// One entry and the end.
fn archive(name: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&b| u64::from(b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(content);
    header.resize(header.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    header
}

#[test]
fn archives_are_read_strictly() {
    let good = archive(b"./etc/x", b'0', b"abc");
    assert_eq!(read(&good).unwrap()[0].path, b"/etc/x");
    for cut in [1, 511, 513, BLOCK + 1, BLOCK + 511, good.len() - 2 * BLOCK] {
        assert!(read(&good[..cut]).is_err(), "{cut}");
    }
    // The last byte of the sum's own field says nothing.
    for at in (0..BLOCK).filter(|&at| at != 155) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x41;
        assert!(read(&flipped).is_err(), "byte {at}");
    }
    for name in [&b"../etc/x"[..], b"etc/../../x", b"./", b""] {
        assert!(read(&archive(name, b'0', b"")).is_err(), "{name:?}");
    }
    let mut field = [0x80, 0, 0, 0, 0, 1, 2, 3];
    assert_eq!(number(&field, 0, 8).unwrap(), 0x01_0203);
    field[1] = 1;
    assert!(number(&[&field[..], &[1; 4]].concat(), 0, 12).is_err());
    assert_eq!(read(&archive(b"dev", b'3', b"")).unwrap()[0].kind, FetchedKind::Other);
    for bad in [&b"9999 path=x\n"[..], b"5 x", b"0 a=b\n", b"13 size=-1xx\n", b"12 path=abcd"] {
        assert!(read(&archive(b"pax", b'x', bad)).is_err(), "{bad:?}");
    }
    assert!(read(&archive(b"long", b'L', &vec![b'a'; NAME_MAX + 1])).is_err());
}
