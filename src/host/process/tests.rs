use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

/// A child that does something and waits; ended when dropped.
struct Waiting(Child);

impl Waiting {
    /// Runs a shell script that prints a line when it is ready and goes on until its end.
    fn shell(dir: &Path, script: &str) -> Self {
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

struct Tree {
    dir: tempfile::TempDir,
    set: HashSet<(Device, u64)>,
    root: (Device, u64),
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a\nb");
        std::fs::write(&file, "content").unwrap();
        let root = inode_of(dir.path()).unwrap();
        let set = HashSet::from([root, inode_of(&file).unwrap()]);
        Self { dir, set, root }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("a\nb")
    }

    fn scan(&self) -> Vec<ProcessUse> {
        scan(&self.set, &[self.root], &[]).unwrap().uses
    }

    fn uses_of(&self, pid: u32) -> Vec<ProcessUse> {
        self.scan().into_iter().filter(|one| one.pid == pid).collect()
    }
}

#[test]
fn open_files_are_found_with_their_mode() {
    let tree = Tree::new();
    let script = "exec 7<\"$(printf 'a\\nb')\" 8>>\"$(printf 'a\\nb')\"; cd /; echo ready; read x";
    let child = Waiting::shell(tree.dir.path(), script);
    let uses = tree.uses_of(child.pid());
    let seen: Vec<(u32, bool)> = uses
        .iter()
        .filter_map(|one| match one.what {
            UseKind::Fd { fd, writable, .. } => Some((fd, writable)),
            _ => None,
        })
        .collect();
    assert!(seen.contains(&(7, false)) && seen.contains(&(8, true)), "{uses:?}");
    assert_eq!((uses[0].dev, uses[0].ino), inode_of(&tree.file()).unwrap());
    assert!(uses[0].command.starts_with("sh: /bin/sh -c exec 7<"), "{}", uses[0].command);
    assert_eq!(uses[0].uid, rustix::process::geteuid().as_raw());
    let other = scan(&tree.set, &[tree.root], &[child.pid()]).unwrap();
    assert!(other.uses.iter().all(|one| one.pid != child.pid()), "an excluded process");
}

#[test]
fn the_current_directory_is_found_by_its_inode() {
    let tree = Tree::new();
    let child = Waiting::shell(tree.dir.path(), "echo ready; read x");
    let moved = tempfile::tempdir().unwrap();
    let uses = tree.uses_of(child.pid());
    assert_eq!(uses.len(), 1);
    assert_eq!((uses[0].what, uses[0].ino), (UseKind::Cwd, tree.root.1));
    assert_eq!(
        uses[0].path,
        tree.dir.path().canonicalize().unwrap().as_os_str().as_encoded_bytes()
    );
    drop(moved);
}

#[test]
fn hard_links_outside_count_and_neighbours_do_not() {
    let tree = Tree::new();
    let outside = tempfile::tempdir_in(tree.dir.path().parent().unwrap()).unwrap();
    std::fs::hard_link(tree.file(), outside.path().join("link")).unwrap();
    std::fs::write(outside.path().join("other"), "").unwrap();
    let child = Waiting::shell(outside.path(), "exec 7<other 8<link; echo ready; read x");
    let uses = tree.uses_of(child.pid());
    assert_eq!(uses.len(), 1, "{uses:?}");
    assert!(matches!(uses[0].what, UseKind::Fd { fd: 8, writable: false, .. }));
}

#[test]
fn files_made_or_unlinked_since_are_traced() {
    let tree = Tree::new();
    let script = "mkdir -p n/m; exec 7>n/m/new 8>n/gone; rm n/gone; cd n/m; echo ready; read x";
    let child = Waiting::shell(tree.dir.path(), script);
    let uses = tree.uses_of(child.pid());
    assert_eq!(uses.len(), 3, "{uses:?}");
    assert!(uses.iter().any(|one| one.path.ends_with(b"/n/gone (deleted)")));
    let only_set = scan(&tree.set, &[], &[]).unwrap();
    assert!(only_set.uses.iter().all(|one| one.pid != child.pid()), "nothing is traced");
}

#[test]
fn programs_and_mappings_are_found() {
    let mut tree = Tree::new();
    let program = tree.dir.path().join("program");
    std::fs::copy("/bin/sleep", &program).unwrap();
    tree.set.insert(inode_of(&program).unwrap());
    let mut command = Command::new(&program);
    command.arg("60").current_dir("/");
    let child = loop {
        match command.spawn() {
            Ok(child) => break Waiting(child),
            // Another test's fork may hold the copy open for writing for a moment.
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::ExecutableFileBusy),
        }
    };
    let deadline = Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let kinds: Vec<UseKind> = tree.uses_of(child.pid()).iter().map(|one| one.what).collect();
        let mapped = kinds.contains(&UseKind::Map { writable: false });
        if mapped && kinds.contains(&UseKind::Exe) {
            break;
        }
        assert!(Instant::now() < deadline, "{kinds:?}");
    }
}

#[test]
fn writable_shared_mappings_are_found_without_a_descriptor() {
    let tree = Tree::new();
    let script = "import mmap, sys\n\
        f = open('a\\nb', 'r+b')\n\
        m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\n\
        print('ready', flush=True)\nsys.stdin.read()\n";
    // The interpreter keeps a descriptor of its own, so only the mapping's kind is asserted.
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    std::fs::write(tree.dir.path().join("map.py"), script).unwrap();
    let child = Waiting::shell(tree.dir.path(), "exec python3 map.py");
    let kinds: Vec<UseKind> = tree.uses_of(child.pid()).iter().map(|one| one.what).collect();
    assert!(kinds.contains(&UseKind::Map { writable: false }), "{kinds:?}");
    drop(child);
    let script = script.replace("access=mmap.ACCESS_READ", "access=mmap.ACCESS_WRITE");
    std::fs::write(tree.dir.path().join("map.py"), script).unwrap();
    let child = Waiting::shell(tree.dir.path(), "exec python3 map.py");
    let kinds: Vec<UseKind> = tree.uses_of(child.pid()).iter().map(|one| one.what).collect();
    assert!(kinds.contains(&UseKind::Map { writable: true }), "{kinds:?}");
}

/// A child in a mount namespace of its own that runs `script`; `None`, and told, where that may not be.
fn in_another_namespace(script: &str) -> Option<Waiting> {
    let probe = Command::new("unshare").args(["-m", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no right to make a mount namespace");
        return None;
    }
    let quoted = script.replace('\'', "'\\''");
    Some(Waiting::shell(Path::new("/"), &format!("exec unshare -m /bin/sh -c '{quoted}'")))
}

fn has_directory_and_descriptor(uses: &[ProcessUse]) {
    assert!(uses.iter().any(|one| one.what == UseKind::Cwd), "{uses:?}");
    assert!(uses.iter().any(|one| matches!(one.what, UseKind::Fd { fd: 7, .. })), "{uses:?}");
}

#[test]
fn another_mount_namespace_hides_nothing() {
    let tree = Tree::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let (from, to) = (tree.dir.path().display(), elsewhere.path().display());
    let script =
        format!("mount --bind {from} {to} && cd {to} && exec 7>new && echo ready && read x");
    let Some(child) = in_another_namespace(&script) else { return };
    has_directory_and_descriptor(&tree.uses_of(child.pid()));
}

/// The kernel gives its paths from the root of the namespace, which is above its own root.
#[test]
fn another_root_in_another_namespace_hides_nothing() {
    let tree = Tree::new();
    let root = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let (from, root, to) = (tree.dir.path(), root.path().display(), inside.path().display());
    let script = format!(
        "mount --rbind / {root} && mount --bind {} {root}{to} && exec chroot {root} /bin/sh -c \
         'cd {to} && exec 7>new && echo ready && read x'",
        from.display(),
    );
    let Some(child) = in_another_namespace(&script) else { return };
    has_directory_and_descriptor(&tree.uses_of(child.pid()));
}

#[test]
fn what_could_not_be_seen_is_told() {
    let tree = Tree::new();
    let result = scan(&tree.set, &[tree.root], &[]).unwrap();
    assert!(result.scope.processes_seen > 0);
    assert!(result.uses.iter().all(|one| one.pid != std::process::id()), "this process itself");
    for pid in &result.scope.unreadable {
        // One with more privileges than a confined root has, for instance.
        let seen = std::fs::read_link(format!("/proc/{pid}/cwd"));
        assert!(seen.is_err(), "process {pid} can be looked at");
    }
    let complete = sees_whole_machine() && result.scope.unreadable.is_empty();
    assert_eq!(result.scope.is_complete(), complete);
}

#[test]
fn many_processes_are_scanned_quickly() {
    let tree = Tree::new();
    let script = "exec 7</ 8</ 9</ </dev/zero; i=0; while [ $i -lt 150 ]; do sleep 60 & \
        pids=\"$pids $!\"; i=$((i+1)); done; trap \"kill $pids\" TERM; echo ready; wait";
    let mut child = Waiting::shell(Path::new("/"), script);
    let began = Instant::now();
    let result = scan(&tree.set, &[tree.root], &[]).unwrap();
    let took = began.elapsed();
    let group = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(group, rustix::process::Signal::TERM).unwrap();
    child.0.wait().unwrap();
    assert!(result.scope.processes_seen > 150);
    eprintln!("{} processes in {took:?}", result.scope.processes_seen);
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_process_that_ends_meanwhile_hides_nothing() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let dir = open_dir(CWD, format!("/proc/{}", child.id())).unwrap();
    assert!(!text::has_nothing(dir.as_fd()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(text::has_nothing(dir.as_fd()));
}
