//! What may disturb a window, kind by kind: each is noticed, judged as the contract says, and named;
//! and without any every window gives a snapshot. Once where the kernel tells of changes, once where
//! only a second scan shows them.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

mod common;
#[path = "disturbances/files.rs"]
mod files;
#[path = "disturbances/gate.rs"]
mod gate;
#[path = "disturbances/kinds.rs"]
mod kinds;
#[path = "disturbances/place.rs"]
mod place;
#[path = "disturbances/processes.rs"]
mod processes;
#[path = "common/site.rs"]
mod site;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;

use common::skip;
use kinds::{ALL, By, Kind, Verdict};
use place::Place;
use serde_json::Value;
use world::Done;

/// Windows that nothing disturbs, in a run of all tests.
const QUIET: usize = 10;

/// The kinds that are to be there at least, beside those that are to be harmless.
const LEAST: usize = 20;

/// One window with a disturbance in it, held against what it is to come to: what is wrong with it.
/// `None` where this machine cannot do that.
fn disturbed(place: &Place, kind: &Kind, by: By) -> Option<Vec<String>> {
    let (done, acted) = place.window(Some(kind))?;
    let mut wrong = Vec::new();
    let verdict = kind.verdict(by);
    let all = done.json["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
    let broken: BTreeSet<&str> = all
        .iter()
        .filter(|one| one["held"] == false)
        .map(|one| one["check"].as_str().unwrap())
        .collect();
    let (code, record, checks) = match verdict {
        Verdict::Breaks(checks) => (4, "capture", checks),
        Verdict::Warns | Verdict::Harmless | Verdict::Untold => (0, "snapshot", &[][..]),
    };
    if (done.code, done.json["kind"].as_str()) != (code, Some(record)) {
        wrong.push(format!("exit code {}, a {}: {}", done.code, done.json["kind"], done.stderr));
    }
    if broken != checks.iter().copied().collect() {
        wrong.push(format!("what broke is {broken:?} and not {checks:?}"));
    }
    wrong.extend(unnamed(place, &done, &acted.named, verdict));
    if !wrong.is_empty() {
        wrong.extend(all.iter().filter(|one| one["held"] == false).map(ToString::to_string));
    }
    // Processes, databases and mounts of the disturbance were there until now.
    drop(acted);
    Some(wrong.into_iter().map(|what| format!("{}: {what}", kind.name)).collect())
}

/// Whoever did it, and what it was done to, stands in the result and in `show`: what does not.
fn unnamed(place: &Place, done: &Done, named: &[String], verdict: Verdict) -> Vec<String> {
    let breaks = matches!(verdict, Verdict::Breaks(_));
    let all = done.json["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
    let those = all.iter().filter(|one| one["held"] != breaks);
    let said = |one: &Value| format!("{}: {}", one["subject"], one["detail"]);
    let details: Vec<String> = those.map(said).collect();
    let shown = place.site.world.run(&["show", done.id()]).expect(0).stdout;
    let mut wrong = Vec::new();
    for part in named {
        let said = details.iter().any(|detail| detail.contains(part.as_str()));
        let warned = done.stderr.contains(part.as_str());
        let right = match verdict {
            Verdict::Harmless | Verdict::Untold => !said && !warned,
            Verdict::Warns => said && warned && shown.contains(part.as_str()),
            Verdict::Breaks(_) => said && shown.contains(part.as_str()),
        };
        if !right {
            wrong.push(format!("{part:?}: in the evidence {said}, in a warning {warned}"));
        }
    }
    if breaks && !(shown.contains("capture (NOT restorable)") && shown.contains("NOT held")) {
        wrong.push(format!("show does not tell: {shown}"));
    }
    wrong
}

fn each_kind(place: &Place, by: By) {
    let Some((done, _)) = place.window(None) else {
        return skip("no process can be halted at the opening of a file here");
    };
    let trees = done.expect(0);
    let expected = if by == By::Events { "file system events" } else { "second scan" };
    for one in trees.evidence("tree-unchanged") {
        assert!(one["detail"].as_str().unwrap().starts_with(expected), "{one}");
    }
    let (mut noticed, mut wrong) = (0, Vec::new());
    for kind in ALL {
        match disturbed(place, kind, by) {
            None => skip(&format!("{}: not on this machine", kind.name)),
            Some(found) if found.is_empty() => {
                let told = !matches!(kind.verdict(by), Verdict::Harmless | Verdict::Untold);
                noticed += usize::from(told);
            }
            Some(found) => wrong.extend(found),
        }
    }
    assert!(wrong.is_empty(), "{by:?}:\n{}", wrong.join("\n"));
    eprintln!("{by:?}: {noticed} kinds of disturbance, each noticed and named");
    assert!(noticed >= LEAST, "{noticed}");
    place.site.is_in_order();
    // And it was none of them that is left over.
    place.window(None).unwrap().0.expect(0);
}

#[test]
fn each_kind_is_noticed_by_events() {
    if let Some(place) = Place::by_events() {
        each_kind(&place, By::Events);
    }
}

#[test]
fn each_kind_is_noticed_by_a_second_scan() {
    if let Some(place) = Place::by_scan() {
        each_kind(&place, By::Scan);
    }
}

#[test]
fn undisturbed_windows_all_give_a_snapshot() {
    let windows = if std::env::var_os("CABK_LONG").is_some() { 10 * QUIET } else { QUIET };
    for place in [Place::by_events(), Place::by_scan()].into_iter().flatten() {
        place.site.remove("svc/after-stop");
        for number in 0..windows {
            let done = place.site.snapshot(&["--wait-quiet", "100ms"]);
            assert_eq!(done.code, 0, "window {number}: {}", done.said());
            assert_eq!(done.json["kind"], "snapshot");
        }
        eprintln!("{windows} windows of {windows} gave a snapshot");
        place.site.is_in_order();
    }
}

/// A reader that copies bundles as they come, as `rsync` would, all the time. Where events tell of
/// changes it costs no snapshot; where only a second scan does it may, until it pauses by itself.
#[test]
fn windows_beside_a_live_reader_give_a_snapshot() {
    let windows = if std::env::var_os("CABK_LONG").is_some() { 50 } else { 5 };
    let Some(place) = Place::by_events() else { return };
    let site = &place.site;
    site.remove("svc/after-stop");
    site.put("copied/begun", "");
    let path = |name: &str| site.path(name).display().to_string();
    let (from, to) = (path("data/bundles"), path("copied"));
    let script = format!("cd {from} && while [ -d {to} ]; do cp -ru . {to}/; done");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).stdin(std::process::Stdio::null());
    let _reader = world::Guarded(command.spawn().unwrap());
    world::until(60, "the reader", || site.path("copied/1/11.tar.gz").exists());
    for number in 0..windows {
        site.put(&format!("data/bundles/2/{number}.tar.gz"), &format!("bundle {number}"));
        let done = site.snapshot(&["--wait-quiet", "100ms"]);
        assert_eq!(done.code, 0, "window {number}: {}", done.said());
        assert_eq!(done.json["kind"], "snapshot");
        // It stands in the directory all the time.
        assert!(done.stderr.contains("only reading"), "{}", done.stderr);
    }
    let last = format!("copied/2/{}.tar.gz", windows - 1);
    world::until(60, "the last bundle", || site.path(&last).exists());
    eprintln!("{windows} windows of {windows} beside a reader gave a snapshot");
    site.is_in_order();
}
