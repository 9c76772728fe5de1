//! A repository whose disk is full: an error that says so, and nothing lost.

mod common;
#[path = "common/world.rs"]
mod world;

use common::skip;
use world::{Mounted, World, bytes, is_root, past_the_grain};

const NONE: &[&str] = &[];

/// Bytes that do not compress, another sequence for another start.
fn noise(start: u64, len: usize) -> Vec<u8> {
    let mut state = start.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// A world whose repository has a small disk of its own.
fn small(size: &str) -> Option<(Mounted, World)> {
    let world = World::new();
    std::fs::remove_dir_all(world.repo()).unwrap();
    let options = format!("size={size}");
    let args = ["-t", "tmpfs", "-o", &options, "cabk-test"];
    let mounted = is_root().then(|| Mounted::new(&args, &world.path("disk"))).flatten();
    let Some(mounted) = mounted else {
        skip("mounting is not possible here");
        return None;
    };
    let repo = mounted.path().join("repo");
    world.make_repository(&repo);
    std::os::unix::fs::symlink(&repo, world.repo()).unwrap();
    Some((mounted, world))
}

#[test]
fn full_while_packing_loses_nothing_and_the_next_run_goes_on() {
    let Some((mounted, world)) = small("24m") else { return };
    std::fs::write(world.path("cabk.toml"), "[repository]\nmin_free = \"0\"\n").unwrap();
    let one = world.put("one", noise(1, 4 << 20));
    past_the_grain();
    let first = world.snapshot(NONE).expect(0);
    for n in 0..40 {
        world.put(&format!("many/{n}"), noise(n + 2, 1 << 20));
    }
    past_the_grain();
    let failed = world.snapshot(NONE).expect(1);
    assert!(failed.stdout.is_empty());
    let text = failed.error().to_string();
    assert!(text.contains("bytes are free") || text.contains("No space left"), "{text}");
    assert_eq!(world.look().records.len(), 1, "nothing was committed");
    let inside = world.look();
    let kept = inside.bytes(&inside.tree(first.id())[&bytes(&one)]);
    assert!(kept == std::fs::read(&one).unwrap());
    // Reading commands work on a disk that is full.
    let checked = world.run(&["check", "--read-data", "--json"]).expect(0);
    assert_eq!(checked.json["ok"], true);
    world.run(&["snapshots", "--json"]).expect(0);
    // Once there is room the same command ends well, whatever the failed one left.
    let more = std::process::Command::new("mount")
        .args(["-o", "remount,size=128m"])
        .arg(mounted.path())
        .status();
    assert!(more.unwrap().success());
    let done = world.snapshot(NONE).expect(0);
    let inside = world.look();
    let tree = inside.tree(done.id());
    for n in [0, 39] {
        let path = world.source().join(format!("many/{n}"));
        assert!(inside.bytes(&tree[&bytes(&path)]) == std::fs::read(&path).unwrap());
    }
    assert!(world.pack_bytes() < 50 << 20, "{} bytes", world.pack_bytes());
    let leases = |name: &&String| name.starts_with("leases/");
    assert_eq!(walk(&mounted).iter().filter(leases).count(), 0);
    world.run(&["check", "--read-data"]).expect(0);
    drop(world);
}

/// All files of a mounted repository, by their path below it.
fn walk(mounted: &Mounted) -> Vec<String> {
    let root = mounted.path().join("repo");
    let files = walkdir::WalkDir::new(&root).into_iter().map(Result::unwrap);
    let files = files.filter(|one| one.file_type().is_file());
    files.map(|one| one.path().strip_prefix(&root).unwrap().display().to_string()).collect()
}

#[test]
fn what_is_to_stay_free_stays_free() {
    let Some((mounted, world)) = small("64m") else { return };
    std::fs::write(world.path("cabk.toml"), "[repository]\nmin_free = \"40 MiB\"\n").unwrap();
    world.put("small", noise(1, 1 << 20));
    past_the_grain();
    world.snapshot(NONE).expect(0);
    // It stops where it would take what is to stay free.
    for n in 0..50 {
        world.put(&format!("many/{n}"), noise(n + 2, 1 << 20));
    }
    past_the_grain();
    let stopped = world.snapshot(NONE);
    assert!([1, 22].contains(&stopped.code), "{}", stopped.said());
    let text = stopped.error().to_string();
    assert!(text.contains(&(40u64 << 20).to_string()) && text.contains("free"), "{text}");
    let stat = rustix::fs::statvfs(mounted.path()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    assert!(free >= 40 << 20, "{free} bytes are free");
    assert_eq!(world.look().records.len(), 1);
    // And where it has less than that already, it does not begin.
    std::fs::write(mounted.path().join("ballast"), noise(9, 30 << 20)).unwrap();
    let before = walk(&mounted);
    let refused = world.snapshot(NONE).expect(22);
    assert!(refused.error()["error"]["hint"].as_str().unwrap().contains("min_free"));
    assert_eq!(walk(&mounted), before, "nothing was written");
    std::fs::remove_file(mounted.path().join("ballast")).unwrap();
    std::fs::remove_dir_all(world.source().join("many")).unwrap();
    past_the_grain();
    world.snapshot(NONE).expect(0);
    drop(world);
}
