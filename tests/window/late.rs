//! The longest downtime is over while the sources are read.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::site::Site;
use crate::world::{Done, Guarded, World, until};

const FILES: usize = 2_000;

/// Whether a process has something below a directory open.
fn reads_below(pid: u32, dir: &Path) -> bool {
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(dir)))
}

#[test]
fn a_reading_that_takes_too_long_is_given_up_and_the_service_runs() {
    let site = Site::of(World::in_memory());
    let many = site.path("data/apps/9");
    for n in 0..FILES {
        site.put(&format!("data/apps/9/{:02}/{n}", n % 40), &format!("{n} ").repeat(500));
    }
    let before = std::fs::read_to_string(site.path("svc/pid")).unwrap();
    let args = ["--max-downtime", "2s", "--precopy", "never"];
    // The problems are more than a pipe holds.
    let file = |name: &str| std::fs::File::create(site.path(name)).unwrap();
    let mut command = site.command(&args);
    command.stdout(file("stdout")).stderr(file("stderr"));
    let mut child = Guarded(command.spawn().unwrap());
    let (id, pid) = (child.0.id(), Pid::from_child(&child.0));
    until(30, "the stop", || !site.path("svc/pid").exists());
    // It is held while it reads, as by a disk that does not answer, until it is late.
    let mut held = false;
    until(30, "the reading", || {
        held = reads_below(id, &many);
        if held {
            kill_process(pid, Signal::STOP).unwrap();
        }
        held || site.path("svc/pid").exists()
    });
    std::thread::sleep(Duration::from_millis(2_050));
    kill_process(pid, Signal::CONT).unwrap();
    until(5, "the service to run again", || site.path("svc/pid").exists());
    let mut status = None;
    until(60, "the end", || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    });
    let said = |name: &str| std::fs::read(site.path(name)).unwrap();
    let (stdout, stderr) = (said("stdout"), said("stderr"));
    let done = Done::of(&Output { status: status.unwrap(), stdout, stderr }).expect(4);
    assert!(held, "it was never seen reading: {}", done.said());
    assert_eq!((&done.json["kind"], &done.json["restorable"]), (&"capture".into(), &false.into()));
    let downtime = done.json["window"]["downtime_ms"].as_u64().unwrap();
    assert!((2_000..7_000).contains(&downtime), "{downtime} ms");
    assert_eq!(done.json["window"]["nodes"][0]["runs_after"], true);
    the_reason_is_told(&site, &done, &many);
    assert_ne!(std::fs::read_to_string(site.path("svc/pid")).unwrap(), before);
    site.is_in_order();
    // With time enough the next one is a snapshot.
    let next = site.snapshot(&[]).expect(0);
    assert_eq!(next.json["kind"], "snapshot");
    site.is_in_order();
}

fn the_reason_is_told(site: &Site, done: &Done, many: &Path) {
    let over = "the time that the service may be stopped is over";
    let read = done.evidence("all-sources-read");
    let broken: Vec<_> = read.iter().filter(|one| one["held"] == false).collect();
    assert!(broken.iter().any(|one| one["detail"].to_string().contains(over)), "{read:?}");
    let stopped = done.evidence("service-stopped")[0];
    assert_eq!(stopped["held"], false, "{stopped}");
    let due = "it was due to run again after the longest downtime of 2.00 s";
    assert_eq!(stopped["detail"], due);
    let processes = done.evidence("no-process-in-tree")[0];
    assert_eq!(processes["held"], true, "{processes}");
    let problems = done.json["problems"].as_array().unwrap();
    let late = problems.iter().filter(|one| {
        let path = Path::new(one["path"].as_str().unwrap());
        path.starts_with(many) && one["error"].as_str().unwrap().contains(over)
    });
    assert!(late.count() > 0, "{problems:?}");
    let shown = site.world.run(&["show", done.id()]).expect(0);
    assert!(shown.stdout.contains(over) && shown.stdout.contains("NOT held"), "{}", shown.stdout);
}
