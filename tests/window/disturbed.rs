//! What moves while the site is read makes a capture, and is named.

use std::process::{Command, Stdio};

use crate::site::Site;
use crate::world::{Guarded, until};

/// A process that has a file of the site open for writing.
fn holder(site: &Site, name: &str) -> Guarded {
    let script = format!("exec 3>>{}; echo ready; exec sleep 60", site.path(name).display());
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    Guarded(child)
}

#[test]
fn a_process_with_a_file_open_for_writing_breaks_the_proof() {
    let site = Site::new();
    let holder = holder(&site, "data/apps/1/11/app.R");
    let done = site.snapshot(&["--wait-quiet", "200ms"]).expect(4);
    assert_eq!((&done.json["kind"], &done.json["restorable"]), (&"capture".into(), &false.into()));
    let seen = done.evidence("no-process-in-tree")[0];
    let detail = seen["detail"].as_str().unwrap();
    assert_eq!(seen["held"], false);
    for part in [&format!("process {} (", holder.0.id()), "sleep 60", "app.R", "for writing"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let broken: Vec<_> =
        done.json["evidence"].as_array().unwrap().iter().filter(|e| e["held"] == false).collect();
    assert_eq!(broken.len(), 1, "nothing else moved: {broken:?}");
    site.is_in_order();
    drop(holder);
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    let both = site.world.run(&["snapshots", "--json"]).expect(0);
    let count = |kind: &str| both.json[kind].as_array().unwrap().len();
    assert_eq!((count("snapshots"), count("captures")), (1, 1));
}

#[test]
fn a_process_that_leaves_in_time_breaks_nothing() {
    let site = Site::new();
    let file = site.path("data/apps/1/11/late");
    // A rendering that outlives the stop for a moment.
    let script = format!("(exec 3>>{0}; sleep 1) </dev/null >/dev/null 2>&1 &", file.display());
    site.put("svc/after-stop", &script);
    let done = site.snapshot(&["--wait-quiet", "30s"]).expect(0);
    assert!(done.json["window"]["downtime_ms"].as_u64().unwrap() > 800);
    site.is_in_order();
}

#[test]
fn a_process_that_comes_after_the_stop_is_named() {
    let site = Site::new();
    let script = format!(
        "(exec 3>>{0}; exec sleep 47) </dev/null >/dev/null 2>&1 &\necho $! >{1}\n\
         until [ -e /proc/$!/fd/3 ]; do sleep 0.01; done\n",
        site.path("data/db/connect.db").display(),
        site.path("svc/intruder").display(),
    );
    site.put("svc/after-stop", &script);
    let done = site.snapshot(&["--wait-quiet", "200ms"]);
    let pid = std::fs::read_to_string(site.path("svc/intruder")).unwrap();
    Command::new("sh").args(["-c", &format!("kill {}", pid.trim())]).status().unwrap();
    let done = done.expect(4);
    let detail = done.evidence("no-process-in-tree")[0]["detail"].as_str().unwrap().to_owned();
    for part in [&format!("process {} (", pid.trim()), "sleep 47", "connect.db"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    site.is_in_order();
}

#[test]
fn a_file_that_changes_in_the_window_is_named() {
    let site = Site::new();
    let file = site.path("data/apps/1/11/touched");
    // Each write opens and closes the file: no process is ever seen with it, or hardly.
    let script = format!(
        "touch {1}\n(while [ -e {1} ]; do echo x >>{0}; done) </dev/null >/dev/null 2>&1 &\n",
        file.display(),
        site.path("svc/busy").display(),
    );
    site.put("svc/after-stop", &script);
    // Enough to read that the writer has its turn meanwhile.
    site.put("data/apps/1/11/large", &"0123456789abcdef".repeat(1 << 20));
    let done = site.snapshot(&["--wait-quiet", "100ms", "--precopy", "never"]).expect(4);
    assert!(!site.path("svc/busy").exists(), "the start came after the reading");
    let trees = done.evidence("tree-unchanged");
    let broken: Vec<_> = trees.iter().filter(|e| e["held"] == false).collect();
    assert_eq!(broken.len(), 1, "{trees:?}");
    let detail = broken[0]["detail"].as_str().unwrap();
    assert!(detail.contains(file.to_str().unwrap()), "{detail}");
    let readable = site.world.run(&["show", done.id()]).expect(0);
    assert!(readable.stdout.contains("capture"), "{}", readable.stdout);
    site.is_in_order();
}

#[test]
fn a_database_that_is_locked_is_not_settled() {
    let site = Site::new();
    let db = rusqlite::Connection::open(site.path("data/db/connect.db")).unwrap();
    db.execute_batch("begin immediate; insert into t values (1000, 'half')").unwrap();
    let done = site.snapshot(&["--wait-quiet", "100ms"]).expect(4);
    let settled = done.evidence("sqlite-settled")[0];
    assert_eq!(settled["held"], false, "{settled}");
    let own = format!("process {} holds a write lock", std::process::id());
    assert!(settled["detail"].as_str().unwrap().contains(&own), "{settled}");
    drop(db);
    site.is_in_order();
}

#[test]
fn past_the_longest_downtime_the_service_runs_and_the_run_is_a_capture() {
    let site = Site::new();
    site.put("svc/hold-stop", "");
    let child = site.command(&["--max-downtime", "1s", "--allow-capture"]).spawn().unwrap();
    until(20, "the stop", || site.calls().iter().any(|c| c == "stop"));
    // The stop itself has no more time than that: then it has failed, and nothing is kept.
    let done = crate::world::Done::of(&child.wait_with_output().unwrap());
    site.remove("svc/hold-stop");
    assert_eq!(done.code, 1, "{}", done.said());
    site.is_in_order();
}
