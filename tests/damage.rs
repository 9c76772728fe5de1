//! Damage of every kind to every region of every object: `check` names it, nothing panics, and
//! nothing that is read is wrong.
//!
//! Every region is hit at a few offsets here. With `CABK_LONG=1` every byte of small objects is.

#[path = "damage/fixture.rs"]
mod fixture;
#[path = "damage/regions.rs"]
mod regions;

use std::path::Path;
use std::process::Command;

use fixture::{Fixture, Outcome};
use regions::{Kind, regions};

/// What is done to an object.
#[derive(Clone, Debug)]
enum Act {
    Flip(usize, u8),
    Zero(usize, usize),
    Truncate(usize),
    Grow,
    Replace(Vec<u8>),
    Remove,
}

impl Act {
    /// The bytes afterwards; `None` where the object is gone. `Err` where nothing would change.
    fn apply(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = bytes.to_vec();
        match self {
            Self::Flip(at, bit) => out[*at] ^= bit,
            Self::Zero(from, to) => out[*from..*to].fill(0),
            Self::Truncate(len) => out.truncate(*len),
            Self::Grow => out.push(0),
            Self::Replace(other) => out.clone_from(other),
            Self::Remove => return None,
        }
        Some(out)
    }
}

fn long() -> bool {
    std::env::var_os("CABK_LONG").is_some_and(|v| v == "1")
}

/// What is done to an object without encryption is a part of what is done to one with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    Full,
    Few,
}

fn flips(object: &Path, bytes: &[u8], share: Share) -> Vec<(String, Act)> {
    let mut acts = Vec::new();
    let all = long() && bytes.len() < 16 << 10;
    for (n, region) in regions(Kind::of(object), bytes).into_iter().enumerate() {
        let (from, last) = (region.from, region.to - 1);
        let mut add = |act| acts.push((region.name.clone(), act));
        for at in (from..region.to).filter(|_| all) {
            [0x01, 0x10, 0x80].into_iter().for_each(|bit| add(Act::Flip(at, bit)));
        }
        add(Act::Flip(last, 0x80));
        if share == Share::Few && !long() {
            continue;
        }
        add(Act::Flip(from, 0x01));
        let zeroes = bytes[from..region.to].iter().all(|b| *b == 0);
        if (long() || n % 2 == 0) && !zeroes {
            add(Act::Zero(from, region.to));
        }
        if long() || n % 2 == 1 {
            add(Act::Truncate(from));
        }
    }
    acts.push(("all".into(), Act::Zero(0, bytes.len())));
    acts.push(("all".into(), Act::Truncate(0)));
    acts.push(("end".into(), Act::Grow));
    acts
}

/// One object damaged in one way: what must hold whatever it is.
fn hold(fixture: &Fixture, object: &Path, region: &str, act: &Act, outcome: &Outcome) {
    let name = fixture.name(object);
    let said = format!("{name}, {region}, {act:?}: {outcome:?}");
    match outcome {
        Outcome::Checked(damage) => {
            assert!(!damage.is_empty(), "not detected: {said}");
            assert!(damage.iter().any(|d| d.object == name), "not named: {said}");
            if let Kind::Pack | Kind::Manifest = Kind::of(object) {
                let own = damage.iter().find(|d| d.object == name);
                assert!(own.is_some_and(|d| !d.affects.is_empty()), "affects nothing: {said}");
            }
        }
        // Only a copy of the configuration is needed to open a repository at all.
        Outcome::NotOpened(why) => {
            assert!(matches!(Kind::of(object), Kind::Config), "not opened: {said}");
            assert!(why.contains(&name), "not named: {said}");
        }
    }
}

fn matrix(fixture: &Fixture, share: Share, wanted: impl Fn(Kind) -> bool) -> usize {
    let mut trials = 0;
    for object in fixture.objects() {
        if !wanted(Kind::of(&object)) {
            continue;
        }
        let bytes = std::fs::read(&object).unwrap();
        for (region, act) in flips(&object, &bytes, share) {
            let outcome = fixture.damaged(&object, act.apply(&bytes).as_deref());
            hold(fixture, &object, &region, &act, &outcome);
            trials += 1;
        }
    }
    assert!(trials > 0);
    trials
}

#[test]
fn an_undamaged_repository_has_no_damage() {
    for encrypted in [true, false] {
        let fixture = Fixture::new(encrypted);
        match fixture.check() {
            Outcome::Checked(damage) => assert_eq!(damage, [], "encrypted: {encrypted}"),
            Outcome::NotOpened(why) => panic!("{why}"),
        }
        let read = fixture.read_everything();
        assert!(read.files > 10 && read.errors == 0, "{read:?}");
    }
}

#[test]
fn every_region_of_control_objects() {
    let fixture = Fixture::new(true);
    let trials = matrix(&fixture, Share::Full, |kind| kind != Kind::Pack);
    eprintln!("{trials} control objects damaged");
}

#[test]
fn every_region_of_packs() {
    let fixture = Fixture::new(true);
    let trials = matrix(&fixture, Share::Full, |kind| kind == Kind::Pack);
    eprintln!("{trials} packs damaged");
}

#[test]
fn every_region_without_encryption() {
    let fixture = Fixture::new(false);
    let trials = matrix(&fixture, Share::Few, |_| true);
    eprintln!("{trials} objects damaged");
}

#[test]
fn every_object_swapped_for_another_of_its_kind() {
    let fixture = Fixture::new(true);
    let other = Fixture::new(true);
    let mut trials = 0;
    for object in fixture.objects() {
        let kind = Kind::of(&object);
        let own = std::fs::read(&object).unwrap();
        let siblings = fixture.objects().into_iter().chain(other.objects());
        let mut swaps: Vec<Vec<u8>> = siblings
            .filter(|o| Kind::of(o) == kind && *o != object)
            .map(|o| std::fs::read(o).unwrap())
            .filter(|bytes| *bytes != own)
            .collect();
        swaps.truncate(if long() { usize::MAX } else { 4 });
        for bytes in swaps {
            let outcome = fixture.damaged(&object, Some(&bytes));
            // Both copies of a configuration open alike, so a swap for the other copy is none.
            let same = matches!(&outcome, Outcome::Checked(damage) if damage.is_empty());
            if same && kind == Kind::Config && fixture.is_other_copy(&object, &bytes) {
                continue;
            }
            let why = Act::Replace(Vec::new());
            hold_swapped(&fixture, &object, &why, &outcome);
            trials += 1;
        }
    }
    assert!(trials > 20, "{trials}");
}

/// A configuration of another repository stands in the way of opening; the error names it as one.
fn hold_swapped(fixture: &Fixture, object: &Path, act: &Act, outcome: &Outcome) {
    match outcome {
        Outcome::NotOpened(why) if Kind::of(object) == Kind::Config => {
            assert!(why.contains("config/"), "{why}");
        }
        outcome => hold(fixture, object, "all", act, outcome),
    }
}

#[test]
fn every_object_removed() {
    let fixture = Fixture::new(true);
    for object in fixture.objects() {
        let kind = Kind::of(&object);
        let outcome = fixture.damaged(&object, Act::Remove.apply(&[]).as_deref());
        let Outcome::Checked(damage) = outcome else { panic!("{}: not opened", object.display()) };
        let name = fixture.name(&object);
        let said = format!("{name}: {damage:?}");
        match kind {
            Kind::Config | Kind::Slot | Kind::Pack => {
                assert!(damage.iter().any(|d| d.object == name), "{said}");
                assert_eq!(damage.len(), 1, "{said}");
            }
            Kind::Segment => {
                assert!(damage.iter().all(|d| d.kind == "pack-unindexed"), "{said}");
                assert!(damage.iter().any(|d| !d.affects.is_empty()), "{said}");
            }
            Kind::Manifest => {
                let id = name.split('/').nth(1).unwrap();
                let gone = damage.iter().find(|d| d.object == format!("manifest {id}"));
                assert_eq!(gone.map(|d| d.kind.as_str()), Some("missing-manifest"), "{said}");
            }
            // Others come and go; that one is not there is nobody's damage.
            Kind::Lease | Kind::Generation | Kind::Note => assert_eq!(damage, [], "{said}"),
        }
    }
}

#[test]
fn one_copy_gone_or_torn_is_told_and_everything_can_be_read() {
    let fixture = Fixture::new(true);
    for object in fixture.objects() {
        if !matches!(Kind::of(&object), Kind::Config | Kind::Slot) {
            continue;
        }
        let bytes = std::fs::read(&object).unwrap();
        let torn = [0, 1, 63, bytes.len() / 2, bytes.len() - 1];
        let acts = torn.map(Act::Truncate).into_iter().chain([Act::Remove]);
        for act in acts {
            let damage = act.apply(&bytes);
            let Outcome::Checked(found) = fixture.damaged(&object, damage.as_deref()) else {
                panic!("{}: {act:?}: not opened", object.display());
            };
            assert_eq!(found.len(), 1, "{act:?}: {found:?}");
            let read = fixture.with(&object, damage.as_deref(), |f| f.read_everything());
            assert_eq!(read.errors, 0, "{}: {act:?}", object.display());
        }
    }
}

#[test]
fn the_command_names_damage_and_exits_with_20() {
    let fixture = Fixture::new(true);
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cabk"))
            .args(["--json", "--no-cache", "--repo"])
            .arg(fixture.repository())
            .arg("check")
            .args(arguments)
            .env_clear()
            .env("CABK_PASSWORD", fixture::PASSWORD)
            .env("CABK_STATE_DIR", fixture.state_dir())
            .output()
            .unwrap();
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), value)
    };
    let (code, value) = run(&["--read-data"]);
    assert_eq!((code, &value["ok"]), (Some(0), &serde_json::json!(true)), "{value}");
    let packs: Vec<_> =
        fixture.objects().into_iter().filter(|o| Kind::of(o) == Kind::Pack).collect();
    let sum: u64 = packs.iter().map(|p| p.metadata().unwrap().len()).sum();
    assert_eq!(value["packs"], packs.len());
    assert_eq!(value["bytes_read"], sum);
    let (code, value) = run(&["--read-data", "--max-duration", "0"]);
    assert_eq!((code, &value["bytes_read"]), (Some(0), &serde_json::json!(0)), "{value}");
    let (code, value) = run(&["--read-data=1%", "--no-lock"]);
    assert_eq!((code, &value["packs_read"]), (Some(0), &serde_json::json!(1)), "{value}");
    let mut bytes = std::fs::read(&packs[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fixture.with(&packs[0], Some(&bytes), |fixture| {
        let (code, value) = run(&["--read-data"]);
        assert_eq!((code, &value["ok"]), (Some(20), &serde_json::json!(false)), "{value}");
        let damage = &value["damage"][0];
        assert_eq!(damage["object"], fixture.name(&packs[0]));
        assert_eq!(damage["kind"], "pack-damaged");
        assert!(!damage["affects"].as_array().unwrap().is_empty());
    });
}
