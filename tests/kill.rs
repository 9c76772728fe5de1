//! SIGKILL at random moments: the service runs again, nothing acknowledged is lost, and what was
//! published is not stored twice. `CABK_LONG` sets the full count, `CABK_SEED` repeats a run.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

#[path = "common/seen.rs"]
mod seen;
#[path = "common/site.rs"]
mod site;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};

use seen::{Also, Seen, differences, disk};
use site::Site;
use world::{Done, until};

/// A small generator whose sequence a seed repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// New content, so that each run has something to store.
fn write_on(site: &Site, random: &mut Random, round: u64) {
    for n in 0..6 {
        let mut text = Vec::new();
        while text.len() < 200_000 {
            text.extend_from_slice(&random.next().to_le_bytes());
        }
        let dir = site.path("data/apps").join(format!("{}", round % 5));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("content-{n}")), text).unwrap();
    }
}

/// What a killed run came to.
#[derive(Default, Debug)]
struct Counted {
    runs: u64,
    killed: u64,
    in_window: u64,
    published: u64,
}

/// Kills within the time, or earlier where the window opens and that is aimed at. Whether it was
/// killed, and whether the service was stopped at that moment.
fn kill_at(site: &Site, child: &mut Child, after: Duration, aim: Option<Duration>) -> (bool, bool) {
    let began = Instant::now();
    let mut opened = None;
    loop {
        if child.try_wait().unwrap().is_some() {
            return (false, false);
        }
        if opened.is_none() && aim.is_some() && site.world.has_intent() {
            opened = Some(Instant::now());
        }
        let due = match (aim, opened) {
            (Some(aim), Some(opened)) => opened.elapsed() >= aim,
            (Some(_), None) => false,
            (None, _) => began.elapsed() >= after,
        };
        if due {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let in_window = site.world.has_intent();
    let status = child.wait().unwrap();
    (status.signal() == Some(9), in_window)
}

/// What was acknowledged: an id, and the site's content at that time.
type Acknowledged = BTreeMap<String, BTreeMap<Vec<u8>, Seen>>;

fn content(site: &Site) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = disk(&site.path("data"));
    // The service writes these two between the snapshot and this look.
    all.remove(&b"/log"[..]);
    all.remove(&b""[..]);
    all
}

fn restores(site: &Site, id: &str, expected: &BTreeMap<Vec<u8>, Seen>) {
    let target = site.path("target");
    let words = ["restore", id, "--target", target.to_str().unwrap(), "--numeric-ids", "--json"];
    site.world.run(&words).expect(0);
    let data = site.path("data");
    let restored = target.join(data.strip_prefix("/").unwrap());
    let mut found = disk(&restored);
    found.remove(&b"/log"[..]);
    found.remove(&b""[..]);
    let found = differences(expected, &found, Also::default());
    assert!(found.is_empty(), "{id}: {}", found.join("\n"));
    std::fs::remove_dir_all(&target).unwrap();
}

/// A run that is not killed, after one that was: it stores what was not yet published, no more.
fn next_run(site: &Site, counted: &mut Counted, acknowledged: &mut Acknowledged) {
    let before = site.world.pack_bytes();
    let done = site.snapshot(&[]).expect(0);
    let added = site.world.pack_bytes() - before;
    // The round wrote 1.2 MB that do not compress; trees and the log are little.
    assert!(added < 1_600_000, "{added} bytes");
    counted.published += u64::from(added < 800_000);
    acknowledged.insert(done.id().to_owned(), content(site));
}

fn check(site: &Site) {
    let done = site.world.run(&["check", "--read-data", "--json"]).expect(0);
    assert_eq!(done.json["ok"], true, "{}", done.stdout);
    site.world.look().read_all();
}

#[test]
fn sigkill_at_random_moments() {
    let long = std::env::var_os("CABK_LONG").is_some();
    let wanted = number("CABK_KILLS").unwrap_or(if long { 200 } else { 12 });
    let seed = number("CABK_SEED").unwrap_or_else(|| u64::from(std::process::id()) + 1);
    println!("seed {seed}");
    eprintln!("sigkill_at_random_moments: CABK_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let site = Site::new();
    let mut acknowledged = Acknowledged::new();
    let mut counted = Counted::default();
    write_on(&site, &mut random, 99);
    let began = Instant::now();
    next_run_unbounded(&site, &mut acknowledged);
    let usual = began.elapsed();
    while counted.killed < wanted {
        counted.runs += 1;
        assert!(counted.runs < wanted * 4, "{counted:?}");
        write_on(&site, &mut random, counted.runs);
        let micros = u64::try_from(usual.as_micros()).unwrap();
        let after = Duration::from_micros(random.below(micros));
        // Half of them where it hurts: some time after the intent is there.
        let aim = (counted.runs % 2 == 0).then(|| Duration::from_micros(random.below(150_000)));
        let mut child = site.command(&["--precopy", "auto"]).spawn().unwrap();
        let (killed, in_window) = kill_at(&site, &mut child, after, aim);
        if !killed {
            let done = Done::of(&child.wait_with_output().unwrap()).expect(0);
            acknowledged.insert(done.id().to_owned(), content(&site));
            continue;
        }
        counted.killed += 1;
        counted.in_window += u64::from(in_window);
        if counted.killed % 2 == 0 {
            let words = ["window", "recover", "--json"];
            site.world.run(&words).expect(0);
            until(10, "the service, by the recovery", || site.runs());
            assert!(!site.world.has_intent());
        }
        next_run(&site, &mut counted, &mut acknowledged);
        until(10, "the service, by the next run", || site.runs());
        assert!(!site.world.has_intent() && site.world.leases().is_empty());
        if counted.killed % 6 == 0 || counted.killed == wanted {
            check(&site);
        }
    }
    eprintln!("sigkill_at_random_moments: {counted:?}, {} acknowledged", acknowledged.len());
    assert!(counted.in_window * 4 >= counted.killed, "{counted:?}");
    let step = if long { 1 } else { (acknowledged.len() / 8).max(1) };
    for (id, expected) in acknowledged.iter().step_by(step) {
        restores(&site, id, expected);
    }
    let listed = site.world.look();
    assert!(acknowledged.keys().all(|id| listed.records.iter().any(|(have, _, _)| have == id)));
}

fn next_run_unbounded(site: &Site, acknowledged: &mut Acknowledged) {
    let done = site.snapshot(&[]).expect(0);
    acknowledged.insert(done.id().to_owned(), content(site));
}

/// A first run that was killed after it had published is resumed, not repeated.
#[test]
fn what_a_killed_run_published_is_not_stored_again() {
    let site = Site::new();
    let mut random = Random(77);
    write_on(&site, &mut random, 1);
    site.put("svc/hold-stop", "");
    let mut child = site.command(&[]).spawn().unwrap();
    until(30, "the stop", || site.calls().iter().any(|c| c == "stop"));
    let published = site.world.pack_bytes();
    assert!(published > 1_100_000, "the pre-copy published {published} bytes");
    child.kill().unwrap();
    child.wait().unwrap();
    site.remove("svc/hold-stop");
    site.snapshot(&[]).expect(0);
    let added = site.world.pack_bytes() - published;
    assert!(added < 200_000, "{added} bytes again");
    site.is_in_order();
    check(&site);
}
