use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};

use super::super::tests::Bed;
use super::*;

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bytes(path: &std::path::Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}

#[test]
fn open_files_directories_and_mappings_are_listed_with_their_inodes() {
    if !crate::host::machine::is_root() {
        eprintln!("skipped: other processes' descriptors are for root to see");
        return;
    }
    let bed = Bed::new(false);
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("it's a $(tree)");
    std::fs::create_dir(&top).unwrap();
    let file = top.join("f");
    std::fs::write(&file, "x").unwrap();
    let script = "cd \"$1\" && exec 7>>f 8<f && exec sleep 61";
    let mut command = Command::new("sh");
    command.args(["-c", script, "two\nlines"]).arg(&top);
    let child = Ends(command.spawn().unwrap());
    let pid = child.0.id();
    while std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|e| !e.ends_with("sleep")) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let missing = dir.path().join("missing");
    let paths = [bytes(&missing), bytes(&top)];
    let listing = list(&bed.node, &paths).unwrap();
    let stat = std::fs::metadata(&top).unwrap();
    let [root] = &listing.roots[..] else { panic!("{:?}", listing.roots) };
    let number = |dev: Device| rustix::fs::makedev(dev.0, dev.1);
    assert_eq!((root.index, number(root.dev), root.ino), (1, stat.dev(), stat.ino()));
    if let Ok(born) = stat.created() {
        let born = born.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(root.born, i64::try_from(born.as_secs()).unwrap());
    }
    assert!(!root.file_system.is_empty() && listing.processes > 0);
    let inode = std::fs::metadata(&file).unwrap().ino();
    let mine: Vec<Held> = listing
        .held
        .iter()
        .filter(|held| held.pid == pid && [inode, stat.ino()].contains(&held.ino))
        .cloned()
        .collect();
    let told = details(&bed.node, &mine).unwrap();
    let find = |what: UseKind| told.iter().find(|one| one.what == what);
    let writer =
        told.iter().find(|one| matches!(one.what, UseKind::Fd { fd: 7, writable: true, .. }));
    assert_eq!(writer.unwrap().path, bytes(&file));
    assert!(writer.unwrap().command.contains("sleep 61"), "{writer:?}");
    assert_eq!(writer.unwrap().uid, 0);
    let reads = |one: &Detail| matches!(one.what, UseKind::Fd { fd: 8, writable: false, .. });
    assert!(told.iter().any(reads), "{told:?}");
    assert_eq!(find(UseKind::Cwd).unwrap().path, bytes(&top));
    // One that is gone by then counts as one that may write.
    let gone = Held { pid: 999_999_999, place: "999999999/fd/3".into(), ..mine[0].clone() };
    let told = details(&bed.node, &[gone]).unwrap();
    assert!(matches!(told[0].what, UseKind::Fd { writable: true, .. }), "{told:?}");
    assert_eq!(told[0].command, "it has ended since");
    drop(child);
    assert_eq!(
        list(&bed.node, &[bytes(&missing)]).unwrap(),
        Listing { whole_machine: listing.whole_machine, ..Listing::default() }
    );
}

/// By the kernel's own word, without a descriptor.
#[test]
fn writable_mappings_of_another_node_are_listed() {
    if !crate::host::machine::is_root() {
        eprintln!("skipped: other processes' mappings are for root to see");
        return;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let bed = Bed::new(false);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, vec![0; 4096]).unwrap();
    let script = "import ctypes, os, sys\n\
        c = ctypes.CDLL(None, use_errno=True)\n\
        c.mmap.restype = ctypes.c_void_p\n\
        f = os.open(sys.argv[1], os.O_RDWR)\n\
        m = c.mmap(None, 4096, 3, 1, f, ctypes.c_long(0))\n\
        os.close(f)\n\
        open(sys.argv[1] + '.ready', 'w').close()\n\
        sys.stdin.read()\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&file).stdin(std::process::Stdio::piped());
    let child = Ends(command.spawn().unwrap());
    while !dir.path().join("f.ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let inode = std::fs::metadata(&file).unwrap().ino();
    let listing = list(&bed.node, &[bytes(dir.path())]).unwrap();
    let mine: Vec<Held> =
        listing.held.into_iter().filter(|h| (h.pid, h.ino) == (child.0.id(), inode)).collect();
    let told = details(&bed.node, &mine).unwrap();
    let [one] = &told[..] else { panic!("{told:?}") };
    assert_eq!((one.what, &one.path), (UseKind::Map { writable: true }, &bytes(&file)));
}

#[test]
fn answers_are_read_strictly() {
    let head = "hello from a login shell\nN pid:[4026531836] kthreadd\n";
    let good = format!(
        "{head}R 0 2049 12 1700000000 ext2/ext3\nM 0 57 /srv/a\\040b\nP 3\nF 2049 13 8/fd/4\nZ\n"
    );
    let listing = parse_list(good.as_bytes(), 1).unwrap();
    assert!(listing.whole_machine);
    assert_eq!(listing.roots[0].dev, (8, 1));
    assert_eq!(listing.roots[0].born, 1_700_000_000);
    assert_eq!(listing.mounts, [MountThere { index: 0, path: b"/srv/a b".to_vec(), dev: (0, 57) }]);
    let held = Held { pid: 8, place: "8/fd/4".into(), dev: (8, 1), ino: 13 };
    assert_eq!(listing.held, [held]);
    for bad in [
        "X\n",
        "P 1\n",
        "E 0 stat: cannot: Permission denied\nZ\n",
        "R 1 2049 12 1 xfs\nZ\n",
        "R 0 x 12 1 xfs\nZ\n",
        "F 1 2 x/fd/4\nZ\n",
        "F 1 2 8/fd/../../x.y\nZ\n",
        "F 1 2 8/fd/4 9\nZ\n",
        "P many\nZ\n",
    ] {
        assert!(parse_list(bad.as_bytes(), 1).is_err(), "{bad}");
    }
}

#[test]
fn complaints_name_processes_unless_they_only_went_away() {
    let text = "Warning: Permanently added\nfind: '12/fd/3': No such file or directory\n\
                find: \u{2018}13/fd\u{2019}: Permission denied\ngrep: 14/maps: Permission denied\n\
                find: '13/cwd': Permission denied\ngrep: 15/maps: No such process\n";
    assert_eq!(unreadable(text).unwrap(), [13, 14]);
    assert!(unreadable("find: paths must precede expression\n").is_err());
    assert_eq!(as_in_mountinfo(b"/a b\\"), b"/a\\040b\\134");
    assert_eq!(from_mountinfo(b"/a\\040b\\134"), b"/a b\\");
}
