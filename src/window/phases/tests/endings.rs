//! Invariant 5 in every ending that the process survives.

use super::*;
use crate::host::health::NoAnswer;

/// Answers with these in turn; the last one stays.
struct Answers(Mutex<VecDeque<Result<u16, &'static str>>>);

impl Health for Answers {
    fn url(&self) -> String {
        "http://toy/ping".into()
    }
    fn ask(&self, _within: Duration) -> Result<u16, NoAnswer> {
        let mut all = self.0.lock().unwrap();
        let next = if all.len() > 1 { all.pop_front() } else { all.front().copied() };
        next.unwrap().map_err(|why| NoAnswer(why.into()))
    }
}

#[test]
fn health_is_asked_until_it_is_good_and_never_decides() {
    let closed = |answers: &[Result<u16, &'static str>], leave_stopped: bool| {
        let mut world = World::new();
        let answers = answers.iter().copied().collect();
        world.plan.health = Some(Arc::new(Answers(Mutex::new(answers))));
        world.plan.leave_stopped = leave_stopped;
        let closed = undisturbed(prove(world.quiesce())).restart();
        assert!(!world.has_intent(), "the window is closed whatever the answer is");
        closed
    };
    let well = closed(&[Err("refused"), Ok(503), Ok(302), Ok(204)], false);
    assert!(well.unwell.is_none());
    let started = named(&well.evidence, "service-started");
    assert!(started.held && started.detail.contains("http://toy/ping answered 204"));
    assert_eq!(well.record.downtime_ms, Some(4000), "asking is no downtime");
    let phases = well.record.phases.unwrap();
    assert_eq!(phases.named().iter().map(|(_, ms)| ms).sum::<u64>(), 4000);
    assert_eq!((phases.stop_ms, phases.start_ms), (2000, 2000));
    let silent = closed(&[Err("refused")], false);
    let why = silent.unwell.unwrap();
    assert!(why.contains("within 1m 0s") && why.ends_with("refused"), "{why}");
    assert!(!named(&silent.evidence, "service-started").held);
    assert!(silent.not_running.is_empty() && silent.record.started_at.is_some());
    assert!(closed(&[Err("refused")], true).unwell.is_none(), "nothing was started");
}

#[test]
fn a_window_from_end_to_end() {
    let world = World::new();
    let armed = world.arm().unwrap();
    let intent = world.store().read("prod").unwrap().unwrap();
    assert!(world.web.is_running() && !intent.is_stale().unwrap());
    assert_eq!(intent.services[0].how, unit("web"));
    assert_eq!(intent.deadline.millis_since(intent.time), 30 * 60 * 1000);
    let stopped = armed.stop().unwrap();
    assert!(!world.web.is_running() && !world.worker.is_running());
    let quiescent = stopped.quiesce(&trees(&HashSet::new())).unwrap();
    assert_eq!(quiescent.intruders(), [] as [&str; 0]);
    assert!(quiescent.time_left().unwrap() > 29 * MINUTE);
    let proof = undisturbed(prove(quiescent));

    let closed = proof.restart();
    world.assert_in_order();
    assert_eq!(closed.record.downtime_ms, Some(4000));
    assert_eq!(closed.record.started_at, Some(world.clock.now()));
    let checks: Vec<(&str, &str)> =
        closed.evidence.iter().map(|one| (&*one.check, &*one.subject)).collect();
    assert_eq!(
        checks,
        [
            ("service-stopped", "web"),
            ("service-stopped", "worker"),
            ("no-process-in-tree", ""),
            ("tree-unchanged", "/srv"),
            ("all-sources-read", "/srv"),
            ("service-started", "worker"),
            ("service-started", "web"),
        ]
    );
    assert!(closed.evidence.iter().all(|one| one.held && one.how == How::Observed));
    assert!(closed.record.nodes.iter().all(|node| node.runs_after == Some(true)));
}

#[test]
fn a_stop_that_fails_starts_the_others_again() {
    let world = World::new();
    world.worker.script(SimFault::StopFails("no".into()));
    let aborted = world.stop().err().unwrap();
    assert!(matches!(&aborted.reason, AbortReason::Stop { service, .. } if service == "worker"));
    let text = "the window was given up, and what had been stopped runs again";
    assert_eq!(aborted.to_string(), text);
    world.assert_in_order();
}

#[test]
fn a_stop_that_hangs_is_given_up_in_time() {
    let mut world = World::new();
    world.plan.max_downtime = 20 * SECOND;
    for how in [unit("web"), commands()] {
        world.plan.services[0].how = how;
        let began = world.clock.monotonic();
        world.web.script(SimFault::StopHangs);
        let aborted = world.stop().err().unwrap();
        assert!(matches!(aborted.reason, AbortReason::Stop { .. }));
        assert!(world.clock.monotonic() - began < 25 * SECOND, "no longer than the downtime");
        world.assert_in_order();
        assert!(!world.worker.calls().contains(&Action::Stop), "the next one is left alone");
    }
}

#[test]
fn a_start_that_fails_is_said_and_costs_no_proof() {
    for fault in [SimFault::StartFails("no port".into()), SimFault::StartDies] {
        let world = World::new();
        let proof = undisturbed(prove(world.quiesce()));
        world.web.script(fault);
        let closed = proof.restart();
        assert!(!world.web.is_running() && world.worker.is_running());
        assert!(world.has_intent(), "for window recover");
        assert_eq!(closed.not_running.len(), 1);
        let message = closed.not_running[0].message();
        assert!(message.starts_with("web on local is not running: "), "{message}");
        assert!(message.contains("systemctl start web"), "{message}");
        assert!((closed.record.started_at, closed.record.downtime_ms) == (None, None));
        assert_eq!(closed.record.nodes[0].runs_after, Some(false));
        assert_eq!(closed.evidence.iter().filter(|one| !one.held).count(), 1);
        assert!(matches!(world.arm(), Err(ArmError::LeftBehind(_))));
    }
}

#[test]
fn signals_before_and_after_the_stop() {
    let world = World::new();
    let armed = world.arm().unwrap();
    world.interrupt.trigger();
    let aborted = armed.stop().err().unwrap();
    assert!(matches!(aborted.reason, AbortReason::Interrupted));
    assert!(aborted.to_string().ends_with("nothing had been stopped"));
    assert!(!world.web.calls().contains(&Action::Stop));
    world.assert_in_order();
    assert!(matches!(world.arm(), Err(ArmError::Interrupted)));
    world.assert_in_order();

    let mut world = World::new();
    world.plan.services[0].service = Arc::new(Hasty(world.web.clone(), world.interrupt.clone()));
    let aborted = world.stop().err().unwrap();
    assert!(matches!(aborted.reason, AbortReason::Interrupted));
    assert!(!world.worker.calls().contains(&Action::Stop));
    assert_eq!(aborted.restarted.record.downtime_ms, Some(2000));
    world.assert_in_order();
}

#[test]
fn signals_while_waiting_and_while_reading() {
    let world = World::new();
    let stopped = world.stop().unwrap();
    world.interrupt.trigger();
    let aborted = stopped.quiesce(&trees(&HashSet::new())).err().unwrap();
    assert!(matches!(aborted.reason, AbortReason::Interrupted));
    world.assert_in_order();

    let world = World::new();
    let quiescent = world.quiesce();
    world.interrupt.trigger();
    let aborted = quiescent.prove_unmoved(&all_well(), &trees(&HashSet::new())).err().unwrap();
    assert!(matches!(aborted.reason, AbortReason::Interrupted));
    world.assert_in_order();

    let world = World::new();
    let aborted = world.quiesce().abort(AbortReason::Reading("disk gone".into()));
    assert_eq!(chain(&aborted).matches("disk gone").count(), 1);
    world.assert_in_order();
}

#[test]
fn what_did_not_run_is_left_alone() {
    let world = World::new();
    world.worker.set_running(false);
    let closed = undisturbed(prove(world.quiesce())).restart();
    assert!(world.web.is_running() && !world.worker.is_running());
    assert_eq!(world.worker.calls(), [Action::Status, Action::Status]);
    assert_eq!(
        (closed.record.nodes[1].ran_before, closed.record.nodes[1].runs_after),
        (false, None)
    );
    assert!(!world.has_intent());
}

#[test]
fn dropping_any_phase_starts_the_services() {
    let world = World::new();
    drop(world.arm().unwrap());
    world.assert_in_order();
    drop(world.stop().unwrap());
    world.assert_in_order();
    drop(world.quiesce());
    world.assert_in_order();
    drop(undisturbed(prove(world.quiesce())));
    world.assert_in_order();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _quiescent = world.quiesce();
        panic!("a reader's mistake");
    }));
    assert!(panicked.is_err());
    world.assert_in_order();
}

#[test]
fn leaving_it_stopped_holds_for_a_window_that_closes_as_it_should() {
    let mut world = World::new();
    world.plan.leave_stopped = true;
    let closed = undisturbed(prove(world.quiesce())).restart();
    assert!(!world.web.is_running() && !world.has_intent());
    assert!(closed.not_running.is_empty() && closed.warnings.len() == 1);
    assert_eq!(closed.record.started_at, None);
    world.web.set_running(true);
    world.worker.set_running(true);
    drop(world.quiesce());
    world.assert_in_order();
}

#[test]
fn refusals_before_anything_is_stopped() {
    let mut world = World::new();
    let stops = |world: &World| world.web.calls().contains(&Action::Stop);
    world.web.set_running(false);
    world.worker.set_running(false);
    assert!(matches!(world.arm(), Err(ArmError::NoneRuns(_))));
    world.plan.mode = Mode::AlreadyStopped;
    drop(world.arm().unwrap());
    world.web.set_running(true);
    assert!(matches!(world.arm(), Err(ArmError::Runs { .. })));
    world.plan.mode = Mode::StopAndStart;
    (0..3).for_each(|_| world.web.script(SimFault::StatusUnknown("exit code 4".into())));
    assert!(matches!(world.arm(), Err(ArmError::Unknown { .. })));
    (0..3).for_each(|_| world.web.script(SimFault::StatusFails("bus".into())));
    assert!(matches!(world.arm(), Err(ArmError::Status { .. })));
    world.web.script(SimFault::StatusFails("only once".into()));
    drop(world.arm().unwrap());
    let unknown =
        Arc::new(crate::host::systemd::Systemd::new("cabk-no.service", world.clock.clone()));
    let mut unknown = Arc::into_inner(unknown).unwrap().unwrap();
    unknown.program = world.dir.path().join("systemctl");
    std::fs::write(
        &unknown.program,
        "#!/bin/sh\necho LoadState=not-found\necho ActiveState=inactive\n",
    )
    .unwrap();
    std::fs::set_permissions(&unknown.program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    world.plan.services[1].service = Arc::new(unknown);
    // A child that another test forks meanwhile may hold the script open: "text file busy".
    let mut refused = world.arm();
    for _ in 0..200 {
        if !matches!(refused, Err(ArmError::Status { .. })) {
            break;
        }
        crate::host::clock::Clock::sleep(&SystemClock, Duration::from_millis(10));
        refused = world.arm();
    }
    assert!(matches!(refused, Err(ArmError::NoSuchService { .. })));
    world.plan.services.clear();
    assert!(matches!(world.arm(), Err(ArmError::NoServices)));
    assert!(!stops(&world) && !world.has_intent());
}

#[test]
fn obstacles_are_seen_before_anything_is_stopped() {
    use crate::window::before::obstacles;
    let mut world = World::new();
    let set = HashSet::new();
    let found = |world: &World| obstacles(&world.plan, &*world.observer, &trees(&set), false);
    assert!(found(&world).is_empty());
    world.scripted([used_by(42, writer())]);
    assert!(found(&world)[0].starts_with("no-process-in-tree: process 42"));
    world.observer.scans.lock().unwrap()[0] = clean();
    world.observer.scans.lock().unwrap()[0].scope.pid_namespace_is_host = false;
    assert_eq!(found(&world).len(), 1);
    world.plan.rules.asserts = vec!["no-process-in-tree".into()];
    assert!(found(&world).is_empty());
    assert!(!world.web.calls().contains(&Action::Stop));
}

/// A service in memory that says more of itself.
struct Saying(Arc<SimService>, std::sync::Mutex<Vec<ServiceStatus>>);

impl Service for Saying {
    fn label(&self) -> String {
        self.0.label()
    }
    fn node(&self) -> String {
        self.0.node()
    }
    fn status(&self) -> Result<ServiceStatus, ServiceError> {
        let said = self.1.lock().unwrap().pop();
        said.map_or_else(|| self.0.status(), Ok)
    }
    fn stop(&self, timeout: Duration) -> Result<(), ServiceError> {
        self.0.stop(timeout)
    }
    fn start(&self, timeout: Duration, was: &ServiceStatus) -> Result<(), ServiceError> {
        self.0.start(timeout, was)
    }
    fn cgroup_processes(&self) -> Result<Option<Vec<u32>>, ServiceError> {
        self.0.cgroup_processes()
    }
}

fn saying(world: &mut World, said: Vec<ServiceStatus>) {
    let service = Saying(world.web.clone(), std::sync::Mutex::new(said));
    world.plan.services[0].service = Arc::new(service);
}

#[test]
fn what_could_not_start_or_is_going_down_is_not_stopped() {
    use crate::host::service::Way;
    let running = || ServiceStatus::bare(ServiceState::Running, "active/running");
    let mut world = World::new();
    let why = Some("its load state is masked".to_owned());
    saying(&mut world, vec![ServiceStatus { start_refused: why, ..running() }]);
    assert!(matches!(world.arm(), Err(ArmError::CannotStart { .. })));
    let down = || ServiceStatus { way: Some(Way::Down), ..running() };
    saying(&mut world, (0..1000).map(|_| down()).collect());
    assert!(matches!(world.arm(), Err(ArmError::GoesDown { .. })));
    // Whoever wanted it down has it down in the end: it did not run.
    world.web.set_running(false);
    saying(&mut world, vec![down(), down()]);
    drop(world.arm().unwrap());
    assert!(!world.has_intent() && !world.web.is_running());
    assert!(!world.web.calls().contains(&Action::Stop));
}

#[test]
fn a_start_that_falls_over_does_not_run() {
    use crate::host::service::Way;
    use crate::window::start::fell_over;
    let mut world = World::new();
    let service = Arc::new(Saying(world.web.clone(), std::sync::Mutex::default()));
    world.plan.services[0].service = service.clone();
    let proof = undisturbed(prove(world.quiesce()));
    let again = ServiceStatus {
        way: Some(Way::Up),
        ..ServiceStatus::bare(ServiceState::Running, "activating/auto-restart")
    };
    *service.1.lock().unwrap() = vec![again; 5000];
    let closed = proof.restart();
    assert!(closed.not_running[0].why.contains("auto-restart"), "{closed:?}");
    assert!(world.has_intent());

    let world = World::new();
    let closed = undisturbed(prove(world.quiesce())).restart();
    assert!(fell_over(&world.plan, &closed, &*world.clock).is_empty());
    world.web.set_running(false);
    let fell = fell_over(&world.plan, &closed, &*world.clock);
    assert_eq!(fell.len(), 1);
    assert!(fell[0].message().contains("runs no more"), "{}", fell[0].message());
}

/// `kubectl scale` comes back before anything stops: running says nothing once a stop was asked.
#[test]
fn commands_are_asked_to_start_unless_the_stop_was_refused() {
    for (fault, starts) in [(SimFault::StopHangs, 1), (SimFault::StopFails("no".into()), 0)] {
        let mut world = World::new();
        world.plan.services[0].how = commands();
        world.web.script(fault);
        world.stop().err().unwrap();
        let asked = world.web.calls().iter().filter(|call| **call == Action::Start).count();
        assert_eq!(asked, starts);
        world.assert_in_order();
    }
}

/// Arms nothing, and is asked what it is asked.
#[derive(Default)]
struct Careful {
    fails: bool,
    asked: Mutex<Vec<&'static str>>,
}

impl crate::host::service::Precaution for Careful {
    fn arm(&self, after: Option<Duration>, hold: &str) -> Result<(), ServiceError> {
        assert!(hold.contains("deadline") && hold.contains("boot_id"));
        self.asked.lock().unwrap().push(if after.is_some() { "timer" } else { "hold" });
        match self.fails {
            true => Err(ServiceError::Node("no timers there".into())),
            false => Ok(()),
        }
    }
    fn disarm(&self) -> Result<(), ServiceError> {
        self.asked.lock().unwrap().push("disarm");
        Ok(())
    }
}

#[test]
fn a_node_that_cannot_guard_itself_is_not_stopped_nor_is_any_other() {
    let mut world = World::new();
    let clock: Arc<dyn Clock> = world.clock.clone();
    let far = Arc::new(SimService::new("far", "ssh://b", clock));
    let (good, bad) =
        (Arc::new(Careful::default()), Arc::new(Careful { fails: true, ..Careful::default() }));
    world.plan.services[0].precaution = Some(good.clone());
    let planned =
        PlannedService { service: far.clone(), how: unit("far"), precaution: Some(bad.clone()) };
    world.plan.services.push(planned);
    let error = world.arm().err().unwrap();
    assert!(matches!(error, ArmError::Guard(_)));
    assert!(chain(&error).contains("no timers there"), "{}", chain(&error));
    assert!(!far.calls().contains(&Action::Stop));
    world.assert_in_order();
    assert_eq!(*good.asked.lock().unwrap(), ["hold", "disarm"]);
    assert_eq!(*bad.asked.lock().unwrap(), ["timer", "disarm"]);

    // What was never stopped is disarmed, and what stays stopped by wish.
    world.plan.services[2].precaution = Some(good.clone());
    drop(world.arm().unwrap());
    // It stands for two nodes now, which are asked at once.
    let mut asked = good.asked.lock().unwrap().split_off(2);
    asked.sort_unstable();
    assert_eq!(asked, ["disarm", "disarm", "hold", "timer"]);
}
