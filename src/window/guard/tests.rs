use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;

use super::*;
use crate::host::clock::SimClock;
use crate::host::service::Action;
use crate::host::service::ServiceError;
use crate::host::service::sim::{SimFault, SimService};
use crate::window::intent::IntentCommand::Shell;

const MINUTE: Duration = Duration::from_secs(60);

/// One service, stopped by a run whose intent is on disk.
struct World {
    dir: tempfile::TempDir,
    clock: Arc<SimClock>,
    web: Arc<SimService>,
    how: ServiceKind,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(SimClock::new());
        let seam: Arc<dyn Clock> = clock.clone();
        let web = Arc::new(SimService::new("web", "local", seam));
        let how = ServiceKind::Systemd { unit: "web".into(), sudo: false };
        let world = Self { dir: tempfile::tempdir().unwrap(), clock, web, how };
        world.write(Phase::Stopping, false);
        world.web.set_running(false);
        world
    }

    fn commands(mut self) -> Self {
        let (stop, start) = (Shell("halt-it".into()), Shell("run-it".into()));
        self.how = ServiceKind::Commands { stop, start, status: Some(Shell("ask-it".into())) };
        self.write(Phase::Stopping, false);
        self
    }

    fn store(&self) -> IntentStore {
        IntentStore::open(self.dir.path())
    }

    fn write(&self, phase: Phase, dead: bool) -> Intent {
        let now = Clock::now(&*self.clock);
        let mut intent = Intent::new("prod", now, now).unwrap();
        intent.phase = phase;
        (intent.stop_timeout_ms, intent.start_timeout_ms) = (60_000, 60_000);
        if dead {
            intent.owner.start_time += 1;
        }
        let was = crate::host::service::ServiceStatus::bare(ServiceState::Running, "up");
        let one = IntentService::new("local".into(), "web".into(), self.how.clone(), &was);
        intent.services.push(one);
        self.store().write(&intent).unwrap();
        intent
    }

    /// What the guard comes to when these are the news; each lack of them takes its time. `at` is
    /// called each time.
    fn stand(
        &self,
        within: Duration,
        news: &[Option<News>],
        at: &dyn Fn(usize),
    ) -> (Ended, String) {
        let (store, said) = (self.store(), RefCell::new(String::new()));
        let log = |text: &str| said.borrow_mut().push_str(&format!("{text}\n"));
        let make = |_: &Intent, _: &IntentService| -> Result<Arc<dyn Service>, ServiceError> {
            Ok(self.web.clone())
        };
        let intent = store.read("prod").unwrap().unwrap();
        let guard = Guard { store: &store, intent, make: &make, clock: &*self.clock, log: &log };
        let mut left: VecDeque<_> = news.iter().copied().collect();
        let count = RefCell::new(0);
        let mut next = |within| {
            at(*count.borrow());
            *count.borrow_mut() += 1;
            let news = left.pop_front().expect("the guard ends by the last news");
            if news.is_none() {
                self.clock.sleep(within);
            }
            news
        };
        let ended = guard.stand(within, &mut next, &mut || {});
        (ended, said.into_inner())
    }

    fn starts(&self) -> usize {
        self.web.calls().iter().filter(|call| **call == Action::Start).count()
    }
}

#[test]
fn a_window_that_is_closed_needs_no_guard() {
    let world = World::new();
    let (ended, said) = world.stand(MINUTE, &[Some(News::Closed)], &|_| {});
    assert_eq!((ended, said.as_str()), (Ended::InOrder, ""));
    assert!(world.web.calls().is_empty() && world.store().read("prod").unwrap().is_some());
}

#[test]
fn an_owner_that_died_is_stood_in_for() {
    let world = World::new();
    world.write(Phase::Stopping, true);
    world.web.script(SimFault::StartFails("no port".into()));
    let (ended, said) = world.stand(MINUTE, &[Some(News::Gone)], &|_| {});
    assert_eq!(ended, Ended::Recovered);
    assert!(said.contains("no port") && said.contains("Runs("), "{said}");
    assert!(world.web.is_running() && world.store().read("prod").unwrap().is_none());
    // Somebody else's intent, or none, is not its business.
    let world = World::new();
    let (ended, _) = world.stand(MINUTE, &[None, Some(News::Gone)], &|_| {
        world.store().remove("prod").unwrap();
    });
    assert_eq!((ended, world.starts()), (Ended::Recovered, 0));
}

#[test]
fn what_never_starts_is_left_for_a_person() {
    let world = World::new();
    world.write(Phase::Stopping, true);
    (0..99).for_each(|_| world.web.script(SimFault::StartFails("no port".into())));
    let began = world.clock.monotonic();
    let (ended, _) = world.stand(MINUTE, &[Some(News::Gone)], &|_| {});
    assert_eq!(ended, Ended::Down);
    assert!(world.store().read("prod").unwrap().is_some());
    assert!(world.clock.monotonic() - began > 10 * MINUTE, "it tried for long");
    assert!(world.starts() > 10);
}

#[test]
fn past_the_longest_downtime_it_starts_although_the_owner_lives() {
    for world in [World::new(), World::new().commands()] {
        let news = [[None; 12].as_slice(), &[Some(News::Closed)]].concat();
        let stopped_again = |n| {
            // The owner goes on and stops once more.
            if n == 9 {
                assert!(world.web.is_running());
                world.web.set_running(false);
            }
        };
        let (ended, said) = world.stand(MINUTE, &news, &stopped_again);
        assert_eq!(ended, Ended::InOrder);
        assert_eq!(world.starts(), 2, "{said}");
        assert!(world.web.is_running());
        assert!(world.store().read("prod").unwrap().is_some(), "its owner removes it");
    }
}

#[test]
fn a_window_that_stopped_nothing_yet_is_left_alone_even_past_its_time() {
    let world = World::new();
    world.write(Phase::Armed, false);
    let (_, _) = world.stand(MINUTE, &[None, None, None, Some(News::Closed)], &|_| {});
    assert_eq!(world.starts(), 0);
}

#[test]
fn a_start_under_way_is_given_its_time() {
    let world = World::new();
    world.write(Phase::Starting, false);
    let news = [[None; 100].as_slice(), &[Some(News::Closed)]].concat();
    world.stand(MINUTE, &news, &|_| {});
    assert_eq!(world.starts(), 0, "49 s of 60 s");
    let news = [[None; 130].as_slice(), &[Some(News::Closed)]].concat();
    world.stand(MINUTE, &news, &|_| {});
    assert_eq!(world.starts(), 1);
}

#[test]
fn an_owner_that_is_no_child_is_watched_by_its_number() {
    let world = World::new();
    let store = world.store();
    let alive = world.write(Phase::Stopping, false);
    assert_eq!(by_process(&store, &alive, &*world.clock)(MINUTE), None);
    store.remove("prod").unwrap();
    assert_eq!(by_process(&store, &alive, &*world.clock)(MINUTE), Some(News::Closed));
    let dead = world.write(Phase::Stopping, true);
    assert_eq!(by_process(&store, &dead, &*world.clock)(MINUTE), Some(News::Gone));
}

#[test]
fn holds_end_with_their_owner_and_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SimClock::new();
    let owner = Owner::this_process().unwrap();
    let later = crate::base::time::Timestamp { secs: Clock::now(&clock).secs + 60, nanos: 0 };
    let put = |name: &str, hold: &Hold| {
        let path = dir.path().join(name);
        std::fs::write(path, serde_json::to_vec(hold).unwrap()).unwrap();
    };
    put("hold-a.service", &Hold { deadline: later, owner: owner.clone() });
    put("hold-late", &Hold { deadline: Clock::now(&clock), owner: owner.clone() });
    let dead = Owner { start_time: owner.start_time + 1, ..owner.clone() };
    put("hold-dead", &Hold { deadline: later, owner: dead.clone() });
    put("hold-far", &Hold { deadline: later, owner: Owner { boot_id: "far".into(), ..dead } });
    std::fs::write(dir.path().join("hold-odd"), "?").unwrap();
    std::fs::write(dir.path().join("other"), "?").unwrap();
    let mut gone = sweep_holds(&dir.path().to_owned(), &clock);
    gone.sort();
    let names = ["hold-dead", "hold-late", "hold-odd"].map(|name| dir.path().join(name));
    assert_eq!(gone, names);
    clock.advance(MINUTE);
    assert_eq!(sweep_holds(&dir.path().to_owned(), &clock).len(), 2);
    assert!(dir.path().join("other").exists());
}

#[test]
fn a_unit_watches_beside_the_process_and_knows_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let shim = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let log = dir.path().join("log");
    let note = format!("echo \"$@\" >>{}", log.display());
    let systemd = GuardUnits {
        run_program: shim("run", &note),
        control_program: shim("control", &note),
        program: "/usr/bin/cabk".into(),
        env: vec![("PATH".into(), "/bin".into())],
    };
    // Says that it watches, and ends: a helper that did its work.
    let program = shim("helper", "exit 0");
    let clock: Arc<dyn Clock> = Arc::new(crate::host::clock::SystemClock);
    let guards = OutsideGuards::new(&program, Path::new("/var/lib/cabk"), clock);
    let guards = guards.with_units(Some(systemd.clone()));
    let world = World::new();
    let mut intent = world.store().read("prod").unwrap().unwrap();
    intent.deadline = crate::base::time::Timestamp { secs: i64::MAX / 2, nanos: 0 };
    guards.arm(&intent).unwrap().dismiss();
    let said = std::fs::read_to_string(&log).unwrap();
    let (made, ended) = said.split_once('\n').unwrap();
    for part in [
        "--collect",
        "--property=ExecStopPost=/usr/bin/cabk window recover",
        "--property=RuntimeMaxSec=",
        "--setenv=CABK_STATE_DIR=/var/lib/cabk",
        "-- /usr/bin/cabk window guard --state-dir /var/lib/cabk",
        "--site=prod --by-process",
    ] {
        assert!(made.contains(part), "{part}: {made}");
    }
    assert!(!made.contains("PASSWORD"), "{made}");
    assert!(ended.starts_with("--no-block stop -- cabk-guard-"), "{ended}");

    // For commands the process alone watches: a unit has another environment than they expect.
    std::fs::remove_file(&log).unwrap();
    let commands = World::new().commands();
    let intent = commands.store().read("prod").unwrap().unwrap();
    guards.arm(&intent).unwrap().dismiss();
    assert!(!log.exists());
    // One that cannot be made is told, and nothing is stopped.
    let refused = GuardUnits { run_program: shim("no", "echo no bus >&2; exit 1"), ..systemd };
    let clock: Arc<dyn Clock> = Arc::new(crate::host::clock::SystemClock);
    let guards = OutsideGuards::new(&program, Path::new("/x"), clock).with_units(Some(refused));
    let intent = world.store().read("prod").unwrap().unwrap();
    let error = guards.arm(&intent).err().unwrap().to_string();
    assert!(error.contains("no bus"), "{error}");
}
