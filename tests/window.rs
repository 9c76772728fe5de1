//! The window, from outside: a service that lives is stopped, the site is read, the service runs.

mod common;
#[path = "common/site.rs"]
mod site;
#[path = "common/world.rs"]
mod world;

#[path = "window/disturbed.rs"]
mod disturbed;
#[path = "window/late.rs"]
mod late;
#[path = "window/manners.rs"]
mod manners;
#[path = "window/refused.rs"]
mod refused;
#[path = "window/runtimes.rs"]
mod runtimes;
#[path = "window/signals.rs"]
mod signals;
#[path = "window/units.rs"]
mod units;

use std::collections::BTreeSet;

use cabk::format::manifest::RecordKind;
use site::Site;
use world::bytes;

#[test]
fn a_window_is_proven_and_the_service_runs_again() {
    let site = Site::new();
    let before = std::fs::read_to_string(site.path("svc/pid")).unwrap();
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    let evidence = done.json["evidence"].as_array().unwrap();
    let checks: BTreeSet<&str> = evidence.iter().map(|e| e["check"].as_str().unwrap()).collect();
    let expected = [
        "service-stopped",
        "no-process-in-tree",
        "sqlite-settled",
        "tree-unchanged",
        "all-sources-read",
        "service-started",
    ];
    assert_eq!(checks, BTreeSet::from(expected), "database clients have no subject here");
    assert!(evidence.iter().all(|e| e["held"] == true), "{evidence:?}");
    let observed = ["service-stopped", "service-started"];
    for check in observed {
        assert_eq!(done.evidence(check)[0]["how"], "observed");
    }
    let window = &done.json["window"];
    for name in ["stopped_at", "started_at", "downtime_ms", "nodes"] {
        assert!(window.as_object().unwrap().contains_key(name), "window.{name}");
    }
    let (stopped, started) = (window["stopped_at"].as_str(), window["started_at"].as_str());
    assert!(stopped.unwrap() < started.unwrap(), "{window}");
    assert!(window["downtime_ms"].as_u64().unwrap() > 0);
    let node = &window["nodes"][0];
    assert_eq!((&node["node"], &node["ran_before"]), (&"local".into(), &true.into()));
    assert_eq!(node["runs_after"], true);
    assert_ne!(std::fs::read_to_string(site.path("svc/pid")).unwrap(), before, "another process");
    // The start got what the status had printed before the stop.
    let calls = site.calls();
    assert_eq!(calls[1..], ["stop".to_owned(), format!("start {} local up", Site::label())]);
    let inside = site.world.look();
    let tree = inside.tree(done.id());
    for name in ["data/db/connect.db", "data/bundles/1/11.tar.gz", "etc/connect.gcfg"] {
        let kept = inside.bytes(&tree[&bytes(&site.path(name))]);
        assert!(kept == std::fs::read(site.path(name)).unwrap(), "{name}");
    }
    let log = inside.bytes(&tree[&bytes(&site.path("data/log"))]);
    assert!(std::fs::read(site.path("data/log")).unwrap().starts_with(&log));
    let kept = inside.body(done.id());
    assert!(kept.window.as_ref().unwrap().downtime_ms.is_some());
    site.is_in_order();
    let again = site.snapshot(&["--precopy", "never"]).expect(0);
    assert_eq!(again.json["parent"], done.json["id"]);
}

#[test]
fn a_start_that_fails_is_30_and_costs_no_snapshot() {
    let site = Site::new();
    site.put("svc/broken", "");
    let done = site.snapshot(&[]).expect(30);
    assert_eq!((&done.json["kind"], &done.json["restorable"]), (&"snapshot".into(), &true.into()));
    let started = done.evidence("service-started")[0];
    assert_eq!(started["held"], false);
    assert!(started["detail"].as_str().unwrap().contains("it does not start"), "{started}");
    let down = done.json["not_running"][0].as_str().unwrap();
    assert!(down.contains("is not running") && down.contains("window recover"), "{down}");
    assert!(done.json["window"]["started_at"].is_null());
    let inside = site.world.look();
    assert_eq!(inside.records.len(), 1);
    assert_eq!(inside.records[0].1, RecordKind::Snapshot);
    inside.read_all();
    assert!(!site.runs() && site.world.has_intent(), "somebody has to start it");
    // Somebody has to know of it by the code alone.
    let status = site.world.run(&["window", "status", "--json"]).expect(30);
    assert_eq!((&status.json["open"], &status.json["stale"]), (&true.into(), &true.into()));
    // As long as it does not start, that stays the result.
    site.world.run(&["window", "recover", "--json"]).expect(30);
    let refused = site.snapshot(&[]).expect(30);
    assert_eq!(refused.error()["error"]["code"], "service-down");
    assert_eq!(site.world.look().records.len(), 1, "no second window was opened");
    site.remove("svc/broken");
    site.world.run(&["window", "recover"]).expect(0);
    site.is_in_order();
    site.world.run(&["window", "recover"]).expect(0);
    assert_eq!(site.calls().iter().filter(|c| *c == "stop").count(), 1);
    site.snapshot(&[]).expect(0);
}

#[test]
fn a_stop_that_fails_leaves_the_service_running_and_commits_nothing() {
    let site = Site::new();
    let before = std::fs::read_to_string(site.path("svc/pid")).unwrap();
    site.put("svc/stuck", "");
    let done = site.snapshot(&[]).expect(1);
    let text = done.error().to_string();
    assert!(text.contains("it does not listen"), "{text}");
    assert!(done.stdout.is_empty());
    assert_eq!(std::fs::read_to_string(site.path("svc/pid")).unwrap(), before, "the same process");
    assert!(site.world.look().records.is_empty());
    site.is_in_order();
    site.remove("svc/stuck");
    site.snapshot(&[]).expect(0);
}

#[test]
fn by_wish_it_stays_stopped() {
    let site = Site::new();
    let done = site.snapshot(&["--leave-stopped"]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    assert!(done.stderr.contains("left stopped"), "{}", done.stderr);
    assert!(!site.runs() && !site.world.has_intent());
    assert!(done.json["window"]["started_at"].is_null());
    site.world.run(&["window", "recover"]).expect(0);
    assert!(!site.runs(), "that was wished for");
    // Now it is stopped already, and stays so.
    let done = site.snapshot(&["--already-stopped"]).expect(0);
    assert_eq!(done.evidence("service-stopped")[0]["how"], "observed");
    assert!(done.evidence("service-started").is_empty());
    assert!(!site.runs());
    assert_eq!(site.calls().len(), 2, "nothing was called: {:?}", site.calls());
}
