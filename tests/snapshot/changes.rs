//! A first snapshot and those after it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::seen::{Also, differences, disk, kept};
use crate::world::{Done, SITE, World, bytes, past_the_grain};

const NONE: &[&str] = &[];

fn small_tree(world: &World) {
    world.put("a/one", "first file");
    world.put("a/two", vec![7; 300_000]);
    world.put("a/empty", "");
    world.put("b/c/deep", "deep");
    std::fs::create_dir(world.source().join("nothing")).unwrap();
    symlink("a/one", world.source().join("link")).unwrap();
    past_the_grain();
}

#[track_caller]
fn equal_to_disk(world: &World, done: &Done) {
    let source = world.source();
    let inside = world.look();
    let kept = kept(&inside, done.id(), &bytes(&source));
    let found = differences(&disk(&source), &kept, Also::default());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_first_snapshot_has_all_and_the_document_has_all_fields() {
    let world = World::encrypted();
    small_tree(&world);
    let done = world.snapshot(&["--tag", "one", "--tag", "two"]).expect(0);
    let json = &done.json;
    assert_eq!(done.stdout.lines().filter(|l| l.starts_with('{')).count(), 1);
    assert_eq!(json["kind"], "snapshot");
    assert_eq!(json["id"].as_str().unwrap().len(), 64);
    assert_eq!(json["restorable"], true);
    assert_eq!(json["origin"], "window");
    assert_eq!(json["site"], SITE);
    assert!(json["time"].as_str().unwrap().ends_with('Z'), "{}", json["time"]);
    assert_eq!(json["tags"], serde_json::json!(["one", "two"]));
    assert!(json["parent"].is_null() && json.as_object().unwrap().contains_key("parent"));
    assert!(json["window"].is_null() && json.as_object().unwrap().contains_key("window"));
    let evidence = json["evidence"].as_array().unwrap();
    let checks: BTreeSet<&str> = evidence.iter().map(|e| e["check"].as_str().unwrap()).collect();
    let expected = ["all-sources-read", "no-process-in-tree", "service-stopped", "tree-unchanged"];
    assert_eq!(checks, BTreeSet::from(expected), "no service and no database: nothing of them");
    for one in evidence {
        assert_eq!(one["held"], true, "{one}");
        for name in ["check", "subject", "node", "scope", "how", "detail"] {
            assert!(one[name].is_string(), "{name} of {one}");
        }
        assert!(["observed", "asserted"].contains(&one["how"].as_str().unwrap()));
    }
    let path = world.source().display().to_string();
    let sources = json["sources"].as_array().unwrap();
    assert_eq!((sources.len(), &sources[0]["path"]), (1, &path.into()));
    assert_eq!((&sources[0]["role"], &sources[0]["bytes"]), (&"extra".into(), &300_014.into()));
    // The directories: source, a, b, b/c, nothing.
    let count = |name| done.count(name);
    assert_eq!((count("files"), count("dirs"), count("bytes")), (5, 5, 300_014));
    assert_eq!((count("files_new"), count("files_changed"), count("files_unmodified")), (5, 0, 0));
    assert!(count("chunks_new") > 0 && count("bytes_added") > 0);
    assert!(json["summary"]["duration_ms"].is_u64());
    assert_eq!(json["problems"], serde_json::json!([]));
    equal_to_disk(&world, &done);
    assert_eq!(world.leases(), [""; 0]);
    assert!(!world.has_intent(), "nothing was stopped");
}

/// Times of the directories above the source: they are part of the tree, and others may move them.
fn above(world: &World) -> Vec<std::time::SystemTime> {
    let source = world.source();
    let times = source.ancestors().map(|dir| dir.metadata().unwrap().modified().unwrap());
    times.collect()
}

#[test]
fn an_unchanged_tree_writes_one_manifest_and_nothing_else() {
    let world = World::beside_the_program();
    small_tree(&world);
    for _ in 0..50 {
        let times = above(&world);
        past_the_grain();
        let first = world.snapshot(NONE).expect(0);
        let before = world.objects();
        let second = world.snapshot(NONE).expect(0);
        let after = world.objects();
        if above(&world) == times {
            return one_manifest(&world, [first, second], &before, &after);
        }
    }
    crate::common::skip("the directories above the source never rest");
}

fn one_manifest(
    world: &World,
    [first, second]: [Done; 2],
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) {
    let new: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    assert!(new[0].starts_with("snapshots/") && new[0].contains(second.id()), "{new:?}");
    assert!(before.iter().all(|(name, len)| after.get(name) == Some(len)), "nothing else changed");
    let count = |name| second.count(name);
    assert_eq!((count("files_new"), count("files_changed"), count("files_unmodified")), (0, 0, 5));
    assert_eq!((count("chunks_new"), count("bytes_added")), (0, 0));
    assert_eq!(second.json["parent"], first.json["id"]);
    let inside = world.look();
    let source = world.source();
    assert_eq!(inside.tree_id(first.id(), &source), inside.tree_id(second.id(), &source));
    assert_eq!(inside.body(second.id()).sequence, inside.body(first.id()).sequence + 1);
}

#[test]
fn what_changed_is_read_and_what_went_is_gone() {
    let world = World::new();
    small_tree(&world);
    world.snapshot(NONE).expect(0);
    world.put("a/one", "first file, changed");
    world.put("a/new", "new");
    std::fs::rename(world.source().join("a/two"), world.source().join("a/zwei")).unwrap();
    std::fs::remove_file(world.source().join("a/empty")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(world.source().join("nothing"), mode).unwrap();
    past_the_grain();
    let done = world.snapshot(NONE).expect(0);
    let count = |name| done.count(name);
    assert_eq!((count("files"), count("dirs")), (5, 5));
    // A file under a new name is new to its directory, but its chunk is known.
    assert_eq!(count("files_unmodified"), 2);
    assert_eq!(count("files_new") + count("files_changed"), 3);
    assert!(count("bytes_added") < 20_000, "{}", count("bytes_added"));
    equal_to_disk(&world, &done);
    // The directory whose mode alone changed has it.
    let mode = world.kept(done.id())[&bytes(&world.source().join("nothing"))].meta.mode;
    assert_eq!(mode, 0o711);
}

#[test]
fn a_change_that_leaves_size_and_mtime_is_seen() {
    let world = World::new();
    let path = world.put("file", "aaaa");
    past_the_grain();
    world.snapshot(NONE).expect(0);
    let mtime = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "bbbb").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    let done = world.snapshot(NONE).expect(0);
    assert_eq!(done.count("files_changed"), 1);
    let inside = world.look();
    assert_eq!(inside.bytes(&inside.tree(done.id())[&bytes(&path)]), b"bbbb");
}

#[test]
fn a_renamed_directory_is_not_read_again() {
    let world = World::new();
    for n in 0..20 {
        let content: Vec<u8> = (0..50_000u32).map(|i| (i * 31 + n) as u8).collect();
        world.put(&format!("old/{n:02}"), content);
    }
    past_the_grain();
    world.snapshot(NONE).expect(0);
    std::fs::rename(world.source().join("old"), world.source().join("new")).unwrap();
    let done = world.snapshot(NONE).expect(0);
    let count = |name| done.count(name);
    assert_eq!((count("files_new"), count("files_changed"), count("files_unmodified")), (0, 0, 20));
    equal_to_disk(&world, &done);
}

#[test]
fn a_file_within_the_grain_is_read_again_and_not_believed() {
    let world = World::new();
    let path = world.put("file", "old!");
    // Written, kept and written again without any pause: nothing may be believed of its times.
    for n in 0..5 {
        let text = format!("new{n}");
        std::fs::write(&path, &text).unwrap();
        let done = world.snapshot(NONE).expect(0);
        let inside = world.look();
        let kept = inside.bytes(&inside.tree(done.id())[&bytes(&path)]);
        assert_eq!(kept, text.as_bytes());
    }
}

#[test]
fn hard_links_and_attributes_are_kept_and_noticed() {
    let world = World::new();
    let one = world.put("d/one", "linked");
    std::fs::create_dir(world.source().join("e")).unwrap();
    std::fs::hard_link(&one, world.source().join("e/two")).unwrap();
    let plain = world.put("plain", "x");
    let set = |value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&plain, "user.note", value, flags).is_ok()
    };
    if !set(b"first") {
        return crate::common::skip("the file system has no user attributes");
    }
    past_the_grain();
    let first = world.snapshot(NONE).expect(0);
    equal_to_disk(&world, &first);
    set(b"second");
    std::fs::hard_link(&one, world.source().join("e/three")).unwrap();
    past_the_grain();
    let second = world.snapshot(NONE).expect(0);
    equal_to_disk(&world, &second);
    std::fs::remove_file(&one).unwrap();
    std::fs::remove_file(world.source().join("e/three")).unwrap();
    past_the_grain();
    let third = world.snapshot(NONE).expect(0);
    equal_to_disk(&world, &third);
    let alone = &world.kept(third.id())[&bytes(&world.source().join("e/two"))];
    assert_eq!(alone.meta.link, None, "one name is no group");
}
