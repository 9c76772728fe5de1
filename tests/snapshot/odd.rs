//! Files that are no ordinary ones.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cabk::format::tree::Node;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::common::skip;
use crate::seen::{Also, differences, disk, kept};
use crate::world::{Done, World, bytes, is_root, past_the_grain};

const NONE: &[&str] = &[];

#[test]
fn what_is_no_file_is_never_opened() {
    let world = World::new();
    world.put("file", "x");
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, world.source().join("fifo"), FileType::Fifo, mode, 0).unwrap();
    let _bound = std::os::unix::net::UnixListener::bind(world.source().join("sock")).unwrap();
    if is_root() {
        let tape = FileType::CharacterDevice;
        // A tape's device would rewind if it were opened; a watchdog's would arm itself.
        mknodat(CWD, world.source().join("tape"), tape, mode, makedev(9, 0)).unwrap();
        mknodat(CWD, world.source().join("disk"), FileType::BlockDevice, mode, makedev(7, 250))
            .unwrap();
    }
    past_the_grain();
    let done = world.snapshot(&["--wait-quiet", "0s"]).expect(0);
    let kept = world.kept(done.id());
    let node = |name: &str| &kept[&bytes(&world.source().join(name))].node;
    assert_eq!((node("fifo"), node("sock")), (&Node::Fifo, &Node::Socket));
    if is_root() {
        assert_eq!(node("tape"), &Node::CharDevice { rdev: (9, 0) });
        assert_eq!(node("disk"), &Node::BlockDevice { rdev: (7, 250) });
    }
    world.snapshot(NONE).expect(0);
}

#[test]
fn a_sparse_file_of_a_tebibyte_is_fast_and_small() {
    let world = World::new();
    let path = world.put("sparse", "head");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    if let Err(error) = file.set_len(1 << 40) {
        return skip(&format!("the file system has no file of 1 TiB: {error}"));
    }
    use std::os::unix::fs::FileExt;
    file.write_all_at(b"middle", 1 << 39).unwrap();
    drop(file);
    past_the_grain();
    let done = world.snapshot(NONE).expect(0);
    assert!(done.json["summary"]["duration_ms"].as_u64().unwrap() < 20_000, "{}", done.stdout);
    assert!(world.pack_bytes() < 100_000, "{}", world.pack_bytes());
    let inside = world.look();
    let tree = inside.tree(done.id());
    let entry = &tree[&bytes(&path)];
    assert!(matches!(entry.node, Node::File { size, .. } if size == 1 << 40));
    let mut found = Vec::new();
    inside.each_stretch(entry, &mut |at, bytes| {
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
        found.push((at, bytes[..end].to_vec()));
    });
    assert_eq!(found, [(0, b"head".to_vec()), (1 << 39, b"middle".to_vec())]);
    let again = world.snapshot(NONE).expect(0);
    assert_eq!(again.count("files_unmodified"), 1);
}

#[test]
fn a_directory_of_very_many_names() {
    let count = if std::env::var_os("CABK_LONG").is_some() { 200_000 } else { 20_000 };
    let world = World::new();
    let dir = world.source().join("many");
    std::fs::create_dir_all(&dir).unwrap();
    for n in 0..count {
        // Empty: to free a block takes some disks longer than all the rest of this test.
        std::fs::File::create(dir.join(format!("entry-{n:07}"))).unwrap();
    }
    past_the_grain();
    let done = world.snapshot(NONE).expect(0);
    assert_eq!(done.count("files"), count);
    let kept = world.kept(done.id());
    let below = bytes(&dir);
    assert_eq!(kept.keys().filter(|p| p.starts_with(&below)).count() as u64, count + 1);
    // One more name rewrites some pages, not all.
    let whole = world.pack_bytes();
    std::fs::write(dir.join("one-more"), "x").unwrap();
    past_the_grain();
    let done = world.snapshot(NONE).expect(0);
    assert_eq!((done.count("files_new"), done.count("files_unmodified")), (1, count));
    let grown = world.pack_bytes() - whole;
    assert!(grown < whole / 4, "{grown} bytes for one name, of {whole}");
}

#[test]
fn names_are_bytes() {
    let world = World::new();
    std::fs::create_dir(world.source()).unwrap();
    let long = vec![b'n'; 255];
    let names: [&[u8]; 9] = [
        b"new\nline",
        b"\xff\xfe bad \x80",
        b" lead",
        b"-dash",
        b"tab\t",
        b"quote\"'\\",
        b"*[?]",
        b"{\"json\":1}",
        &long,
    ];
    for name in names {
        std::fs::write(world.source().join(OsStr::from_bytes(name)), name).unwrap();
    }
    past_the_grain();
    let done = world.snapshot(NONE).expect(0);
    let inside = world.look();
    let tree = inside.tree(done.id());
    for name in names {
        let path = bytes(&world.source().join(OsStr::from_bytes(name)));
        assert_eq!(inside.bytes(&tree[&path]), name, "{}", name.escape_ascii());
    }
    // A source with such a name is told by its bytes, too.
    let odd = world.top().join(OsStr::from_bytes(b"odd\xff\n"));
    std::fs::create_dir(&odd).unwrap();
    let done = world.snapshot(&[OsStr::new("--path"), odd.as_os_str()]).expect(0);
    let source = &done.json["sources"][0];
    assert!(source["path"].as_str().unwrap().ends_with("odd\u{fffd}\n"), "{source}");
    assert!(source["path_hex"].as_str().unwrap().ends_with("6f6464ff0a"), "{source}");
    let readable = world.cabk().args(["snapshot", "--path"]).arg(&odd).output().unwrap();
    let lines = String::from_utf8(readable.stdout).unwrap();
    assert!(lines.starts_with("snapshot ") && !lines.contains('\u{fffd}'), "{lines}");
}

#[test]
fn what_may_not_be_read_is_a_problem_and_no_snapshot() {
    if !is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        return skip("to become another user takes root and setpriv");
    }
    let world = World::new();
    world.configure("[evidence]\nassert = [\"no-process-in-tree\"]\n");
    world.put("open", "anybody");
    let secret = world.put("secret", "nobody");
    let closed = world.put("closed/file", "x");
    let program = world.path("cabk");
    std::fs::copy(env!("CARGO_BIN_EXE_cabk"), &program).unwrap();
    let all = Command::new("chown").args(["-R", "65534:65534"]).arg(world.top()).status();
    assert!(all.unwrap().success());
    std::os::unix::fs::chown(&secret, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let none = std::fs::Permissions::from_mode(0o0);
    std::fs::set_permissions(closed.parent().unwrap(), none).unwrap();
    past_the_grain();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
    world.surround(&mut command);
    command.args(["snapshot", "--json", "--site-name", "toy", "--allow-volatile-state", "--path"]);
    let done = Done::of(&command.arg(world.source()).output().unwrap()).expect(4);
    assert_eq!((&done.json["kind"], &done.json["restorable"]), (&"capture".into(), &false.into()));
    let problems = done.json["problems"].as_array().unwrap();
    let named: Vec<&str> = problems.iter().filter_map(|p| p["path"].as_str()).collect();
    for path in [&secret, closed.parent().unwrap()] {
        assert!(named.contains(&path.to_str().unwrap()), "{problems:?}");
    }
    assert!(problems.iter().all(|p| !p["error"].as_str().unwrap().is_empty()));
    assert_eq!(done.evidence("all-sources-read")[0]["held"], false);
    let tree = world.kept(done.id());
    assert!(tree.contains_key(&bytes(&world.source().join("open"))));
    // Whoever may read it all gets all of it, although the capture is the parent.
    let done = world.snapshot(NONE).expect(0);
    let inside = world.look();
    let kept = kept(&inside, done.id(), &bytes(&world.source()));
    let found = differences(&disk(&world.source()), &kept, Also::default());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_file_that_changes_while_it_is_read_makes_a_capture() {
    let world = World::new();
    let path = world.put("log", vec![b'a'; 4 << 20]);
    world.put("quiet", "x");
    past_the_grain();
    let over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::File::options().append(true).open(&path).unwrap();
            while !over.load(Ordering::Relaxed) {
                file.write_all(b"one more line\n").unwrap();
            }
        });
        let done = world.snapshot(&["--wait-quiet", "0s"]);
        over.store(true, Ordering::Relaxed);
        done
    });
    let done = done.expect(4);
    assert_eq!(done.json["kind"], "capture");
    let name = path.to_str().unwrap();
    let problem = &done.json["problems"][0];
    assert_eq!(problem["path"], name);
    assert!(problem["error"].as_str().unwrap().contains("changed while it was read"), "{problem}");
    let trees = done.evidence("tree-unchanged");
    assert!(trees[0]["held"] == false && trees[0]["detail"].as_str().unwrap().contains(name));
    let who = done.evidence("no-process-in-tree")[0]["detail"].as_str().unwrap().to_owned();
    let own = format!("process {} ", std::process::id());
    assert!(who.contains(&own) && who.contains(name), "{who}");
    // What was kept of it fits together, and the next run does not believe it.
    world.look().read_all();
    #[allow(clippy::disallowed_methods, reason = "a test may wait")]
    std::thread::sleep(Duration::from_millis(60));
    let done = world.snapshot(NONE).expect(0);
    assert_eq!((done.count("files_changed"), done.count("files_unmodified")), (1, 1));
    let inside = world.look();
    let kept = inside.bytes(&inside.tree(done.id())[&bytes(&path)]);
    assert!(kept == std::fs::read(&path).unwrap());
}

#[test]
fn whom_an_acl_names_is_an_owner_while_the_file_stays() {
    let Ok(Some(daemon)) = nix::unistd::User::from_name("daemon") else {
        return skip("this machine has no user daemon");
    };
    let world = World::new();
    let path = world.put("file", "x");
    let mut acl = vec![2, 0, 0, 0];
    let number = daemon.uid.as_raw();
    for (tag, perm, id) in [(1u16, 6u16, u32::MAX), (2, 4, number), (4, 4, u32::MAX)] {
        acl.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    for tag in [16u16, 32] {
        acl.extend([&tag.to_le_bytes()[..], &[0, 0, 255, 255, 255, 255]].concat());
    }
    let name = "system.posix_acl_access";
    if let Err(e) = rustix::fs::setxattr(&path, name, &acl, rustix::fs::XattrFlags::empty()) {
        return skip(&format!("no ACLs here: {e}"));
    }
    past_the_grain();
    for _ in 0..2 {
        let done = world.snapshot(NONE).expect(0);
        let inside = world.look();
        let users = &inside.body(done.id()).owners.users;
        assert!(users.contains(&(number, "daemon".into())), "{users:?}");
    }
}
