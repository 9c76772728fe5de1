use std::collections::HashSet;
use std::process::{Child, Command};

use super::*;
use crate::host::node::tests::Bed;
use crate::host::process::UseKind;

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[test]
fn what_another_node_holds_is_known_by_its_inode() {
    if !crate::host::machine::is_root() {
        eprintln!("skipped: other processes' descriptors are for root to see");
        return;
    }
    let other = OtherNode::new(Bed::new(false).node);
    let alive = Bed::new(false);
    let observer = OtherNode::new(alive.node.clone());
    let tree = tempfile::tempdir().unwrap();
    let file = tree.path().join("f");
    let log = std::fs::File::create(&file).unwrap();
    let child = Ends(Command::new("sleep").arg("62").stdout(log).spawn().unwrap());
    let pid = child.0.id();
    let set = HashSet::from([inode_of(&file).unwrap()]);
    let paths = [bytes(tree.path()), b"/no/such/place".to_vec()];
    let roots = [inode_of(tree.path()).unwrap()];
    let trees = Trees { set: &set, roots: &roots, paths: &paths, exclude: &[] };
    let of = |trees: &Trees<'_>| observer.scan(trees).unwrap().unwrap();
    let found = of(&trees);
    let [one] = &found.uses[..] else { panic!("{:?}", found.uses) };
    assert_eq!((one.pid, one.ino), (pid, inode_of(&file).unwrap().1));
    assert!(matches!(one.what, UseKind::Fd { fd: 1, writable: true, .. }), "{one:?}");
    assert!(one.command.contains("sleep 62") && one.path == bytes(&file), "{one:?}");
    assert!(found.scope.processes_seen > 0);
    assert!(of(&Trees { exclude: &[pid], ..trees }).uses.is_empty());
    // The same number on a file system that is none of the trees says nothing.
    let elsewhere = HashSet::from([((77, 77), inode_of(&file).unwrap().1)]);
    assert!(of(&Trees { set: &elsewhere, ..trees }).uses.is_empty());
    assert!(observer.scan(&Trees { paths: &paths[1..], ..trees }).unwrap().is_none());

    let sleep = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(observer.runs_program(pid, &sleep));
    assert!(!observer.runs_program(pid, &std::env::current_exe().unwrap()));
    assert!(!observer.runs_program(pid, Path::new("/no/such; program")));
    assert!(observer.locks().is_ok());
    let offset = observer.clock_offset().unwrap().unwrap();
    assert!(offset.ahead_ms.unsigned_abs() <= offset.error_ms + 1, "{offset:?}");
    // The bed of this one is gone, and its `ssh` with it.
    assert!(other.scan(&trees).is_err() && other.clock_offset().is_err());
    assert!(!other.runs_program(pid, &sleep));
}

#[test]
fn trees_of_a_node_s_own_are_told_from_shared_ones() {
    let tree = tempfile::tempdir().unwrap();
    let paths = [bytes(tree.path())];
    let (dev, ino) = inode_of(tree.path()).unwrap();
    let born = std::fs::metadata(tree.path()).unwrap().created().ok();
    let born = born.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    let born = i64::try_from(born.unwrap_or(0)).unwrap();
    let there = (0, 99);
    let judge = |ino, born, file_system: &str| {
        let file_system = file_system.to_owned();
        let root = RootThere { index: 0, dev: there, ino, born, file_system };
        let listing = Listing { roots: vec![root], ..Listing::default() };
        OtherNode::same_devices(&listing, &paths).map_err(|e| e.to_string())
    };
    assert_eq!(judge(ino, 0, "nfs"), Ok(vec![(there, dev)]));
    assert_eq!(judge(ino, born, "ext2/ext3"), Ok(vec![(there, dev)]));
    assert_eq!(judge(ino + 1, 0, "xfs"), Ok(vec![]), "a disk of its own");
    if born != 0 {
        assert_eq!(judge(ino, born + 1, "xfs"), Ok(vec![]), "a machine set up alike");
    }
    let error = judge(ino + 1, 0, "fuseblk").unwrap_err();
    assert!(error.contains("numbers its inodes otherwise"), "{error}");
}

/// A node of this machine with a `sync` of its own.
fn with_sync(script: &str) -> (tempfile::TempDir, Vec<OsString>) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let sync = dir.path().join("sync");
    std::fs::write(&sync, format!("#!/bin/sh\necho \"$@\" >>\"${{0%/*}}/calls\"\n{script}\n"))
        .unwrap();
    std::fs::set_permissions(&sync, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let words = ["env", &path, "sh", "-s", "--"].map(OsString::from).to_vec();
    (dir, words)
}

fn written_back(script: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let (dir, words) = with_sync(script);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(arguments).stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), WRITE_BACK.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned(), calls)
}

#[test]
fn a_node_writes_back_what_others_read() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().to_str().unwrap();
    let asked = format!("-f -- {path}\n");
    assert_eq!(written_back("", &["9", "", path, "/no/such"]), (Some(0), String::new(), asked));
    // A file system of its own is nobody else's matter.
    let done = written_back("exit 1", &["9", &OWN_TYPES.join(" "), path]);
    assert_eq!((done.0, &*done.2), (Some(0), ""));
    assert_eq!(written_back("exit 1", &["9", "", path]).0, Some(1));
    let (code, said, _) = written_back("sleep 30", &["1", "", path]);
    assert_eq!((code, &*said), (Some(1), "sync -f did not end within 1 s\n"));
    let observer = OtherNode::new(Bed::new(false).node);
    assert!(observer.write_back(&[bytes(tree.path())]).is_err(), "its bed is gone");
    let alive = Bed::new(false);
    OtherNode::new(alive.node.clone()).write_back(&[bytes(tree.path())]).unwrap();
}
