//! cabk is killed, or its whole machine stands still, at each step of a window of three nodes: all of
//! them run again by themselves.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::Cluster;
use crate::gate::{Gate, Halted};
use crate::world::{Done, Guarded, until};

/// Time within which all nodes run again after a kill, with room for a machine that is busy.
const SOON: Duration = Duration::from_secs(2);

/// The longest downtime of windows that stand still.
const DOWNTIME: Duration = Duration::from_secs(4);

/// Past the longest downtime.
const LATER: Duration = Duration::from_secs(5);

/// A step at which a window is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Nodes are asked for their units; nothing is on disk.
    Asking,
    /// One node after the other arms its timer.
    Arming,
    /// Two nodes are down, the third is in its stop.
    Stopping,
    /// All are down; one is asked whether it is.
    Stopped,
    /// The sources are read.
    Reading,
    /// Two nodes run again, the third is in its start.
    Starting,
}

const STEPS: [Step; 6] =
    [Step::Asking, Step::Arming, Step::Stopping, Step::Stopped, Step::Reading, Step::Starting];

/// The node that is slow.
const SLOW: usize = 1;

/// cabk on a machine of its own, held at a step.
struct Run<'a> {
    cluster: &'a Cluster,
    /// The first process of the machine's pid namespace; all in it ends with it.
    machine: Guarded,
    cabk: u32,
    step: Step,
    halted: Option<Halted>,
}

fn factor() -> u32 {
    std::env::var("CABK_BUDGET_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// The only child of a process, once it has one.
fn child_of(pid: u32) -> u32 {
    let mut child = None;
    until(20, "a child", || {
        let all = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        child = all.ok().and_then(|all| all.split_whitespace().next()?.parse().ok());
        child.is_some()
    });
    child.unwrap()
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // What ended meanwhile needs none.
    let _ = kill_process(pid, signal);
}

impl<'a> Run<'a> {
    fn held_at(cluster: &'a Cluster, step: Step, more: &[&str]) -> Self {
        for node in 0..3 {
            cluster.forget_calls(node);
        }
        let (hold, held) = match step {
            Step::Asking => ("hold-show", "held-show"),
            Step::Arming => ("hold-timer", "held-timer"),
            Step::Stopping => ("hold-stop", "held-stop"),
            Step::Stopped => ("after-stop", "held-show"),
            Step::Reading => ("", ""),
            Step::Starting => ("hold-start", "held-start"),
        };
        let gate = (step == Step::Reading).then(|| {
            Gate::at(&cluster.world.path("data/apps/1/app.R")).expect("root may hold a file")
        });
        if !hold.is_empty() {
            cluster.put(SLOW, hold);
        }
        let inner = cluster.command(&[&["--precopy", "never"], more].concat());
        // A machine has a first process that is not cabk, and goes on when cabk ends.
        let words: Vec<_> = inner.get_args().map(ToOwned::to_owned).collect();
        let program = inner.get_args().position(|word| word == env!("CARGO_BIN_EXE_cabk")).unwrap();
        let mut command = Command::new(inner.get_program());
        command.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.args(&words[..program]).args(["sh", "-c", "\"$@\" & wait; exec sleep 10000", "sh"]);
        command.args(&words[program..]).stdin(Stdio::null());
        let said = std::fs::File::create(cluster.world.path("said")).unwrap();
        command.stdout(said.try_clone().unwrap()).stderr(said);
        let machine = Guarded(command.spawn().unwrap());
        let mut run = Self { cluster, machine, cabk: 0, step, halted: None };
        // `nsenter` is replaced by `unshare`, whose child is the machine's first process.
        run.cabk = child_of(child_of(run.machine.0.id()));
        run.halted = gate.map(|gate| gate.halt(run.cabk));
        if !held.is_empty() {
            until(60, &format!("{step:?}: {}", run.said()), || cluster.has(SLOW, held));
        }
        match step {
            Step::Stopping => until(30, "the others to be down", || run.running() == [SLOW]),
            Step::Starting => until(30, "the others to run", || run.running() == [0, 2]),
            Step::Stopped | Step::Reading => assert_eq!(run.running(), [0; 0], "{step:?}"),
            Step::Asking | Step::Arming => assert_eq!(run.running(), [0, 1, 2], "{step:?}"),
        }
        run
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.cluster.world.path("said")).unwrap()
    }

    fn running(&self) -> Vec<usize> {
        (0..3).filter(|&node| self.cluster.runs(node)).collect()
    }

    /// The nodes go on with what they were held in.
    fn release(&self) {
        for name in ["after-stop", "hold-show", "hold-timer", "hold-stop", "hold-start"] {
            self.cluster.remove(SLOW, name);
        }
        for name in ["held-show", "held-timer", "held-stop", "held-start"] {
            self.cluster.remove(SLOW, name);
        }
    }

    /// All processes of the machine.
    fn all(&self) -> Vec<u32> {
        let own = std::fs::read_link(format!("/proc/{}/ns/pid", self.cabk)).unwrap();
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|one| one.file_name().to_str()?.parse::<u32>().ok());
        let there = |pid: &u32| {
            std::fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/pid"))
                .is_ok_and(|name| name == own)
        };
        pids.filter(there).collect()
    }

    /// Each node runs, was started once if it was stopped, and heeds no hold.
    #[track_caller]
    fn all_are_as_before(&self) {
        let (cluster, step) = (self.cluster, self.step);
        for node in 0..3 {
            assert!(cluster.runs(node), "{step:?}: {node}");
            let calls = cluster.calls(node);
            let count = |what: &str| calls.iter().filter(|call| *call == what).count();
            assert_eq!(count("start"), count("stop"), "{step:?}: {node}: {calls:?}");
            if step == Step::Arming && node == SLOW {
                // Whether it is armed in the end nobody can know: its timer takes all of it away.
                continue;
            }
            // By hand it stops and starts as ever.
            let left = cluster.by_hand(
                node,
                "ls -A /run/cabk 2>/dev/null; systemctl stop toy.service; \
                 systemctl start toy.service",
            );
            assert_eq!(left, "", "{step:?}: {node}: a hold is left");
            assert!(cluster.runs(node), "{step:?}: {node}: by hand");
            assert_eq!(cluster.calls(node).len(), calls.len() + 2, "{step:?}: {node}");
        }
    }
}

/// All steps where there is time for it, else some.
fn steps(few: &[Step]) -> Vec<Step> {
    let long = std::env::var_os("CABK_LONG").is_some();
    STEPS.into_iter().filter(|step| long || few.contains(step)).collect()
}

#[test]
fn a_kill_at_each_step_brings_all_nodes_back() {
    let Some(cluster) = crate::cluster() else { return };
    for step in steps(&[Step::Arming, Step::Stopping, Step::Reading]) {
        let mut run = Run::held_at(&cluster, step, &[]);
        if step == Step::Stopping {
            // Others cannot start what is down meanwhile.
            cluster.by_hand(0, "systemctl start toy.service");
            assert!(!cluster.runs(0), "there is a hold");
        }
        let since = Instant::now();
        signal(run.cabk, Signal::KILL);
        run.halted = None;
        run.release();
        until(60, &format!("{step:?}"), || run.running().len() == 3);
        let took = since.elapsed();
        eprintln!("{step:?}: all nodes run after {took:?}");
        assert!(took < SOON * factor(), "{step:?}: {took:?}");
        until(60, &format!("{step:?}"), || !cluster.world.has_intent());
        run.all_are_as_before();
    }
    let done = cluster.snapshot(&[]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
}

#[test]
fn a_machine_that_stands_still_at_each_step_is_overtaken_by_the_nodes() {
    let Some(cluster) = crate::cluster() else { return };
    let downtime = format!("{}s", DOWNTIME.as_secs());
    for step in steps(&[Step::Stopping, Step::Reading]) {
        let since = Instant::now();
        let mut run = Run::held_at(&cluster, step, &["--max-downtime", &downtime]);
        // Twice: what was born while the first went round is found by the second.
        for _ in 0..2 {
            run.all().into_iter().for_each(|pid| signal(pid, Signal::STOP));
        }
        (0..3).for_each(|node| cluster.cut(node));
        run.release();
        let frozen = Instant::now();
        if matches!(step, Step::Stopping | Step::Stopped | Step::Reading) {
            assert!(!cluster.runs(0), "{step:?}: it is down meanwhile");
        }
        let limit = DOWNTIME + LATER + SOON * (factor() - 1);
        let all = || run.running().len() == 3 && (0..3).all(|node| cluster.timers(node).1 == 0);
        until(60, &format!("{step:?}: {}", run.said()), all);
        let took = frozen.elapsed();
        eprintln!("{step:?}: all nodes run after {took:?}, {:?} since the begin", since.elapsed());
        assert!(took < limit, "{step:?}: {took:?}");
        // The machine is gone for good; what it left is cleared when there is one again.
        run.halted = None;
        run.machine.0.kill().unwrap();
        run.machine.0.wait().unwrap();
        (0..3).for_each(|node| cluster.mend(node));
        run.all_are_as_before();
        until(30, "the end of the machine", || {
            let done = cluster.cabk(&["window", "recover", "--json"]).output().unwrap();
            Done::of(&done).code == 0 && !cluster.world.has_intent()
        });
        assert!((0..3).all(|node| cluster.runs(node)));
    }
}

/// Most of its time is the wait for a silent node, so that it runs with the long tests.
#[test]
fn a_node_whose_link_breaks_in_the_window_starts_by_itself() {
    if std::env::var_os("CABK_LONG").is_none() {
        return;
    }
    let Some(cluster) = crate::cluster() else { return };
    let mut run = Run::held_at(&cluster, Step::Reading, &["--max-downtime", "20s"]);
    cluster.cut(2);
    run.halted = None;
    until(90, "the others", || cluster.runs(0) && cluster.runs(1));
    until(60, "its own timer", || cluster.runs(2));
    until(90, &format!("the end: {}", run.said()), || {
        run.said().contains("ssh root@") || run.said().contains("\"kind\"")
    });
    assert!(cluster.world.has_intent(), "cabk cannot know that it runs: {}", run.said());
    cluster.mend(2);
    run.machine.0.kill().unwrap();
    run.machine.0.wait().unwrap();
    let done = cluster.cabk(&["window", "recover", "--json"]).output().unwrap();
    Done::of(&done).expect(0);
    assert!(!cluster.world.has_intent());
    run.all_are_as_before();
}
