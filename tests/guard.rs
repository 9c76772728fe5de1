//! cabk is killed, or stands still, at each step of a window: the service runs again by itself.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

#[path = "common/site.rs"]
mod site;
#[path = "common/world.rs"]
mod world;

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use site::Site;
use world::{Guarded, until};

/// Time within which a service runs again, with room for a machine that is busy.
const SOON: Duration = Duration::from_secs(2);

fn factor() -> u32 {
    std::env::var("CABK_BUDGET_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// A step of the window at which cabk can be held.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// It asks whether the service runs; nothing is on disk yet.
    Asking,
    /// The command that stops is under way.
    Stopping,
    /// The service is stopped; it is asked whether it is.
    Stopped,
    /// Processes have time to leave the tree.
    Quiet,
    /// The sources are read.
    Reading,
    /// The command that starts is under way.
    Starting,
}

const STEPS: [Step; 6] =
    [Step::Asking, Step::Stopping, Step::Stopped, Step::Quiet, Step::Reading, Step::Starting];

/// A site whose window is held at a step, and the process in it.
struct Held {
    site: Site,
    child: Guarded,
    step: Step,
    pid: String,
}

impl Held {
    fn at(step: Step, more: &[&str]) -> Self {
        let site = Site::new();
        let pid = std::fs::read_to_string(site.path("svc/pid")).unwrap();
        let mut args = more.to_vec();
        match step {
            Step::Asking => site.put("svc/hold-status", ""),
            Step::Stopping => site.put("svc/hold-stop", ""),
            // The status is held once the stop is done.
            Step::Stopped => site.put("svc/after-stop", "touch \"$1/svc/hold-status\"\n"),
            Step::Quiet => {
                // A reader that stays for longer than the test.
                site.put("svc/after-stop", "(cd \"$1/data/apps\" && exec 3>>late && exec sleep 60) \
                                            </dev/null >/dev/null 2>&1 & echo $! >\"$1/svc/late\"\n");
                args.extend(["--wait-quiet", "60s"]);
            }
            Step::Reading => many_files(&site),
            Step::Starting => site.put("svc/hold-start", ""),
        }
        let mut command = site.command(&args);
        command.process_group(0);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let child = Guarded(command.spawn().unwrap());
        let held = Self { site, child, step, pid };
        held.wait();
        held
    }

    fn wait(&self) {
        let site = &self.site;
        let there = |name: &str| site.path(name).exists();
        let called = |what: &str| site.calls().iter().skip(1).any(|call| call.starts_with(what));
        until(30, "the step", || match self.step {
            Step::Asking => there("svc/asked"),
            Step::Stopping => called("stop"),
            Step::Stopped => there("svc/asked"),
            Step::Quiet => there("svc/late"),
            Step::Reading => !there("svc/pid") && self.reads(),
            Step::Starting => called("start"),
        });
        if self.step == Step::Reading {
            self.signal(Signal::STOP);
        }
    }

    fn reads(&self) -> bool {
        let many = self.site.path("data/apps/9");
        let Ok(fds) = std::fs::read_dir(format!("/proc/{}/fd", self.child.0.id())) else {
            return false;
        };
        fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|p| p.starts_with(&many)))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).unwrap();
    }

    /// What was held goes on.
    fn release(&self) {
        for name in ["hold-status", "hold-stop", "hold-start", "after-stop"] {
            let _ = std::fs::remove_file(self.site.path("svc").join(name));
        }
        if let Ok(late) = std::fs::read_to_string(self.site.path("svc/late")) {
            let order = format!("kill {}", late.trim());
            std::process::Command::new("sh").args(["-c", &order]).status().unwrap();
        }
    }

    /// The service runs again, once, and nothing is left of the window.
    #[track_caller]
    fn is_as_before(&self, since: Instant) {
        let site = &self.site;
        until(30, "the recovery", || !site.world.has_intent() && site.runs());
        let took = since.elapsed();
        assert!(took < SOON * factor(), "{:?}: it took {took:?}", self.step);
        eprintln!("{:?}: it runs after {took:?}", self.step);
        let starts = site.calls().iter().skip(1).filter(|call| call.starts_with("start")).count();
        let stops = site.calls().iter().filter(|call| *call == "stop").count();
        assert_eq!(starts, stops, "{:?}: {:?}", self.step, site.calls());
        if self.step == Step::Asking {
            assert_eq!(std::fs::read_to_string(site.path("svc/pid")).unwrap(), self.pid);
        } else {
            assert!(site.calls().contains(&format!("start {} local up", Site::label())));
        }
    }
}

fn many_files(site: &Site) {
    for n in 0..1500 {
        site.put(&format!("data/apps/9/{:02}/{n}", n % 40), &format!("{n} ").repeat(2000));
    }
}

#[test]
fn a_kill_at_each_step_brings_the_service_back() {
    for step in STEPS {
        let mut held = Held::at(step, &["--precopy", "never"]);
        let since = Instant::now();
        held.signal(Signal::KILL);
        held.release();
        held.child.0.wait().unwrap();
        held.is_as_before(since);
        held.site.snapshot(&[]).expect(0);
        held.site.is_in_order();
    }
}

#[test]
fn a_kill_of_the_whole_process_group_does_too() {
    for step in [Step::Stopping, Step::Reading] {
        let mut held = Held::at(step, &["--precopy", "never"]);
        let since = Instant::now();
        kill_process_group(Pid::from_child(&held.child.0), Signal::KILL).unwrap();
        held.release();
        held.child.0.wait().unwrap();
        held.is_as_before(since);
    }
}

#[test]
fn a_run_that_stands_still_is_overtaken_at_the_longest_downtime() {
    let mut held = Held::at(Step::Reading, &["--precopy", "never", "--max-downtime", "2s"]);
    let since = Instant::now();
    // It is held by a signal, as by a disk that does not answer.
    until(60, "the service", || held.site.path("svc/pid").exists() && held.site.runs());
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5) + SOON * factor(), "{took:?}");
    assert!(held.site.world.has_intent(), "its owner lives");
    let now = std::fs::read_to_string(held.site.path("svc/pid")).unwrap();
    held.signal(Signal::CONT);
    let status = held.child.0.wait().unwrap();
    assert_eq!(status.code(), Some(4), "a capture");
    held.site.is_in_order();
    let pid = std::fs::read_to_string(held.site.path("svc/pid")).unwrap();
    assert_eq!(pid, now, "it was not started twice");
    let inside = held.site.world.look();
    let (_, _, body) = &inside.records[0];
    let stopped = body.evidence.iter().find(|one| one.check == "service-stopped").unwrap();
    assert!(!stopped.held && stopped.detail.contains("it runs"), "{stopped:?}");
}

#[test]
fn what_was_stopped_before_stays_stopped_and_no_guard_is_left() {
    let site = Site::new();
    site.script("stop");
    site.snapshot(&[]).expect(22);
    assert!(!site.runs() && !site.world.has_intent());
    site.script("start");
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    until(10, "the guards to end", || guards(&site).is_empty());
}

/// The processes that watch over windows of this site.
fn guards(site: &Site) -> Vec<String> {
    let state = site.path("state").display().to_string();
    let mut found = Vec::new();
    for name in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(name.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("window guard") && line.contains(&state) {
            found.push(name.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn a_guard_holds_nothing_of_the_run_and_knows_no_secret() {
    let held = Held::at(Step::Stopping, &[]);
    let found = guards(&held.site);
    assert_eq!(found.len(), 1, "the helper is gone");
    let proc = std::path::Path::new("/proc").join(&found[0]);
    let environment = std::fs::read(proc.join("environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("PATH=") && !environment.contains("CABK_PASSWORD="));
    let mut open = Vec::new();
    for fd in std::fs::read_dir(proc.join("fd")).unwrap().flatten() {
        open.push(std::fs::read_link(fd.path()).unwrap().display().to_string());
    }
    let beside = |path: &String| !path.starts_with("pipe:") && path != "/dev/null";
    assert!(!open.iter().any(beside), "{open:?}");
    assert_eq!(std::fs::read_link(proc.join("cwd")).unwrap(), std::path::Path::new("/"));
    let group = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest = stat.rsplit_once(')').unwrap().1.to_owned();
        let fields: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
        (fields[2].clone(), fields[3].clone())
    };
    let (own, theirs) = (group(&found[0]), group(&held.child.0.id().to_string()));
    assert!(own.0 != theirs.0 && own.1 != theirs.1, "a group and a session of its own");
    held.release();
}

#[test]
fn what_is_installed_goes_below_a_root_and_without_systemd_nowhere() {
    let world = world::World::new();
    let root = world.path("root");
    let with = |verb: &str| {
        let root = root.display().to_string();
        world.run(&["window", verb, "--json", "--unit", "a.service", "--root", &root])
    };
    let done = with("install").expect(0);
    assert_eq!(done.json["changed"], true);
    let drop_in = root.join("etc/systemd/system/a.service.d/50-cabk-hold.conf");
    let text = std::fs::read_to_string(&drop_in).unwrap();
    assert!(text.contains("ConditionPathExists=!/run/cabk/hold-a.service"), "{text}");
    let unit = std::fs::read_to_string(root.join("etc/systemd/system/cabk-window-recover.service"));
    let unit = unit.unwrap();
    assert!(unit.contains(&format!("CABK_STATE_DIR={}", world.path("state").display())), "{unit}");
    assert_eq!(with("install").expect(0).json["changed"], false);
    assert_eq!(with("uninstall").expect(0).json["changed"], true);
    assert!(!drop_in.exists());
    assert_eq!(with("uninstall").expect(0).json["changed"], false);
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        let refused = world.run(&["window", "install", "--json"]).expect(22);
        assert!(refused.error()["error"]["message"].as_str().unwrap().contains("systemd"));
    }
}

#[test]
fn a_run_of_another_site_recovers_and_a_bad_time_is_refused() {
    // The same service, under a label that nobody uses any more.
    let mut held = Held::at(Step::Stopping, &[]);
    let guard = guards(&held.site);
    let pid = guard[0].parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    held.signal(Signal::KILL);
    held.release();
    held.child.0.wait().unwrap();
    let site = &held.site;
    until(20, "the stop to end", || !site.runs());
    assert!(site.world.has_intent(), "no guard was left to act");
    let mut command = site.world.cabk();
    command.args(["snapshot", "--json", "--site-name", "other", "--allow-volatile-state"]);
    let done = world::Done::of(&command.args(site.args(&[])).output().unwrap()).expect(0);
    assert!(done.stderr.contains("had left"), "{}", done.stderr);
    site.is_in_order();

    site.world.configure("[service]\nstop_timeout = \"100ms\"\n");
    let refused = site.snapshot(&[]).expect(2);
    assert!(refused.stderr.contains("stop_timeout"), "{}", refused.stderr);
}
