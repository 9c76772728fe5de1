use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::format::manifest::How;
use crate::host::clock::{SimClock, SystemClock};
use crate::host::locks::{FileLock, LockKind, Locks, LocksError};
use crate::host::process::{Device, ProcessUse, ScanResult, ScanScope, UseKind};
use crate::host::service::sim::{SimFault, SimService};
use crate::host::service::{Action, ServiceStatus};
use crate::window::evidence::{SourceRead, TreeLook};
use crate::window::observe::ClockOffset;
use crate::window::sqlite::{SqliteFile, SqliteGroup};

mod endings;
mod nodes;
mod proof;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Answers to scans in turn; the last one stays. Without any nobody uses the trees.
#[derive(Default)]
struct SimObserver {
    scans: Mutex<VecDeque<ScanResult>>,
    locks: Mutex<Locks>,
    programs: Mutex<Vec<u32>>,
}

fn clean() -> ScanResult {
    let scope = ScanScope { pid_namespace_is_host: true, processes_seen: 9, ..Default::default() };
    ScanResult { uses: Vec::new(), scope }
}

fn used_by(pid: u32, what: UseKind) -> ScanResult {
    let command = "R: R --slave".to_owned();
    let path = b"/srv/a\x1bb".to_vec();
    let one = ProcessUse { pid, command, uid: 7, what, dev: (8, 1), ino: 5, path };
    ScanResult { uses: vec![one], ..clean() }
}

fn writer() -> UseKind {
    UseKind::Fd { fd: 4, writable: true, flags: 1 }
}

fn reader() -> UseKind {
    UseKind::Fd { fd: 4, writable: false, flags: 0 }
}

impl Observer for SimObserver {
    fn node(&self) -> String {
        "local".into()
    }
    fn scan(&self, _trees: &Trees<'_>) -> io::Result<Option<ScanResult>> {
        let mut scans = self.scans.lock().unwrap();
        let next = if scans.len() > 1 { scans.pop_front() } else { scans.front().cloned() };
        Ok(Some(next.unwrap_or_else(clean)))
    }
    fn locks(&self) -> Result<Locks, LocksError> {
        Ok(self.locks.lock().unwrap().clone())
    }
    fn runs_program(&self, pid: u32, _program: &Path) -> bool {
        self.programs.lock().unwrap().contains(&pid)
    }
    fn write_back(&self, _paths: &[Vec<u8>]) -> io::Result<()> {
        Ok(())
    }
    fn clock_offset(&self) -> io::Result<Option<ClockOffset>> {
        Ok(None)
    }
}

/// A service that presses Ctrl-C when it is stopped.
struct Hasty(Arc<SimService>, Interrupt);

impl Service for Hasty {
    fn label(&self) -> String {
        self.0.label()
    }
    fn node(&self) -> String {
        self.0.node()
    }
    fn status(&self) -> Result<ServiceStatus, ServiceError> {
        self.0.status()
    }
    fn stop(&self, timeout: Duration) -> Result<(), ServiceError> {
        self.1.trigger();
        self.0.stop(timeout)
    }
    fn start(&self, timeout: Duration, was: &ServiceStatus) -> Result<(), ServiceError> {
        self.0.start(timeout, was)
    }
    fn cgroup_processes(&self) -> Result<Option<Vec<u32>>, ServiceError> {
        self.0.cgroup_processes()
    }
}

fn unit(name: &str) -> ServiceKind {
    ServiceKind::Systemd { unit: name.into(), sudo: false }
}

fn commands() -> ServiceKind {
    use crate::window::intent::IntentCommand::Shell;
    let (stop, start) = (Shell("halt-it".into()), Shell("run-it".into()));
    ServiceKind::Commands { stop, start, status: Some(Shell("ask-it".into())) }
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<SimClock>,
    observer: Arc<SimObserver>,
    interrupt: Interrupt,
    /// The first two of the plan, each taking a second to stop and start.
    web: Arc<SimService>,
    worker: Arc<SimService>,
    plan: Plan,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(SimClock::new());
        let make = |name: &str| {
            let clock: Arc<dyn Clock> = clock.clone();
            Arc::new(SimService::new(name, "local", clock).taking(SECOND))
        };
        let (web, worker) = (make("web"), make("worker"));
        let planned = |service: &Arc<SimService>| PlannedService {
            service: service.clone(),
            how: unit(&service.label()),
            precaution: None,
        };
        let plan = Plan {
            site: "prod".into(),
            services: vec![planned(&web), planned(&worker)],
            others: Vec::new(),
            mode: Mode::StopAndStart,
            leave_stopped: false,
            allow_capture: false,
            stop_timeout: MINUTE,
            start_timeout: MINUTE,
            max_downtime: 30 * MINUTE,
            wait_quiet: 2 * MINUTE,
            health: None,
            rules: Rules::default(),
        };
        let (observer, interrupt) = (Arc::new(SimObserver::default()), Interrupt::manual());
        let dir = tempfile::tempdir().unwrap();
        Self { dir, clock, observer, interrupt, web, worker, plan }
    }

    fn store(&self) -> IntentStore {
        IntentStore::open(self.dir.path())
    }

    fn context(&self) -> Context {
        Context {
            store: self.store(),
            clock: self.clock.clone(),
            interrupt: self.interrupt.clone(),
            observer: self.observer.clone(),
            guards: Arc::new(crate::window::guard::NoGuards),
        }
    }

    fn lock(&self) -> SiteLock {
        // A child that another test forks holds it until it becomes its program.
        let (wait, manual) = (5 * SECOND, Interrupt::manual());
        SiteLock::acquire(&self.store(), "prod", wait, &SystemClock, &manual).unwrap()
    }

    fn arm(&self) -> Result<Armed, ArmError> {
        arm(self.plan.clone(), self.context(), &self.lock())
    }

    fn stop(&self) -> Result<Stopped, Aborted> {
        self.arm().map_err(|e| e.to_string()).unwrap().stop()
    }

    fn quiesce(&self) -> Quiescent {
        self.stop().unwrap().quiesce(&trees(&HashSet::new())).unwrap()
    }

    fn scripted(&self, scans: impl IntoIterator<Item = ScanResult>) {
        self.observer.scans.lock().unwrap().extend(scans);
    }

    fn has_intent(&self) -> bool {
        self.store().read("prod").unwrap().is_some()
    }

    /// Everything runs and nothing is left behind.
    fn assert_in_order(&self) {
        assert!(self.web.is_running() && self.worker.is_running());
        assert!(!self.has_intent());
        self.lock();
    }
}

fn trees(set: &HashSet<(Device, u64)>) -> Trees<'_> {
    Trees { set, roots: &[], paths: &[], exclude: &[] }
}

fn all_well() -> SecondLook {
    let tree = TreeLook {
        path: b"/srv".into(),
        by: "second scan".into(),
        by_events: false,
        changed: 0,
        examples: vec![],
    };
    let source = SourceRead { subject: b"/srv".into(), whole: true, detail: "3 files".into() };
    SecondLook { trees: vec![tree], sources: vec![source], sqlite: vec![], still_open: vec![] }
}

fn prove(quiescent: Quiescent) -> Proven {
    quiescent.prove_unmoved(&all_well(), &trees(&HashSet::new())).unwrap()
}

fn undisturbed(proven: Proven) -> Undisturbed {
    match proven {
        Proven::Undisturbed(proof) => proof,
        Proven::Disturbed(disturbed) => panic!("{:?}", disturbed.reasons()),
    }
}

fn disturbed(proven: Proven) -> Disturbed {
    match proven {
        Proven::Undisturbed(proof) => panic!("{:?}", proof.evidence()),
        Proven::Disturbed(disturbed) => disturbed,
    }
}

fn named<'a>(evidence: &'a [Evidence], check: &str) -> &'a Evidence {
    evidence.iter().find(|one| one.check == check).unwrap()
}
