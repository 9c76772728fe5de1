use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::write::{Put, Temp};
use super::*;
use crate::base::id::{LeaseId, PackId};

fn new() -> (tempfile::TempDir, LocalBackend) {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::create(&dir.path().join("deep/er/repo")).unwrap();
    (dir, backend)
}

fn object(name: &str) -> ObjectName {
    ObjectName::new(Space::Notes, name).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn create_makes_private_directories_and_says_what_they_are() {
    let (_dir, backend) = new();
    let pack = PackId::from_array([0xa7; 32]);
    backend.put_new(&ObjectName::pack(&pack), &[b"x"]).unwrap();
    let file = backend.root().join("packs/a7").join(pack.to_hex());
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
    for space in Space::ALL {
        assert_eq!(mode(&backend.root().join(space.prefix())), 0o700);
    }
    for name in ["", "..", "tmp", "locks", "packs/a7"] {
        assert_eq!(mode(&backend.root().join(name)), 0o700, "{name}");
    }
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&backend.root().join("README.txt")), 0o600);
    assert!(backend.root().is_absolute());
}

#[test]
fn create_takes_empty_places_only() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("here");
    std::fs::create_dir_all(at.join("lost+found")).unwrap();
    LocalBackend::create(&at).unwrap();
    assert!(matches!(LocalBackend::create(&at), Err(BackendError::NotEmpty(_))));
    assert!(matches!(LocalBackend::create(dir.path()), Err(BackendError::NotEmpty(_))));
    let file = at.join("README.txt");
    assert!(matches!(LocalBackend::create(&file), Err(BackendError::NotEmpty(_))));
    assert!(LocalBackend::create(&file.join("below")).is_err());
}

#[test]
fn of_several_creates_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let at = dir.path().join(round.to_string());
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| LocalBackend::create(&at).is_ok())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|ok| *ok).count()
        });
        assert_eq!(made, 1);
        LocalBackend::open(&at).unwrap();
    }
}

#[test]
fn open_wants_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    let none = |path: &Path| matches!(LocalBackend::open(path), Err(BackendError::NoRepository(_)));
    assert!(none(dir.path()));
    assert!(none(&dir.path().join("nowhere")));
    std::fs::write(dir.path().join("file"), b"").unwrap();
    assert!(none(&dir.path().join("file")));
    std::fs::write(dir.path().join("config"), b"").unwrap();
    assert!(none(dir.path()));
}

#[test]
fn foreign_names_are_left_out_of_listings() {
    let (_dir, backend) = new();
    let pack = ObjectName::pack(&PackId::from_array([0x11; 32]));
    backend.put_new(&pack, &[b"abc"]).unwrap();
    backend.put_new(&object("ours"), &[]).unwrap();
    let root = backend.root();
    let name = pack.name();
    for file in ["packs/11/.hidden", "packs/11/UPPER", "packs/11/22", "packs/1100", "packs/22"] {
        std::fs::write(root.join(file), b"?").unwrap();
    }
    std::fs::create_dir(root.join("packs/33")).unwrap();
    std::fs::write(root.join("packs/33").join(name), b"?").unwrap();
    std::fs::create_dir(root.join("notes/dir")).unwrap();
    std::os::unix::fs::symlink("ours", root.join("notes/link")).unwrap();
    std::fs::write(root.join("notes/.nfs0001"), b"?").unwrap();
    assert_eq!(backend.list(Space::Packs).unwrap(), [(pack, 3)]);
    assert_eq!(backend.list(Space::Notes).unwrap(), [(object("ours"), 0)]);
    for name in ["dir", "link"] {
        assert!(matches!(backend.get(&object(name), 10), Err(BackendError::Io { .. })));
        assert!(matches!(backend.len(&object(name)), Err(BackendError::Io { .. })));
    }
}

#[test]
fn a_missing_directory_is_an_error_and_not_an_empty_list() {
    let (_dir, backend) = new();
    std::fs::remove_dir(backend.root().join("snapshots")).unwrap();
    let error = backend.list(Space::Snapshots).unwrap_err();
    assert!(matches!(error, BackendError::Io { action: "list", .. }), "{error}");
    // The two without objects are made again.
    std::fs::remove_dir(backend.root().join("tmp")).unwrap();
    std::fs::remove_dir(backend.root().join("locks")).unwrap();
    backend.put_new(&object("a"), &[b"a"]).unwrap();
    backend.hold(&LeaseId::from_array([1; 16])).unwrap();
    assert_eq!(mode(&backend.root().join("tmp")), 0o700);
}

#[test]
fn a_directory_of_packs_may_go_missing_between_runs() {
    let (_dir, backend) = new();
    let pack = ObjectName::pack(&PackId::from_array([0x5a; 32]));
    backend.put_new(&pack, &[b"1"]).unwrap();
    backend.delete(&pack).unwrap();
    std::fs::remove_dir(backend.root().join("packs/5a")).unwrap();
    assert!(matches!(backend.delete(&pack), Err(BackendError::NotFound(_))));
    let again = LocalBackend::open(backend.root()).unwrap();
    again.put_new(&pack, &[b"2"]).unwrap();
    assert_eq!(backend.get(&pack, 1).unwrap(), b"2");
}

#[test]
fn nothing_stays_in_tmp_after_a_put() {
    let (_dir, backend) = new();
    backend.put_new(&object("a"), &[b"a"]).unwrap();
    assert!(matches!(backend.put_new(&object("a"), &[b"b"]), Err(BackendError::Exists(_))));
    std::fs::remove_dir(backend.root().join("captures")).unwrap();
    let homeless = ObjectName::new(Space::Captures, "a").unwrap();
    assert!(matches!(backend.put_new(&homeless, &[b"b"]), Err(BackendError::Io { .. })));
    assert_eq!(std::fs::read_dir(backend.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_link_publishes_where_renames_replace() {
    let (_dir, backend) = new();
    let tmp = backend.side_dir(TMP).unwrap();
    let notes = open_dir(&backend.dir, "notes").unwrap();
    let one = Temp::new(&tmp).unwrap();
    let two = Temp::new(&tmp).unwrap();
    assert_eq!(one.publish_by_link(&notes, "n").unwrap(), Put::Done);
    // The answer to the first request was lost and it is sent again.
    assert_eq!(one.publish_by_link(&notes, "n").unwrap(), Put::Done);
    assert_eq!(two.publish_by_link(&notes, "n").unwrap(), Put::Exists);
    drop((one, two));
    assert_eq!(backend.list(Space::Notes).unwrap(), [(object("n"), 0)]);
    assert_eq!(list::names(&tmp).unwrap().len(), 0);
}

#[test]
fn a_sweep_removes_what_the_dead_left_and_nothing_else() {
    let (_dir, backend) = new();
    let tmp = backend.side_dir(TMP).unwrap();
    let alive = Temp::new(&tmp).unwrap();
    std::fs::write(backend.root().join("tmp/put-1-dead"), b"half").unwrap();
    std::fs::write(backend.root().join("tmp/other"), b"").unwrap();
    assert_eq!(backend.sweep_tmp().unwrap(), 1);
    assert_eq!(list::names(&tmp).unwrap().len(), 2);
    drop(alive);
    assert_eq!(list::names(&tmp).unwrap(), [b"other".to_vec()]);
}

#[test]
fn sweeping_beside_writers_harms_none() {
    let (_dir, backend) = new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                backend.sweep_tmp().unwrap();
            }
        });
        let put: Result<Vec<()>, _> =
            (0..300).map(|i| backend.put_new(&object(&format!("n{i}")), &[b"content"])).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        sweeper.join().unwrap();
        put.unwrap();
    });
    assert_eq!(backend.list(Space::Notes).unwrap().len(), 300);
}

#[test]
fn holds_are_seen_until_dropped() {
    let (_dir, backend) = new();
    let other = LocalBackend::open(backend.root()).unwrap();
    let lease = LeaseId::from_array([7; 16]);
    assert!(!other.is_held(&lease).unwrap());
    other.forget_hold(&lease).unwrap();
    let hold = backend.hold(&lease).unwrap();
    assert!(other.is_held(&lease).unwrap());
    assert!(backend.is_held(&lease).unwrap());
    assert!(other.hold(&lease).is_err());
    assert!(other.forget_hold(&lease).is_err());
    drop(hold);
    assert!(!other.is_held(&lease).unwrap());
    other.forget_hold(&lease).unwrap();
    assert_eq!(std::fs::read_dir(backend.root().join("locks")).unwrap().count(), 0);
    assert!(backend.free_bytes().unwrap() > 0);
}

#[test]
fn ranges_of_many_objects_and_of_replaced_ones() {
    let (_dir, backend) = new();
    let other = LocalBackend::open(backend.root()).unwrap();
    for round in 0..2 {
        for i in 0..40 {
            let name = object(&format!("n{i}"));
            backend.put_new(&name, &[format!("{round}-{i:02}").as_bytes()]).unwrap();
            assert_eq!(other.get_range(&name, 2, 2).unwrap(), format!("{i:02}").as_bytes());
        }
        for i in 0..40 {
            let name = object(&format!("n{i}"));
            assert_eq!(other.get_range(&name, 0, 1).unwrap(), round.to_string().as_bytes());
            let error = other.get_range(&name, 4, 1).unwrap_err();
            assert!(matches!(error, BackendError::Short { len: 4, wanted: 5, .. }), "{error}");
            backend.delete(&name).unwrap();
            let error = other.get_range(&name, 0, 1).unwrap_err();
            assert!(matches!(error, BackendError::NotFound(_)), "{error}");
        }
    }
}
