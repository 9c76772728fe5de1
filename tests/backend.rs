//! The storages: the contract for each, and what only a real disk shows.

mod common;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use cabk::backend::faulty::{Fault, Faulty, On, Op};
use cabk::backend::latch::Latched;
use cabk::backend::local::LocalBackend;
use cabk::backend::memory::MemoryBackend;
use cabk::backend::{Backend, BackendError, ObjectName, Space, conformance};

const PUT_AT: &str = "CABK_TEST_PUT_AT";

fn note(name: &str) -> ObjectName {
    ObjectName::new(Space::Notes, name).unwrap()
}

fn conforms(make: &dyn Fn() -> Box<dyn Backend>) {
    if let Err(breach) = conformance::run(make) {
        panic!("{breach}: {:?}", breach.source());
    }
}

/// Gives a new directory on every call; all go when it is dropped.
struct Scratch {
    dir: tempfile::TempDir,
    made: Mutex<u32>,
}

impl Scratch {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), made: Mutex::new(0) }
    }

    fn local(&self) -> LocalBackend {
        let mut made = self.made.lock().unwrap();
        *made += 1;
        LocalBackend::create(&self.dir.path().join(made.to_string())).unwrap()
    }
}

#[test]
fn a_directory_conforms() {
    let scratch = Scratch::new();
    conforms(&|| Box::new(scratch.local()));
}

#[test]
fn memory_conforms() {
    conforms(&|| Box::new(MemoryBackend::new()));
}

#[test]
fn a_latched_directory_conforms() {
    let scratch = Scratch::new();
    conforms(&|| Box::new(Latched::new(scratch.local())));
}

#[test]
fn a_storage_whose_faults_never_come_conforms() {
    conforms(&|| Box::new(Faulty::new(Box::new(MemoryBackend::new()) as Box<dyn Backend>)));
}

/// A storage that breaks a promise, to see that the suite notices.
struct Careless {
    inner: MemoryBackend,
    replaces: bool,
}

impl Backend for Careless {
    fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError> {
        if self.replaces {
            self.inner.raw_put(object, &parts.concat());
            return Ok(());
        }
        // Seen in part for a while.
        let bytes = parts.concat();
        self.inner.put_new(object, &[&bytes[..bytes.len() / 2]])?;
        #[allow(clippy::disallowed_methods, reason = "a test may wait")]
        std::thread::sleep(std::time::Duration::from_millis(2));
        self.inner.raw_put(object, &bytes);
        Ok(())
    }

    fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError> {
        self.inner.get(object, max)
    }

    fn get_range(&self, o: &ObjectName, at: u64, len: usize) -> Result<Vec<u8>, BackendError> {
        self.inner.get_range(o, at, len)
    }

    fn len(&self, object: &ObjectName) -> Result<u64, BackendError> {
        self.inner.len(object)
    }

    fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError> {
        self.inner.list(space)
    }

    fn delete(&self, object: &ObjectName) -> Result<(), BackendError> {
        self.inner.delete(object)
    }

    fn local(&self) -> Option<&dyn cabk::backend::LocalFacts> {
        None
    }
}

#[test]
fn the_suite_notices_storages_that_break_promises() {
    for replaces in [true, false] {
        let made = || Box::new(Careless { inner: MemoryBackend::new(), replaces }) as Box<_>;
        assert!(conformance::run(&made).is_err(), "replaces: {replaces}");
    }
}

#[test]
fn a_latch_refuses_changes_after_the_first_failure() {
    for (fault, full) in [(Fault::Full, true), (Fault::Io, false), (Fault::DoneButReported, false)]
    {
        let faulty = Faulty::new(MemoryBackend::new());
        let faults = faulty.faults();
        let latched = Latched::new(faulty);
        latched.put_new(&note("a"), &[b"a"]).unwrap();
        assert!(latched.put_new(&note("a"), &[b"a"]).is_err());
        assert!(latched.delete(&note("b")).is_err());
        assert!(!latched.is_latched());
        faults.fail(On::Op(Op::Put), 1, fault);
        let first = latched.put_new(&note("c"), &[b"c"]).unwrap_err();
        assert_eq!(matches!(first, BackendError::Full { .. }), full);
        faults.clear();
        for refused in [latched.put_new(&note("d"), &[b"d"]), latched.delete(&note("a"))] {
            let refused = refused.unwrap_err();
            assert_eq!(matches!(refused, BackendError::Full { .. }), full, "{refused}");
            let why = refused.source().unwrap().to_string();
            assert!(why.contains("an earlier change failed") && why.contains("notes/c"), "{why}");
        }
        assert_eq!(faults.calls(), []);
        assert_eq!(latched.get(&note("a"), 1).unwrap(), b"a");
        assert!(latched.list(Space::Notes).is_ok());
    }
}

#[test]
fn faults_come_where_they_were_planned() {
    let faulty = Faulty::new(MemoryBackend::new());
    let faults = faulty.faults();
    faults.fail(On::Op(Op::Put), 2, Fault::DoneButReported);
    faults.fail(On::Op(Op::Get), 1, Fault::Io);
    faults.fail(On::Change, 4, Fault::Abort);
    faulty.put_new(&note("a"), &[b"12", b"3"]).unwrap();
    assert!(faulty.put_new(&note("b"), &[b"b"]).is_err());
    assert!(faulty.inner().raw_get(&note("b")).is_some());
    assert!(faulty.get(&note("a"), 9).is_err());
    assert_eq!(faulty.get(&note("a"), 9).unwrap(), b"123");
    faulty.delete(&note("a")).unwrap();
    assert!(!faults.aborted());
    assert!(faulty.delete(&note("b")).is_err());
    assert!(faults.aborted());
    assert!(faulty.list(Space::Notes).is_err());
    assert!(faulty.len(&note("b")).is_err());
    assert_eq!(faulty.inner().objects(), [note("b")]);
    let seen: Vec<_> =
        faults.calls().into_iter().map(|c| (c.op, c.object, c.bytes, c.ok)).collect();
    let call = |op, object: &str, bytes, ok| (op, object.to_owned(), bytes, ok);
    assert_eq!(
        seen,
        [
            call(Op::Put, "notes/a", 3, true),
            call(Op::Put, "notes/b", 1, false),
            call(Op::Get, "notes/a", 0, false),
            call(Op::Get, "notes/a", 3, true),
            call(Op::Delete, "notes/a", 0, true),
            call(Op::Delete, "notes/b", 0, false),
            call(Op::List, "notes", 0, false),
            call(Op::Len, "notes/b", 0, false),
        ]
    );
    assert_eq!(faults.count(On::Change), 4);
}

/// Not a test by itself: `put_is_durable_by_its_order` runs it under strace, in a process of its
/// own.
#[test]
fn put_for_the_trace() {
    let Some(at) = std::env::var_os(PUT_AT) else { return };
    let backend = LocalBackend::open(Path::new(&at)).unwrap();
    let pack = ObjectName::new(Space::Packs, &"ab".repeat(32)).unwrap();
    backend.put_new(&pack, &[b"first part", b"second part"]).unwrap();
    backend.delete(&pack).unwrap();
}

/// The lines of a trace of one put and one delete below `root`.
fn trace_of_a_put(root: &Path, log: &Path) -> Option<Vec<String>> {
    if Command::new("strace").arg("-V").output().is_err() {
        common::skip("strace is not installed");
        return None;
    }
    let calls = "openat,mkdirat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,\
                 close,linkat,unlinkat";
    let ran = Command::new("strace")
        .args(["-f", "-y", "-s", "16", "-o"])
        .arg(log)
        .args(["-e", &format!("trace=?{}", calls.replace(',', ",?"))])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "put_for_the_trace", "--test-threads=1"])
        .env(PUT_AT, root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if !ran.status.success() && said.contains("ptrace") && said.contains("not permitted") {
        common::skip("this environment does not permit tracing");
        return None;
    }
    assert!(ran.status.success(), "{said}");
    let lines = std::fs::read_to_string(log).unwrap();
    let root = root.to_str().unwrap();
    Some(lines.lines().filter(|line| line.contains(root)).map(str::to_owned).collect())
}

#[test]
fn put_is_durable_by_its_order() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().canonicalize().unwrap().join("repo");
    drop(LocalBackend::create(&root).unwrap());
    let Some(lines) = trace_of_a_put(&root, &scratch.path().join("trace")) else { return };
    let root = root.to_str().unwrap();
    let has = |line: &str, call: &str, rest: &[String]| {
        let name = line.split_whitespace().nth(1).unwrap_or("");
        name.starts_with(&format!("{call}(")) && rest.iter().all(|part| line.contains(part))
    };
    let tmp = format!("<{root}/tmp/put-");
    let home = format!("<{root}/packs/ab>");
    let object = format!("\"{}\"", "ab".repeat(32));
    // Each step as a call and what its line must contain.
    let steps: [(&[&str], Vec<String>); 8] = [
        (&["openat"], vec![format!("<{root}/tmp>"), "O_CREAT|O_EXCL".to_owned()]),
        (&["write", "writev"], vec![tmp.clone()]),
        (&["fsync", "fdatasync"], vec![tmp.clone()]),
        (&["fsync"], vec![format!("<{root}/packs>")]),
        (&["renameat2"], vec![home.clone(), object.clone(), "RENAME_NOREPLACE".to_owned()]),
        (&["fsync"], vec![home.clone()]),
        (&["unlinkat"], vec![home.clone()]),
        (&["fsync"], vec![home.clone()]),
    ];
    let mut at = 0;
    for (calls, rest) in &steps {
        let step = lines[at..].iter().position(|l| calls.iter().any(|call| has(l, call, rest)));
        let step =
            step.unwrap_or_else(|| panic!("no {calls:?} {rest:?} after line {at}: {lines:#?}"));
        assert!(lines[at + step].ends_with(" = 0") || !calls.contains(&"fsync"), "{lines:#?}");
        at += step + 1;
    }
    let writes = |l: &&String| has(l, "write", &[]) || has(l, "writev", &[]);
    let synced = lines.iter().position(|l| has(l, "fsync", std::slice::from_ref(&tmp))).unwrap();
    assert_eq!(lines[synced..].iter().find(writes), None, "a write after the sync of the file");
}

/// A small file system in memory, taken away when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            common::skip("mounting a small file system needs root");
            return None;
        }
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(at)
            .output()
            .ok()?;
        if !mount.status.success() {
            let said = String::from_utf8_lossy(&mount.stderr).trim().to_owned();
            common::skip(&format!("a small file system cannot be mounted: {said}"));
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failed assertion may still hold files open.
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_leaves_whole_objects_only() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(scratch.path()) else { return };
    let backend = LocalBackend::create(scratch.path()).unwrap();
    let bytes = |i: u8| vec![i; 300_000 + usize::from(i)];
    let mut put = Vec::new();
    let full = loop {
        let i = u8::try_from(put.len()).unwrap();
        let name = ObjectName::new(Space::Packs, &format!("{i:064x}")).unwrap();
        match backend.put_new(&name, &[&bytes(i)]) {
            Ok(()) => put.push((name, u64::try_from(bytes(i).len()).unwrap())),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, BackendError::Full { .. }), "{full}");
    assert!((8..15).contains(&put.len()), "{}", put.len());
    let check = |put: &[(ObjectName, u64)]| {
        assert_eq!(backend.list(Space::Packs).unwrap(), put);
        for (name, len) in put {
            let found = backend.get(name, 1 << 20).unwrap();
            assert!(found.iter().all(|b| *b == found[0]));
            assert_eq!(u64::try_from(found.len()).unwrap(), *len);
        }
        assert_eq!(std::fs::read_dir(scratch.path().join("tmp")).unwrap().count(), 0);
    };
    check(&put);
    // Deleting works on a full disk, and makes room.
    let (first, len) = put[0].clone();
    backend.delete(&first).unwrap();
    check(&put[1..]);
    backend.put_new(&first, &[&vec![1; usize::try_from(len).unwrap()]]).unwrap();
    check(&put);
    assert!(backend.local().unwrap().free_bytes().unwrap() < 1 << 20);
}
