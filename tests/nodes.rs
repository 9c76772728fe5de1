//! Services on several nodes, each a real `sshd` in namespaces of its own with a toy in the place of
//! systemd's unit.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

mod common;
#[path = "nodes/afar.rs"]
mod afar;
#[path = "nodes/cluster.rs"]
mod cluster;
#[path = "disturbances/gate.rs"]
mod gate;
#[path = "nodes/network.rs"]
mod network;
#[path = "nodes/steps.rs"]
mod steps;
#[path = "common/world.rs"]
mod world;

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use cluster::Cluster;
use common::skip;
use serde_json::Value;
use world::{Done, until};

/// A cluster whose three nodes run, or the reason why there is none.
fn cluster() -> Option<Cluster> {
    match Cluster::new(3) {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            skip(&why);
            None
        }
    }
}

fn of_node<'a>(done: &'a Done, check: &str, node: &str) -> &'a Value {
    let all = done.evidence(check);
    let mut those = all.into_iter().filter(|one| one["node"] == node);
    let found = those.next().unwrap_or_else(|| panic!("no {check} of {node}: {}", done.stdout));
    assert!(those.next().is_none(), "{check} of {node} stands there twice");
    found
}

#[test]
fn three_nodes_are_stopped_proven_and_started() {
    let Some(cluster) = cluster() else { return };
    let before: Vec<String> = (0..3).map(|n| cluster.pid(n)).collect();
    let done = cluster.snapshot(&[]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    let nodes = done.json["window"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    for n in 0..3 {
        let node = cluster.address(n);
        assert_eq!(
            (&nodes[n]["node"], &nodes[n]["runs_after"]),
            (&node.clone().into(), &true.into())
        );
        let stopped = of_node(&done, "service-stopped", &node);
        assert_eq!((&stopped["held"], &stopped["how"]), (&true.into(), &"observed".into()));
        let detail = stopped["detail"].as_str().unwrap();
        assert!(detail.contains("control group is empty"), "{detail}");
        assert!(detail.contains("its clock is ") && detail.contains("give or take"), "{detail}");
        let processes = of_node(&done, "no-process-in-tree", &node);
        assert_eq!(processes["held"], true, "{processes}");
        // These nodes are in pid namespaces of their own, and no more than that can be seen.
        assert_eq!(
            (&processes["how"], &processes["scope"]),
            (&"asserted".into(), &"pid namespace".into())
        );
        let started = of_node(&done, "service-started", &node);
        assert_eq!(started["held"], true);
        assert_eq!(cluster.calls(n), ["stop", "start"]);
        assert_ne!(cluster.pid(n), before[n], "another process");
        assert_eq!(cluster.timers(n), (1, 0), "armed before the stop, cancelled after the start");
    }
    assert!(!cluster.world.has_intent());
    let inside = cluster.world.look();
    inside.read_all();
    // Each node's own configuration is kept below its name, and lies nowhere after the run.
    let sources = done.json["sources"].as_array().unwrap();
    let kept: Vec<&str> = sources
        .iter()
        .filter(|source| source["role"] == "node-config")
        .map(|source| source["path"].as_str().unwrap())
        .collect();
    assert_eq!(kept.len(), 3, "{sources:?}");
    let tree = inside.tree(done.id());
    let gcfg = cluster.world.path("connect.gcfg");
    for (n, path) in kept.into_iter().enumerate() {
        assert!(cluster.address(n).ends_with(path.rsplit('/').next().unwrap()), "{path}");
        let there = [path.as_bytes(), &world::bytes(&gcfg)].concat();
        assert!(inside.bytes(&tree[&there]) == std::fs::read(&gcfg).unwrap(), "{path}");
        assert!(!std::path::Path::new(path).exists(), "{path}");
    }
}

#[test]
fn a_node_that_cannot_be_reached_stops_nobody() {
    let Some(mut cluster) = cluster() else { return };
    let gone = cluster.address(2);
    let refused = |cluster: &Cluster| {
        let began = Instant::now();
        let done = cluster.snapshot(&[]).expect(22);
        let said = done.error().to_string();
        assert!(said.contains(&gone), "{said}");
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
        for n in 0..2 {
            assert_eq!(cluster.calls(n), [""; 0], "nothing was asked of it");
        }
        said
    };
    // Its link is down: nothing answers at all.
    cluster.cut(2);
    let said = refused(&cluster);
    assert!(said.contains("No route to host") || said.contains("timed out"), "{said}");
    cluster.end(2);
    refused(&cluster);
    assert!(!cluster.world.has_intent() && cluster.world.look().records.is_empty());
}

#[test]
fn a_node_that_hangs_in_its_stop_ends_the_run_for_all() {
    let Some(cluster) = cluster() else { return };
    cluster.configure("[service]\nstop_timeout = \"2s\"\n");
    cluster.put(1, "hang");
    let began = Instant::now();
    let done = cluster.snapshot(&[]).expect(1);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    let said = done.error().to_string();
    assert!(
        said.contains(&cluster.address(1)) && said.contains("did not stop within 2000 ms"),
        "{said}"
    );
    assert!(said.contains("runs again"), "{said}");
    for n in 0..3 {
        assert!(cluster.runs(n), "{n}");
    }
    assert_eq!(cluster.calls(0), ["stop", "start"]);
    assert!(!cluster.world.has_intent() && cluster.world.look().records.is_empty());
}

#[test]
fn a_node_that_was_down_is_recorded_and_left_alone() {
    let Some(cluster) = cluster() else { return };
    cluster.by_hand(1, "systemctl stop toy.service");
    cluster.forget_calls(1);
    let done = cluster.snapshot(&[]).expect(0);
    let node = &done.json["window"]["nodes"][1];
    assert_eq!((&node["ran_before"], &node["runs_after"]), (&false.into(), &Value::Null));
    assert_eq!(cluster.calls(1), [""; 0]);
    assert!(cluster.runs(0) && !cluster.runs(1) && cluster.runs(2));
    for n in [0, 2] {
        cluster.by_hand(n, "systemctl stop toy.service");
    }
    let done = cluster.snapshot(&[]).expect(22);
    assert!(done.stderr.contains("--already-stopped"), "{}", done.stderr);
}

#[test]
fn a_process_on_another_node_is_named() {
    let Some(cluster) = cluster() else { return };
    let file = cluster.world.path("data/apps/1/app.R");
    let script =
        format!("setsid sh -c 'exec 3>>{}; exec sleep 777' >/dev/null 2>&1 &", file.display());
    cluster.by_hand(1, &script);
    let pid = || {
        cluster.by_hand(1, "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q '^sleep 777' && echo ${p#/proc/}; done; :")
    };
    until(10, "the stranger", || !pid().is_empty());
    let pid = pid();
    let refused = cluster.snapshot(&[]).expect(22);
    let parts =
        [format!("process {pid} "), "sleep 777".into(), "app.R".into(), "open for writing".into()];
    for part in &parts {
        assert!(refused.stderr.contains(part.as_str()), "{part}: {}", refused.stderr);
    }
    assert!(refused.stderr.contains(&cluster.address(1)), "{}", refused.stderr);
    assert_eq!(cluster.calls(0), [""; 0], "nothing was stopped");

    let done = cluster.snapshot(&["--allow-capture"]).expect(4);
    assert_eq!((&done.json["kind"], &done.json["restorable"]), (&"capture".into(), &false.into()));
    let seen = of_node(&done, "no-process-in-tree", &cluster.address(1));
    assert_eq!((&seen["held"], &seen["how"]), (&false.into(), &"observed".into()));
    for part in &parts {
        assert!(seen["detail"].as_str().unwrap().contains(part.as_str()), "{part}: {seen}");
    }
    assert_eq!(of_node(&done, "no-process-in-tree", &cluster.address(0))["held"], true);
    assert!((0..3).all(|n| cluster.runs(n)));
}

#[test]
fn after_a_kill_in_the_window_recover_starts_all() {
    let Some(cluster) = cluster() else { return };
    let mut child = cluster.command(&[]).spawn().unwrap();
    until(60, "the stop of all", || (0..3).all(|n| !cluster.runs(n)));
    assert!(cluster.world.has_intent());
    // The namespace's first process, and with it all that is in the namespace.
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!((0..3).all(|n| !cluster.runs(n)));
    let recover = || {
        let done = cluster.cabk(&["window", "recover", "--json"]).output().unwrap();
        Done::of(&done).expect(0)
    };
    let mut done = recover();
    // What is in a namespace dies a moment after what made it.
    until(10, "the owner to be gone", || {
        let open = done.json["open"] != Value::Array(vec![]);
        if open {
            done = recover();
        }
        !open
    });
    assert!((0..3).all(|n| cluster.runs(n)), "{}", done.stdout);
    assert!(!cluster.world.has_intent());
    Done::of(&cluster.cabk(&["window", "recover"]).output().unwrap()).expect(0);
    for n in 0..3 {
        assert_eq!(cluster.calls(n), ["stop", "start"]);
    }
    cluster.snapshot(&[]).expect(0);
}

#[test]
fn a_node_that_is_lost_in_the_window_is_30_and_the_others_run() {
    let Some(mut cluster) = cluster() else { return };
    let lost = cluster.address(2);
    let child = cluster.command(&[]).spawn().unwrap();
    until(60, "the stop of all", || (0..3).all(|n| !cluster.runs(n)));
    cluster.end(2);
    let done = Done::of(&child.wait_with_output().unwrap()).expect(30);
    assert!(cluster.runs(0) && cluster.runs(1) && !cluster.runs(2));
    let host = lost.rsplit('/').next().unwrap();
    let hint = format!("ssh {host} systemctl start toy.service");
    assert!(done.said().contains(&hint) && done.said().contains(&lost), "{}", done.said());
    assert!(cluster.world.has_intent(), "somebody has to start it");
    // It was lost before its stop was seen, or after: given up, or a capture.
    assert_ne!(done.json["kind"], "snapshot", "its stop could not be proven");
}

#[test]
fn this_machine_must_not_run_what_it_is_no_node_of() {
    let Some(cluster) = cluster() else { return };
    let running =
        "#!/bin/sh\nprintf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\n'\n";
    cluster.program("bin/systemctl", running);
    let done = cluster.snapshot(&[]).expect(22);
    assert!(done.stderr.contains("not among the nodes"), "{}", done.stderr);
    assert_eq!(cluster.calls(0), [""; 0]);
}
