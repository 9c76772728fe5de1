//! Losing, rolling back or swapping the local index changes speed, never results; and clients that
//! meet.

use std::process::Stdio;

use crate::seen::{Also, differences, disk, kept};
use crate::world::{Done, Guarded, World, bytes, past_the_grain, until};

const NONE: &[&str] = &[];

/// What becomes of the index between two runs.
type Spoil = fn(&World, &[u8]);

fn spoilt() -> [(&'static str, Spoil); 6] {
    [
        ("as it is", |_, _| {}),
        ("missing", |world, _| std::fs::remove_file(world.redb()).unwrap()),
        ("rolled back", |world, old| std::fs::write(world.redb(), old).unwrap()),
        ("garbage", |world, _| std::fs::write(world.redb(), vec![0xa5; 70_000]).unwrap()),
        ("empty", |world, _| std::fs::write(world.redb(), "").unwrap()),
        ("of another repository", |world, _| {
            let other = World::new();
            other.put("file", "another");
            other.snapshot(NONE).expect(0);
            std::fs::copy(other.redb(), world.redb()).unwrap();
        }),
    ]
}

#[test]
fn invariant_7_a_spoilt_index_changes_no_result() {
    for (name, spoil) in spoilt() {
        let world = World::new();
        for n in 0..30u8 {
            world.put(&format!("d{}/f{n}", n % 3), vec![n; 20_000 + usize::from(n)]);
        }
        past_the_grain();
        world.snapshot(NONE).expect(0);
        let old = std::fs::read(world.redb()).unwrap();
        world.put("d1/more", vec![b'm'; 5_000]);
        std::fs::remove_file(world.source().join("d2/f2")).unwrap();
        past_the_grain();
        let second = world.snapshot(NONE).expect(0);
        let (before, chunks) = (world.pack_bytes(), second.count("chunks_new"));
        spoil(&world, &old);
        let third = world.snapshot(NONE).expect(0);
        let inside = world.look();
        assert_eq!(
            inside.tree_id(third.id(), &world.source()),
            inside.tree_id(second.id(), &world.source()),
            "{name}"
        );
        // What is new are the directories above the source, whose times others may move.
        assert!(chunks > 0 && third.count("chunks_new") <= 2, "{name}: {}", third.stdout);
        assert!(world.pack_bytes() - before < 5_000, "{name}: all of it was there already");
        let kept = kept(&inside, third.id(), &bytes(&world.source()));
        let found = differences(&disk(&world.source()), &kept, Also::default());
        assert!(found.is_empty(), "{name}: {}", found.join("\n"));
        inside.read_all();
        assert_eq!(world.leases(), [""; 0], "{name}");
    }
}

#[test]
fn invariant_7_a_repository_rolled_back_under_the_index_is_noticed() {
    let world = World::new();
    world.put("early", vec![1; 40_000]);
    past_the_grain();
    world.snapshot(NONE).expect(0);
    let copy = world.path("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(world.repo()).arg(&copy).status();
    assert!(copied.unwrap().success());
    world
        .put("late", (0..90_000u32).map(|n| (u64::from(n).pow(2) >> 7) as u8).collect::<Vec<u8>>());
    past_the_grain();
    world.snapshot(NONE).expect(0);
    // The disk with the repository was restored from yesterday.
    std::fs::remove_dir_all(world.repo()).unwrap();
    std::fs::rename(&copy, world.repo()).unwrap();
    let done = world.snapshot(NONE).expect(0);
    let inside = world.look();
    let kept = kept(&inside, done.id(), &bytes(&world.source()));
    let found = differences(&disk(&world.source()), &kept, Also::default());
    assert!(found.is_empty(), "{}", found.join("\n"));
    inside.read_all();
}

#[test]
fn no_cache_is_as_good() {
    let world = World::new();
    world.put("file", vec![3; 100_000]);
    past_the_grain();
    let first = world.snapshot(&["--no-cache"]).expect(0);
    let bytes = world.pack_bytes();
    let second = world.snapshot(&["--no-cache"]).expect(0);
    assert!(!world.path("cache").exists());
    let inside = world.look();
    assert_eq!(
        inside.tree_id(first.id(), &world.source()),
        inside.tree_id(second.id(), &world.source())
    );
    assert!(world.pack_bytes() - bytes < 5_000);
}

#[test]
fn two_clients_at_once_both_succeed() {
    let world = World::new();
    for n in 0..200u32 {
        let text: Vec<u8> = (0..30_000u32).map(|i| ((i * (n + 3)) >> 3) as u8).collect();
        world.put(&format!("a/{n}"), &text);
        world.put(&format!("b/{n}"), &text);
    }
    past_the_grain();
    for _ in 0..2 {
        let spawn = |site: &str| {
            let mut command = world.cabk();
            command.args(["snapshot", "--json", "--site-name", site, "--path"]);
            command.arg(world.source().join(site)).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let both = [spawn("a"), spawn("b")];
        let done = both.map(|child| Done::of(&child.wait_with_output().unwrap()).expect(0));
        let inside = world.look();
        for (site, done) in ["a", "b"].into_iter().zip(&done) {
            let source = world.source().join(site);
            let kept = kept(&inside, done.id(), &bytes(&source));
            let found = differences(&disk(&source), &kept, Also::default());
            assert!(found.is_empty(), "{}", found.join("\n"));
        }
        inside.read_all();
    }
    assert_eq!(world.look().records.len(), 4);
    assert_eq!(world.leases(), [""; 0]);
}

#[test]
fn one_window_a_site_and_lock_wait_waits() {
    let world = World::new();
    world.put("file", "x");
    std::fs::write(world.path("running"), "").unwrap();
    let at = |name: &str| world.path(name).display().to_string();
    // The stop takes until a file appears.
    let stop = format!(
        "touch {0}; while [ ! -e {1} ]; do sleep 0.02; done; rm -f {2}",
        at("stopping"),
        at("go"),
        at("running")
    );
    let start = format!("touch {}", at("running"));
    let status = format!("[ -e {} ] || exit 3", at("running"));
    let service = ["--stop-command", &stop, "--start-command", &start, "--status-command", &status];
    let mut command = world.snapshot_command(&service);
    let first = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = Guarded(first);
    until(20, "the first run stops its service", || world.path("stopping").exists());
    assert!(world.has_intent(), "on disk before the stop");
    let second = world.snapshot(NONE).expect(11);
    let error = second.error();
    assert_eq!(error["error"]["code"], "in-use");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("process {} since", first.0.id())), "{message}");
    assert!(error["error"]["hint"].as_str().unwrap().contains("--lock-wait"));
    let waiting = world.snapshot(&["--lock-wait", "300ms"]);
    assert_eq!(waiting.code, 11, "{}", waiting.said());
    // Another site is not concerned.
    let mut other = world.cabk();
    let args = ["snapshot", "--json", "--site-name", "other", "--path"];
    let other = Done::of(&other.args(args).arg(world.path("cabk.toml")).output().unwrap());
    other.expect(0);
    let mut third = world.snapshot_command(&["--lock-wait", "30s"]);
    let third = third.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::fs::write(world.path("go"), "").unwrap();
    let status = first.0.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    Done::of(&third.wait_with_output().unwrap()).expect(0);
    assert!(world.path("running").exists() && !world.has_intent());
    assert_eq!(world.leases(), [""; 0]);
}

#[test]
fn invariant_7_a_lost_index_segment_is_made_good_by_the_next_run() {
    for one_more in [false, true] {
        let world = World::new();
        for n in 0..20u8 {
            world.put(&format!("d{}/f{n}", n % 3), vec![n; 20_000 + usize::from(n)]);
        }
        past_the_grain();
        world.snapshot(NONE).expect(0);
        let segment = std::fs::read_dir(world.path("repo/index")).unwrap().next().unwrap().unwrap();
        std::fs::remove_file(segment.path()).unwrap();
        if one_more {
            world.put("d1/more", "x");
            past_the_grain();
        }
        let again = world.snapshot(NONE).expect(0);
        assert!(again.stderr.contains("built anew"), "{}", again.stderr);
        let inside = world.look();
        let kept = kept(&inside, again.id(), &bytes(&world.source()));
        let found = differences(&disk(&world.source()), &kept, Also::default());
        assert!(found.is_empty(), "{}", found.join("\n"));
        world
            .run(&["restore", again.id(), "--target", world.path("out").to_str().unwrap()])
            .expect(0);
    }
}
