//! Several nodes: stopped and started at once, each with evidence of its own.

use super::*;

/// What is seen of another node, look by look; the last one stays.
struct Far(&'static str, Mutex<VecDeque<Option<ScanResult>>>, ClockOffset);

impl Observer for Far {
    fn node(&self) -> String {
        self.0.into()
    }
    fn scan(&self, trees: &Trees<'_>) -> io::Result<Option<ScanResult>> {
        assert!(!trees.exclude.contains(&7), "process ids are this machine's");
        let mut scans = self.1.lock().unwrap();
        let next = if scans.len() > 1 { scans.pop_front() } else { scans.front().cloned() };
        next.ok_or_else(|| io::Error::other("it cannot be reached"))
    }
    fn locks(&self) -> Result<Locks, LocksError> {
        panic!("only this machine's locks are asked for")
    }
    fn runs_program(&self, _pid: u32, _program: &Path) -> bool {
        false
    }
    fn write_back(&self, _paths: &[Vec<u8>]) -> io::Result<()> {
        match self.0 {
            UNWRITTEN => Err(io::Error::other("the disk is full")),
            _ => Ok(()),
        }
    }
    fn clock_offset(&self) -> io::Result<Option<ClockOffset>> {
        Ok(Some(self.2))
    }
}

const B: &str = "ssh://b";
const C: &str = "ssh://c";
/// Cannot write back what it keeps.
const UNWRITTEN: &str = "ssh://unwritten";

fn far<const N: usize>(node: &'static str, scans: [Option<ScanResult>; N]) -> Arc<dyn Observer> {
    let offset = ClockOffset { ahead_ms: -3, error_ms: 1 };
    Arc::new(Far(node, Mutex::new(scans.into_iter().collect()), offset))
}

/// `web` and `worker` here, `web` on two more nodes.
fn cluster() -> (World, [Arc<SimService>; 2]) {
    let mut world = World::new();
    let more = [B, C].map(|node| {
        let clock: Arc<dyn Clock> = world.clock.clone();
        Arc::new(SimService::new("web", node, clock).taking(SECOND))
    });
    for service in &more {
        let how = ServiceKind::Systemd { unit: "web".into(), sudo: true };
        world.plan.services.push(PlannedService {
            service: service.clone(),
            how,
            precaution: None,
        });
    }
    world.plan.others = vec![far(B, [Some(clean())]), far(C, [None])];
    (world, more)
}

fn with_own_pid(set: &HashSet<(Device, u64)>) -> Trees<'_> {
    Trees { exclude: &[7], ..trees(set) }
}

#[test]
fn each_node_is_stopped_proven_and_started() {
    let (world, [b, c]) = cluster();
    c.set_running(false);
    let set = HashSet::new();
    let stopped = world.stop().unwrap();
    assert!(!b.is_running() && !world.web.is_running());
    let intent = world.store().read("prod").unwrap().unwrap();
    let nodes: Vec<&str> = intent.services.iter().map(|one| &*one.node).collect();
    assert_eq!(nodes, ["local", "local", B, C]);
    assert_eq!(intent.services[3].prior, crate::window::intent::Prior::Stopped);
    let quiescent = stopped.quiesce(&with_own_pid(&set)).unwrap();
    let proven = quiescent.prove_unmoved(&all_well(), &with_own_pid(&set)).unwrap();
    let closed = undisturbed(proven).restart();
    world.assert_in_order();
    assert!(b.is_running() && !c.is_running());
    assert!(!c.calls().contains(&Action::Stop) && !c.calls().contains(&Action::Start));
    let of = |check: &str| -> Vec<&str> {
        let those = closed.evidence.iter().filter(|one| one.check == check && one.held);
        those.map(|one| &*one.node).collect()
    };
    assert_eq!(of("service-stopped"), ["local", "local", B, C]);
    assert_eq!(of("no-process-in-tree"), ["local", B], "nothing of the trees is on the last one");
    let started = of("service-started");
    assert_eq!(started.len(), 3);
    let detail = |node: &str| {
        let mut those = closed.evidence.iter().filter(|one| one.check == "service-stopped");
        those.find(|one| one.node == node).unwrap().detail.clone()
    };
    assert!(detail(B).contains("its clock is 3 ms behind this machine's"), "{}", detail(B));
    assert!(!detail("local").contains("clock"));
    assert!(closed.warnings.is_empty(), "{:?}", closed.warnings);
    let ran: Vec<(bool, Option<bool>)> =
        closed.record.nodes.iter().map(|n| (n.ran_before, n.runs_after)).collect();
    let up = (true, Some(true));
    assert_eq!(ran, [up, up, up, (false, None)]);
}

#[test]
fn a_node_that_does_not_stop_ends_the_window_for_all() {
    for fault in [SimFault::StopFails("no".into()), SimFault::StopHangs] {
        let (world, [b, c]) = cluster();
        b.script(fault);
        let aborted = world.stop().err().unwrap();
        assert!(matches!(&aborted.reason, AbortReason::Stop { node, .. } if node == B));
        world.assert_in_order();
        assert!(b.is_running() && c.is_running());
        assert!(aborted.restarted.not_running.is_empty());
    }
    let (world, [b, c]) = cluster();
    b.script(SimFault::StatusFails("connection refused".into()));
    b.script(SimFault::StatusFails("connection refused".into()));
    b.script(SimFault::StatusFails("connection refused".into()));
    assert!(matches!(world.arm(), Err(ArmError::Status { node, .. }) if node == B));
    assert!(!world.web.calls().contains(&Action::Stop) && !c.calls().contains(&Action::Stop));
    world.assert_in_order();
}

#[test]
fn what_a_node_cannot_write_back_makes_a_capture() {
    let (mut world, _) = cluster();
    world.plan.others = vec![far(B, [Some(clean())]), far(UNWRITTEN, [Some(clean())])];
    let set = HashSet::new();
    let quiescent = world.stop().unwrap().quiesce(&with_own_pid(&set)).unwrap();
    let proven = quiescent.prove_unmoved(&all_well(), &with_own_pid(&set)).unwrap();
    let Proven::Disturbed(disturbed) = proven else { panic!("it counts as undisturbed") };
    let reasons = disturbed.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].starts_with("tree-unchanged: ") && reasons[0].ends_with("the disk is full"));
    let closed = disturbed.restart();
    let told = closed.evidence.iter().find(|one| !one.held).unwrap();
    assert_eq!((&*told.node, &*told.check), (UNWRITTEN, "tree-unchanged"));
    world.assert_in_order();
}

#[test]
fn what_does_not_start_is_named_with_its_node() {
    let (world, [b, _]) = cluster();
    for _ in 0..9 {
        b.script(SimFault::StartFails("no".into()));
    }
    let set = HashSet::new();
    let quiescent = world.stop().unwrap().quiesce(&with_own_pid(&set)).unwrap();
    let proven = quiescent.prove_unmoved(&all_well(), &with_own_pid(&set)).unwrap();
    let closed = undisturbed(proven).restart();
    let [down] = &closed.not_running[..] else { panic!("{:?}", closed.not_running) };
    assert_eq!(down.node, B);
    assert_eq!(down.hint, "ssh b sudo systemctl start web");
    assert!(world.has_intent());
}

#[test]
fn a_stranger_on_another_node_makes_a_capture() {
    let set = HashSet::new();
    for scans in
        [[Some(used_by(41, writer())), Some(clean())], [Some(clean()), Some(used_by(41, writer()))]]
    {
        let (mut world, _) = cluster();
        world.plan.wait_quiet = Duration::ZERO;
        world.plan.others = vec![far(B, scans)];
        let quiescent = world.stop().unwrap().quiesce(&with_own_pid(&set)).unwrap();
        let proven = quiescent.prove_unmoved(&all_well(), &with_own_pid(&set)).unwrap();
        let window = disturbed(proven);
        let all = window.evidence().to_vec();
        let broken: Vec<&Evidence> = all.iter().filter(|one| !one.held).collect();
        let [one] = broken[..] else { panic!("{broken:?}") };
        assert_eq!((&*one.check, &*one.node), ("no-process-in-tree", B));
        assert!(one.detail.contains("process 41"), "{}", one.detail);
        window.restart();
        world.assert_in_order();
    }
    // One that cannot be looked at proves nothing.
    let (mut world, _) = cluster();
    world.plan.others = vec![far(C, [])];
    let quiescent = world.stop().unwrap().quiesce(&with_own_pid(&set)).unwrap();
    let proven = quiescent.prove_unmoved(&all_well(), &with_own_pid(&set)).unwrap();
    let window = disturbed(proven);
    assert!(window.reasons()[0].contains("it cannot be reached"), "{:?}", window.reasons());
}

#[test]
fn obstacles_name_the_node_and_clocks_far_apart_are_warned_of() {
    use crate::window::before::obstacles;
    let (mut world, [b, _]) = cluster();
    let set = HashSet::new();
    let found =
        |world: &World| obstacles(&world.plan, &*world.observer, &with_own_pid(&set), false);
    assert_eq!(found(&world), [""; 0]);
    world.plan.others = vec![far(B, [Some(used_by(41, reader()))])];
    let said = found(&world);
    assert!(said[0].contains("process 41") && said[0].ends_with("(on ssh://b)"), "{said:?}");
    let offset = ClockOffset { ahead_ms: 2500, error_ms: 400 };
    world.plan.others = vec![Arc::new(Far(B, Mutex::new([Some(clean())].into()), offset))];
    let closed = world.arm().unwrap().abort(AbortReason::Interrupted).restarted;
    let [warning] = &closed.warnings[..] else { panic!("{:?}", closed.warnings) };
    assert!(warning.starts_with("ssh://b: its clock is 2500 ms ahead"), "{warning}");
    assert!(b.is_running());
}
