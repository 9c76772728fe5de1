//! SIGKILL while a tree is restored in place, and the same command again. `CABK_SEED` repeats one
//! run, its moments aside.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::seen::{Also, Seen, differences, disk};
use crate::world::World;

const DIRS: u64 = 40;
const FILES: u64 = 60;
/// How a restore renames aside what it replaces.
const ASIDE: &str = ".cabk-restore-";

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn tree(world: &World) {
    for dir in 0..DIRS {
        for file in 0..FILES {
            let text = format!("{dir} {file} ").repeat(((dir * 7 + file * 13) % 400) as usize);
            world.put(&format!("{:02}/{dir}/{file}", dir % 8), text);
        }
    }
    let source = world.source();
    std::os::unix::fs::symlink("0/0", source.join("00/link")).unwrap();
    std::fs::hard_link(source.join("00/0/1"), source.join("01/hard")).unwrap();
    std::fs::create_dir(source.join("02/empty")).unwrap();
}

/// What a day does to the tree: each file in one of several ways, or not at all.
fn next_day(source: &Path, random: &mut Random) {
    for dir in 0..DIRS {
        let dir = source.join(format!("{:02}/{dir}", dir % 8));
        for file in 0..FILES {
            let path = dir.join(file.to_string());
            match random.below(10) {
                0 | 1 => std::fs::write(&path, format!("later {}", random.below(1000))).unwrap(),
                2 => std::fs::remove_file(&path).unwrap(),
                3 => std::fs::rename(&path, dir.join(format!("{file}-moved"))).unwrap(),
                4 => {
                    let mode = std::fs::Permissions::from_mode(0o640);
                    std::fs::set_permissions(&path, mode).unwrap();
                }
                5 => {
                    std::fs::remove_file(&path).unwrap();
                    std::fs::create_dir(&path).unwrap();
                    std::fs::write(path.join("within"), "in the place of a file").unwrap();
                }
                6 => std::fs::write(dir.join(format!("{file}-new")), "new").unwrap(),
                _ => {}
            }
        }
    }
    let gone = source.join(format!("{:02}/{}", 5, 5 + 8 * random.below(4)));
    std::fs::remove_dir_all(&gone).unwrap();
    std::fs::write(&gone, "a file in the place of a directory").unwrap();
    std::fs::remove_dir(source.join("02/empty")).unwrap();
}

fn restore(world: &World) -> Child {
    let mut command = world.cabk();
    command.args(["--site-name", "toy", "--json", "restore", "latest", "--in-place"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Lets it run for a time, and kills it. Whether it had not yet ended.
fn killed(mut child: Child, after: Duration) -> bool {
    std::thread::sleep(after);
    // It may have ended by itself.
    let _ = child.kill();
    let status = child.wait().unwrap();
    assert!(status.code().is_none_or(|code| code == 0), "{status}");
    status.signal() == Some(9)
}

/// What is there after a kill: neither the tree of that day nor the snapshot's, where it hit well.
fn is_between(
    source: &Path,
    later: &BTreeMap<Vec<u8>, Seen>,
    expected: &BTreeMap<Vec<u8>, Seen>,
) -> bool {
    let now = disk(source);
    now != *later && !differences(&now, expected, Also::default()).is_empty()
}

fn left_aside(source: &Path) -> Vec<String> {
    let all = walkdir::WalkDir::new(source).into_iter().map(|one| one.unwrap());
    let names = all.map(|one| one.path().display().to_string());
    names.filter(|name| name.contains(ASIDE)).collect()
}

#[test]
fn a_restore_that_was_killed_is_ended_by_the_next() {
    let given = std::env::var("CABK_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("a_restore_that_was_killed_is_ended_by_the_next: CABK_SEED={first}");
    let world = World::in_memory();
    tree(&world);
    let source = world.source();
    let expected = disk(&source);
    let none: &[&str] = &[];
    world.snapshot(none).expect(0);
    // How long one takes that nobody kills.
    next_day(&source, &mut Random(77));
    let began = Instant::now();
    assert!(restore(&world).wait().unwrap().success());
    let mut usual = u64::try_from(began.elapsed().as_micros()).unwrap();
    let (mut hit, mut between) = (0, 0_u32);
    for seed in first..first + 3 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        next_day(&source, &mut random);
        let later = disk(&source);
        for _ in 0..3 {
            // Seldom at its start, where it only reads.
            let after = Duration::from_micros(usual / 10 + random.below(usual * 3 / 5));
            if !killed(restore(&world), after) {
                // All of it was done: there was more time than the first one had.
                usual = (usual * 3 / 4).max(1_000);
                next_day(&source, &mut random);
                continue;
            }
            hit += 1;
            between += u32::from(is_between(&source, &later, &expected));
        }
        let done = world.run(&["--site-name", "toy", "--json", "restore", "latest", "--in-place"]);
        done.expect(0);
        let found = differences(&expected, &disk(&source), Also::default());
        assert!(found.is_empty(), "seed {seed}: {}", found.join("\n"));
        assert_eq!(left_aside(&source), [""; 0], "seed {seed}");
    }
    eprintln!("killed {hit} times, {between} of them half way");
    assert!(hit > 0 && between > 0, "{hit} kills, {between} half way");
    // The leases of the dead are there until somebody clears them away.
    let cleared = world.run(&["unlock", "--json"]).expect(0);
    assert!(cleared.json["removed"].as_array().unwrap().len() <= hit, "{}", cleared.stdout);
    assert_eq!(world.leases(), [""; 0]);
}
