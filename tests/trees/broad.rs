//! A tree of many directories where a process may have few files open.

use std::process::Command;

use crate::seen::{Also, differences, disk};
use crate::world::{Done, World, past_the_grain};

const DIRS: usize = 700;
/// Files that a process may have open: fewer than there are directories, more than are kept open on
/// purpose.
const LIMIT: u32 = 300;

/// The program where a process may have this many files open.
fn limited(world: &World, limit: u32, args: &[&str]) -> Done {
    let mut command = Command::new("sh");
    world.surround(&mut command);
    command.args(["-c", r#"ulimit -n "$1" && shift && exec "$@""#, "sh", &limit.to_string()]);
    Done::of(&command.arg(env!("CARGO_BIN_EXE_cabk")).args(args).output().unwrap())
}

#[test]
fn a_broad_tree_needs_few_open_files() {
    let world = World::in_memory();
    for n in 0..DIRS {
        world.put(&format!("{n}/sub/file"), format!("{n} ").repeat(20));
        std::fs::create_dir_all(world.source().join(format!("{n}/sub/a/b/c"))).unwrap();
    }
    past_the_grain();
    let source = world.source().display().to_string();
    let snapshot = ["--json", "snapshot", "--site-name", "toy", "--path", &source];
    let first = limited(&world, LIMIT, &snapshot).expect(0);
    assert_eq!(first.json["problems"], serde_json::json!([]));
    assert_eq!((first.count("files"), first.count("files_new")), (700, 700));
    let expected = disk(&world.source());
    assert_eq!(expected.len(), 1 + DIRS * 6);

    let target = world.path("target");
    let to = target.display().to_string();
    let restore = ["--json", "restore", first.id(), "--numeric-ids", "--target", &to];
    let restored = limited(&world, LIMIT, &restore).expect(0);
    assert_eq!(restored.json["problems"], serde_json::json!([]));
    let found = disk(&target.join(world.source().strip_prefix("/").unwrap()));
    let found = differences(&expected, &found, Also::default());
    assert!(found.is_empty(), "{}", found.join("\n"));

    let again = limited(&world, LIMIT, &snapshot).expect(0);
    let count = |name| again.count(name);
    let files = (count("files_new"), count("files_changed"), count("files_unmodified"));
    assert_eq!(files, (0, 0, 700));
    assert!(count("bytes_added") < 20_000, "{}", again.stdout);

    // In place: all directories anew but the last.
    for n in 0..DIRS - 1 {
        std::fs::remove_dir_all(world.source().join(n.to_string())).unwrap();
    }
    let restore =
        ["--json", "--site-name", "toy", "restore", again.id(), "--numeric-ids", "--in-place"];
    limited(&world, LIMIT, &restore).expect(0);
    let found = differences(&expected, &disk(&world.source()), Also::default());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
