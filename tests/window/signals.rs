//! SIGINT and SIGTERM leave the repository and the service in order.

use rustix::process::{Pid, Signal, kill_process};

use crate::site::Site;
use crate::world::{Done, until};

fn signal(child: &std::process::Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[track_caller]
fn interrupted(site: &Site, done: Done) {
    let done = done.expect(130);
    assert_eq!(done.error()["error"]["code"], "interrupted");
    assert!(done.stdout.is_empty(), "{}", done.stdout);
    site.is_in_order();
    assert!(site.world.look().records.is_empty());
    site.world.run(&["check", "--read-data"]).expect(0);
    site.snapshot(&[]).expect(0);
    site.is_in_order();
}

/// The signals that end a run, as far as they reach a child of this process.
fn both() -> Vec<Signal> {
    if crate::common::ignores_interrupts() {
        crate::common::skip("SIGINT is ignored in the background of a script: SIGTERM only");
        return vec![Signal::TERM];
    }
    vec![Signal::INT, Signal::TERM]
}

#[test]
fn before_the_stop() {
    for which in both() {
        let site = Site::new();
        site.put("svc/hold-status", "");
        let child = site.command(&[]).spawn().unwrap();
        until(20, "the question for the status", || site.path("svc/asked").exists());
        signal(&child, which);
        std::fs::remove_file(site.path("svc/hold-status")).unwrap();
        let done = Done::of(&child.wait_with_output().unwrap());
        assert_eq!(site.calls().len(), 1, "nothing was stopped: {:?}", site.calls());
        interrupted(&site, done);
    }
}

#[test]
fn while_the_service_stops() {
    for which in both() {
        let site = Site::new();
        site.put("svc/hold-stop", "");
        let child = site.command(&[]).spawn().unwrap();
        until(20, "the stop", || site.calls().iter().any(|c| c == "stop"));
        assert!(site.world.has_intent());
        signal(&child, which);
        std::fs::remove_file(site.path("svc/hold-stop")).unwrap();
        let done = Done::of(&child.wait_with_output().unwrap());
        interrupted(&site, done);
    }
}

#[test]
fn while_processes_leave_the_tree() {
    let site = Site::new();
    let script = format!(
        "(exec 3>>{}; exec sleep 20) </dev/null >/dev/null 2>&1 &\necho $! >{}\n",
        site.path("data/apps/1/11/late").display(),
        site.path("svc/late").display(),
    );
    site.put("svc/after-stop", &script);
    let child = site.command(&["--wait-quiet", "60s"]).spawn().unwrap();
    until(20, "the service to be down", || site.path("svc/late").exists() && !site.runs());
    signal(&child, Signal::TERM);
    let done = Done::of(&child.wait_with_output().unwrap());
    let late = std::fs::read_to_string(site.path("svc/late")).unwrap();
    let order = format!("kill {}", late.trim());
    std::process::Command::new("sh").args(["-c", &order]).status().unwrap();
    std::fs::remove_file(site.path("svc/after-stop")).unwrap();
    interrupted(&site, done);
}
