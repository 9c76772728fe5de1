//! What belongs to a source, and what does not.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::common::skip;
use crate::world::{Done, Mounted, World, bytes, is_root, past_the_grain};

const NONE: &[&str] = &[];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn warned(done: &Done, of: &str) {
    let all = done.json["warnings"].as_array().unwrap();
    assert!(all.iter().any(|w| w.as_str().unwrap().contains(of)), "{all:?}");
}

fn mount<'a>(done: &'a Done, at: &Path) -> &'a Value {
    let all = done.json["mounts"].as_array().unwrap();
    let found = all.iter().find(|m| m["path"] == text(at));
    found.unwrap_or_else(|| panic!("{} is not listed: {all:?}", at.display()))
}

#[test]
fn patterns_are_recorded_and_leave_out() {
    let world = World::new();
    for name in ["keep.txt", "drop.log", "sub/drop.log", "cache/deep/x", "sub/cache/x"] {
        world.put(name, name);
    }
    past_the_grain();
    let cache = format!("{}/cache/", text(&world.source()));
    let done = world.snapshot(&["--exclude", "*.log", "--exclude", &cache]).expect(0);
    assert_eq!(done.json["excludes"], serde_json::json!(["*.log", cache]));
    let kept = world.kept(done.id());
    let has = |name: &str| kept.contains_key(&bytes(&world.source().join(name)));
    assert!(has("keep.txt") && has("sub/cache/x"));
    assert!(!has("drop.log") && !has("sub/drop.log") && !has("cache"));
    // Without the patterns the next run finds all of it, although nothing changed on the disk.
    let done = world.snapshot(NONE).expect(0);
    let kept = world.kept(done.id());
    let has = |name: &str| kept.contains_key(&bytes(&world.source().join(name)));
    assert!(has("drop.log") && has("sub/drop.log") && has("cache/deep/x"));
    // And with them it leaves them out again.
    let done = world.snapshot(&["--exclude", "*.log"]).expect(0);
    assert!(!world.kept(done.id()).contains_key(&bytes(&world.source().join("sub/drop.log"))));
    let bad = world.snapshot(&["--exclude", "a{b"]).expect(2);
    assert_eq!(bad.error()["error"]["code"], "usage");
}

#[test]
fn keys_databases_and_bundles_stay_in_whatever_is_excluded() {
    let world = World::new();
    let data = world.path("data");
    for name in ["db/connect.db", "db/secret.key", "bundles/1/7.tar.gz", "apps/1/app.R"] {
        let path = data.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    let gcfg = world.path("etc/connect.gcfg");
    std::fs::create_dir_all(gcfg.parent().unwrap()).unwrap();
    let server = format!("[Server]\nAddress = http://toy\nDataDir = {}\n", data.display());
    std::fs::write(&gcfg, server).unwrap();
    past_the_grain();
    let args = ["--site", text(&gcfg), "--already-stopped", "--exclude", "*"];
    let done = world.snapshot(&args).expect(0);
    let kept = world.kept(done.id());
    let has = |path: &Path| kept.contains_key(&bytes(path));
    for name in ["db/connect.db", "db/secret.key", "bundles/1/7.tar.gz"] {
        assert!(has(&data.join(name)), "{name}");
    }
    assert!(has(&gcfg));
    assert!(!has(&data.join("apps/1/app.R")) && !has(&data.join("apps")));
    warned(&done, "cannot be left out");
    let roles: Vec<&str> = done.json["sources"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s["role"].as_str())
        .collect();
    assert!(["data-dir", "sqlite", "config"].iter().all(|r| roles.contains(r)), "{roles:?}");
    let stopped = done.evidence("service-stopped");
    assert!(stopped.iter().all(|e| e["how"] == "asserted" && e["held"] == true), "{stopped:?}");
}

#[test]
fn a_source_that_holds_the_repository_leaves_it_out_and_says_so() {
    let world = World::new();
    world.put("file", "x");
    let done = world.snapshot(&["--path", text(&world.top())]).expect(0);
    warned(&done, "is the repository and is left out");
    let kept = world.kept(done.id());
    assert!(kept.contains_key(&bytes(&world.source().join("file"))));
    for own in ["repo", "cache", "state"] {
        assert!(!kept.contains_key(&bytes(&world.path(own))), "{own}");
    }
    let inside = world.repo().join("packs");
    let refused = world.snapshot(&["--path", text(&inside)]).expect(22);
    assert!(refused.stderr.contains("lies within the repository"), "{}", refused.stderr);
}

#[test]
fn of_a_source_that_is_a_link_both_are_kept() {
    let world = World::new();
    world.put("real/file", "x");
    let link = world.path("link");
    symlink(world.source().join("real"), &link).unwrap();
    // A link in the middle of the path counts, too.
    let through = world.path("through");
    symlink("source", &through).unwrap();
    let middle = through.join("real/file");
    let done = world.snapshot(&["--path", text(&link), "--path", text(&middle)]).expect(0);
    let kept = world.kept(done.id());
    use cabk::format::tree::Node;
    let target = |path: &Path| match &kept[&bytes(path)].node {
        Node::Symlink { target } => target.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(target(&link), bytes(&world.source().join("real")));
    assert_eq!(target(&through), b"source");
    assert!(kept.contains_key(&bytes(&world.source().join("real/file"))));
    let nowhere = world.path("nowhere");
    symlink("/does/not/exist", &nowhere).unwrap();
    let done = world.snapshot(&["--path", text(&nowhere)]);
    assert_eq!(done.code, 2, "{}", done.said());
}

#[test]
fn nested_sources_are_read_once() {
    let world = World::new();
    world.put("inner/file", "0123456789");
    world.put("outer", "01234");
    past_the_grain();
    let (outer, inner) = (world.source(), world.source().join("inner"));
    let args = ["--path", text(&outer), "--path", text(&inner), "--path", text(&outer)];
    let done = world.snapshot(&args).expect(0);
    assert_eq!((done.count("files"), done.count("dirs"), done.count("bytes")), (2, 2, 15));
    let sources = done.json["sources"].as_array().unwrap();
    let bytes_of = |path: &Path| {
        let found = sources.iter().find(|s| s["path"] == text(path)).unwrap();
        found["bytes"].as_u64().unwrap()
    };
    assert_eq!((bytes_of(&outer), bytes_of(&inner)), (15, 10));
    assert_eq!(sources.len(), 2);
    // A single file is a source as well.
    let done = world.snapshot(&["--path", text(&outer.join("outer"))]).expect(0);
    assert_eq!((done.count("files"), done.count("bytes")), (1, 5));
}

#[test]
fn mounts_in_a_source_are_crossed_listed_or_left_out() {
    let world = World::new();
    world.put("file", "x");
    let (disk, kernel) = (world.source().join("disk"), world.source().join("kernel"));
    let args = ["-t", "tmpfs", "-o", "size=1m", "cabk-test"];
    let mounted = is_root().then(|| Mounted::new(&args, &disk)).flatten();
    let Some(_mounted) = mounted else { return skip("mounting is not possible here") };
    let _proc = Mounted::new(&["-t", "proc", "cabk-test"], &kernel);
    std::fs::write(disk.join("within"), "on the tmpfs").unwrap();
    past_the_grain();
    let done = world.snapshot(NONE).expect(0);
    let found = mount(&done, &disk);
    assert_eq!((&found["crossed"], &found["fs_type"]), (&true.into(), &"tmpfs".into()));
    let kept = world.kept(done.id());
    assert!(kept.contains_key(&bytes(&disk.join("within"))));
    if _proc.is_some() {
        let found = mount(&done, &kernel);
        assert_eq!((&found["crossed"], &found["fs_type"]), (&false.into(), &"proc".into()));
        assert!(!kept.contains_key(&bytes(&kernel.join("self"))));
        assert!(kept.contains_key(&bytes(&kernel)), "the mount point itself is a directory");
    }
    let done = world.snapshot(&["--one-file-system"]).expect(0);
    assert_eq!(mount(&done, &disk)["crossed"], false);
    let kept = world.kept(done.id());
    assert!(kept.contains_key(&bytes(&disk)) && !kept.contains_key(&bytes(&disk.join("within"))));
    let done = world.snapshot(NONE).expect(0);
    assert!(world.kept(done.id()).contains_key(&bytes(&disk.join("within"))));
}

#[test]
fn what_is_not_there_is_said_before_anything_else() {
    let world = World::new();
    let done = world.snapshot(NONE).expect(2);
    assert!(done.stderr.contains("is not there"), "{}", done.stderr);
    assert!(done.stdout.is_empty());
    std::fs::create_dir(world.source()).unwrap();
    let mut command = world.snapshot_command(NONE);
    let no_repository = Done::of(&command.env("CABK_REPO", world.path("none")).output().unwrap());
    assert_eq!(no_repository.expect(10).error()["error"]["code"], "no-repository");
    let mut command = world.snapshot_command(NONE);
    let url = Done::of(&command.env("CABK_REPO", "s3://bucket/prefix").output().unwrap());
    assert_eq!(url.expect(2).error()["error"]["code"], "usage");
    let locked = World::encrypted();
    std::fs::create_dir(locked.source()).unwrap();
    let mut command = locked.snapshot_command(NONE);
    let wrong = Done::of(&command.env("CABK_PASSWORD", "wrong").output().unwrap());
    assert_eq!(wrong.expect(12).error()["error"]["code"], "wrong-key");
    assert_eq!(locked.leases(), [""; 0]);
}
