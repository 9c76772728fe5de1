use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::host::fs::{Extent, ExtentKind};

fn opened(path: &Path) -> io::Result<LinuxDir> {
    LinuxFs::open(path.as_os_str().as_bytes())
}

fn code<T>(result: io::Result<T>) -> Option<Errno> {
    result.err()?.raw_os_error().map(Errno::from_raw_os_error)
}

#[test]
fn names_are_bytes_and_complete() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    let mut wanted: Vec<Vec<u8>> =
        vec![b"line\nbreak".to_vec(), b"\xff\xfe".to_vec(), b"...".to_vec(), vec![b'n'; 255]];
    wanted.extend((0..3000).map(|n| format!("a rather long name, number {n}").into_bytes()));
    for name in &wanted {
        fs::write(temp.path().join(std::ffi::OsStr::from_bytes(name)), name)?;
    }
    let dir = opened(temp.path())?;
    wanted.sort();
    for _ in 0..2 {
        let mut names = dir.names()?;
        names.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(names.iter().map(|n| &n.name).eq(&wanted));
        for found in names.iter().take(10) {
            assert_eq!(dir.stat(&found.name)?.ino, found.ino);
        }
    }
    let mut buf = [0; 64];
    let file = dir.file(b"line\nbreak")?;
    assert_eq!(file.read_at(&mut buf, 4)?, 6);
    assert_eq!(&buf[..6], b"\nbreak");
    assert_eq!(file.read_at(&mut buf, 1000)?, 0);
    Ok(())
}

#[test]
fn stat_says_what_the_standard_library_says() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    fs::write(temp.path().join("f"), b"12345")?;
    fs::set_permissions(temp.path().join("f"), fs::Permissions::from_mode(0o4711))?;
    fs::hard_link(temp.path().join("f"), temp.path().join("g"))?;
    symlink("f", temp.path().join("link"))?;
    let dir = opened(temp.path())?;
    let (stat, std) = (dir.stat(b"f")?, fs::metadata(temp.path().join("f"))?);
    assert_eq!((stat.kind, stat.mode, stat.size), (InodeKind::File, 0o4711, 5));
    assert_eq!((stat.ino, stat.uid, stat.gid), (std.ino(), std.uid(), std.gid()));
    assert_eq!((u64::from(stat.nlink), stat.allocated), (std.nlink(), std.blocks() * 512));
    assert_eq!((stat.mtime.secs, i64::from(stat.mtime.nanos)), (std.mtime(), std.mtime_nsec()));
    assert_eq!((stat.ctime.secs, i64::from(stat.ctime.nanos)), (std.ctime(), std.ctime_nsec()));
    assert_eq!(dir.file(b"f")?.stat()?, stat);
    let link = dir.stat(b"link")?;
    assert_eq!((link.kind, link.size), (InodeKind::Symlink, 1));
    assert_eq!(dir.read_link(b"link")?, b"f");
    assert_eq!(dir.stat_self()?.kind, InodeKind::Dir);
    Ok(())
}

#[test]
fn nothing_leads_out_through_a_link() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    fs::create_dir_all(temp.path().join("real/below"))?;
    fs::write(temp.path().join("real/f"), b"x")?;
    symlink("real", temp.path().join("inside"))?;
    symlink("/etc", temp.path().join("outside"))?;
    symlink("real/f", temp.path().join("file"))?;
    symlink("/proc/self/cwd", temp.path().join("magic"))?;
    let dir = opened(temp.path())?;
    assert!(dir.dir(b"real/below").is_ok());
    for path in [&b"inside"[..], b"outside", b"inside/below", b"magic", b"magic/src"] {
        let error = code(dir.dir(path));
        assert!(matches!(error, Some(Errno::LOOP | Errno::NOTDIR)), "{path:?} {error:?}");
    }
    assert_eq!(code(dir.dir(b"inside/below")), Some(Errno::LOOP));
    assert_eq!(code(dir.dir(b"../..")), Some(Errno::XDEV));
    assert_eq!(code(dir.dir(b"/etc")), Some(Errno::XDEV));
    assert_eq!(code(dir.file(b"file")), Some(Errno::LOOP));
    for name in [&b"real/f"[..], b"", b".", b".."] {
        assert_eq!(code(dir.stat(name)), Some(Errno::INVAL), "{name:?}");
        assert_eq!(code(dir.file(name)), Some(Errno::INVAL), "{name:?}");
        assert_eq!(code(dir.attributes(name)), Some(Errno::INVAL), "{name:?}");
    }
    assert_eq!(code(dir.stat(b"zero\0byte")), Some(Errno::INVAL));
    Ok(())
}

#[test]
fn only_regular_files_open() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    rustix::fs::mknodat(CWD, temp.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0)?;
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket"))?;
    fs::create_dir(temp.path().join("dir"))?;
    let dir = opened(temp.path())?;
    assert_eq!(dir.stat(b"fifo")?.kind, InodeKind::Fifo);
    assert_eq!(dir.stat(b"socket")?.kind, InodeKind::Socket);
    assert_eq!(code(dir.file(b"fifo")), Some(Errno::INVAL));
    assert_eq!(code(dir.file(b"socket")), Some(Errno::NXIO));
    assert_eq!(code(dir.file(b"dir")), Some(Errno::INVAL));
    assert_eq!(code(dir.dir(b"fifo")), Some(Errno::NOTDIR));
    assert_eq!(dir.attributes(b"fifo")?.flags, None);
    Ok(())
}

#[test]
fn reading_leaves_the_access_time() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    let path = temp.path().join("f");
    fs::write(&path, b"content")?;
    let old = fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(&path)?.set_times(old)?;
    let mut buf = [0; 7];
    assert_eq!(opened(temp.path())?.file(b"f")?.read_at(&mut buf, 0)?, 7);
    assert_eq!(fs::metadata(&path)?.atime(), 0);
    Ok(())
}

#[test]
fn extended_attributes_of_all_sizes() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    let path = temp.path().join("f");
    fs::write(&path, b"x")?;
    let set = |name: String, value: &[u8]| {
        rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty())
    };
    if let Err(Errno::OPNOTSUPP) = set("user.empty".into(), b"") {
        eprintln!("skipped: no extended attributes in {}", temp.path().display());
        return Ok(());
    }
    let mut wanted = vec![(b"user.empty".to_vec(), Vec::new())];
    // Together more names than the first buffer holds, on file systems with room for them.
    for n in 0..40 {
        let name = format!("user.a-long-name-for-an-attribute-number-{n:04}");
        match set(name.clone(), &[n; 7]) {
            Ok(()) => wanted.push((name.into_bytes(), vec![n; 7])),
            Err(Errno::NOSPC) => break,
            Err(e) => return Err(e.into()),
        }
    }
    wanted.sort();
    let found = opened(temp.path())?.file(b"f")?.attributes()?;
    let user: Vec<_> =
        found.xattrs.iter().filter(|(n, _)| n.starts_with(b"user.")).cloned().collect();
    assert_eq!(user, wanted);
    assert!(found.unread.is_empty());
    assert!(found.xattrs.is_sorted());
    Ok(())
}

#[test]
fn maps_tell_data_holes_and_unwritten_apart() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    let mib = 1 << 20;
    let file = fs::File::create(temp.path().join("f"))?;
    file.write_all_at(&[1; 100], 0)?;
    file.set_len(8 * mib + 5)?;
    file.write_all_at(&vec![2; mib as usize], 4 * mib)?;
    file.write_all_at(b"12345", 8 * mib)?;
    let fallocated =
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 6 * mib, mib);
    let dir = opened(temp.path())?;
    let found = dir.file(b"f")?;
    let map = found.extents(&found.stat()?)?;
    let kind_at = |at: u64| {
        map.extents.iter().find(|e| e.offset <= at && at < e.offset + e.len).map(|e| e.kind)
    };
    for at in [0, 99, 4 * mib, 5 * mib - 1, 8 * mib, 8 * mib + 4] {
        assert_eq!(kind_at(at), Some(ExtentKind::Data), "{at}");
    }
    assert_eq!(kind_at(2 * mib), None);
    assert_eq!(map.extents.last().map(|e| e.offset + e.len), Some(8 * mib + 5));
    if !map.exact || fallocated.is_err() {
        eprintln!("skipped: unwritten extents are not known in {}", temp.path().display());
        return Ok(());
    }
    assert_eq!(kind_at(6 * mib), Some(ExtentKind::Unwritten));
    assert_eq!(kind_at(7 * mib - 1), Some(ExtentKind::Unwritten));
    assert_eq!(kind_at(7 * mib), None);
    Ok(())
}

#[test]
fn small_and_odd_maps() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    let map_of = |name: &str| {
        let file = opened(temp.path())?.file(name.as_bytes())?;
        file.extents(&file.stat()?)
    };
    fs::write(temp.path().join("empty"), b"")?;
    assert!(map_of("empty")?.extents.is_empty());
    fs::write(temp.path().join("small"), b"tiny")?;
    let data = Extent { offset: 0, len: 4, kind: ExtentKind::Data };
    assert_eq!(map_of("small")?.extents, [data]);
    fs::File::create(temp.path().join("hole"))?.set_len(3000)?;
    let hole = map_of("hole")?;
    assert!(hole.extents.is_empty());
    let huge = fs::File::create(temp.path().join("huge"))?;
    huge.set_len(1 << 40)?;
    assert!(map_of("huge")?.extents.is_empty());
    if !hole.exact {
        eprintln!("skipped: unwritten extents are not known in {}", temp.path().display());
        return Ok(());
    }
    let none = rustix::fs::FallocateFlags::empty();
    let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
    let unwritten = fs::File::create(temp.path().join("unwritten"))?;
    rustix::fs::fallocate(&unwritten, none, 0, 100)?;
    let first = Extent { offset: 0, len: 100, kind: ExtentKind::Unwritten };
    assert_eq!(map_of("unwritten")?.extents, [first]);
    // Into allocated space written and not yet flushed: data, not unwritten.
    unwritten.write_all_at(b"now", 0)?;
    assert_eq!(map_of("unwritten")?.extents[0].kind, ExtentKind::Data);
    let behind = fs::File::create(temp.path().join("behind"))?;
    behind.write_all_at(b"data", 0)?;
    rustix::fs::fallocate(&behind, keep, 0, 1 << 20)?;
    let map = map_of("behind")?;
    assert_eq!(map.extents[0], data);
    let last = map.extents.last().copied();
    assert!(last.is_some_and(|e| e.kind == ExtentKind::Unwritten && e.offset + e.len == 1 << 20));
    Ok(())
}

#[test]
fn many_extents_need_many_calls() -> io::Result<()> {
    let temp = tempfile::tempdir()?;
    let file = fs::File::create(temp.path().join("f"))?;
    let count = 200;
    for n in 0..count {
        file.write_all_at(&[7; 4096], n * 131_072)?;
    }
    let found = opened(temp.path())?.file(b"f")?;
    let map = found.extents(&found.stat()?)?;
    let covered: u64 = map.extents.iter().map(|e| e.len).sum();
    assert!(covered >= count * 4096);
    for n in 0..count {
        let at = n * 131_072;
        assert!(map.extents.iter().any(|e| e.offset <= at && at + 4096 <= e.offset + e.len));
    }
    assert!(map.extents.windows(2).all(|w| w[0].offset + w[0].len <= w[1].offset));
    Ok(())
}
