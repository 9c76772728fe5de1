use std::path::PathBuf;

use super::*;
use crate::base::time::Timestamp;
use crate::host::clock::{SimClock, SystemClock};
use crate::host::run::CommandLine;
use crate::host::service::sim::{SimFault, SimService};
use crate::host::service::{Action, ServiceState, ServiceStatus};
use crate::window::intent::IntentCommand::Shell;
use crate::window::status::{WindowStatus, status};

/// Two services of which one ran, and the intent of a run that was killed.
struct World {
    dir: tempfile::TempDir,
    clock: Arc<SimClock>,
    web: Arc<SimService>,
    other: Arc<SimService>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(SimClock::new());
        let make = |name: &str, runs| {
            let clock: Arc<dyn Clock> = clock.clone();
            let service = SimService::new(name, "local", clock);
            service.set_running(runs);
            Arc::new(service)
        };
        let (web, other) = (make("web", true), make("other", false));
        let world = Self { dir: tempfile::tempdir().unwrap(), clock, web, other };
        let mut intent = world.intent("prod");
        intent.owner.start_time += 1;
        world.store().write(&intent).unwrap();
        world.web.set_running(false);
        world
    }

    fn store(&self) -> IntentStore {
        IntentStore::open(self.dir.path())
    }

    fn intent(&self, site: &str) -> Intent {
        let mut intent = Intent::new(site, self.clock.now(), self.clock.now()).unwrap();
        for service in [&self.web, &self.other] {
            let how = ServiceKind::Systemd { unit: service.label(), sudo: false };
            let was = service.status().unwrap();
            let label = service.label();
            intent.services.push(IntentService::new("local".into(), label, how, &was));
        }
        intent
    }

    fn recover(&self, force: bool) -> Recovery {
        let make = |_: &Intent, service: &IntentService| -> Result<Arc<dyn Service>, _> {
            let real = if service.service == "web" { &self.web } else { &self.other };
            Ok(real.clone() as Arc<dyn Service>)
        };
        super::recover(self.dir.path(), &make, &*self.clock, force).unwrap()
    }
}

#[test]
fn what_ran_is_started_once_and_the_rest_is_left_alone() {
    let world = World::new();
    let seen = status(world.dir.path(), Timestamp::EPOCH).unwrap();
    assert!(seen.open && seen.stale && seen.nodes.len() == 2);
    assert_eq!(seen.since, world.store().read("prod").unwrap().map(|intent| intent.time));
    let done = world.recover(false);
    assert!(world.web.is_running() && !world.other.is_running());
    assert!(done.errors.is_empty() && done.not_running().next().is_none());
    let outcomes: Vec<&Outcome> = done.services.iter().map(|one| &one.outcome).collect();
    assert!(matches!(outcomes[..], [Outcome::LeftAlone, Outcome::Runs(_)]), "{outcomes:?}");
    assert!(!world.other.calls().contains(&Action::Start));
    let again = world.recover(false);
    assert!(again.services.is_empty() && again.open.is_empty());
    assert_eq!(world.web.calls().iter().filter(|call| **call == Action::Start).count(), 1);
    assert_eq!(status(world.dir.path(), Timestamp::EPOCH).unwrap(), WindowStatus::default());
}

#[test]
fn a_start_that_fails_is_tried_again_by_the_next() {
    let world = World::new();
    world.web.script(SimFault::StartFails("no port".into()));
    let done = world.recover(false);
    let message = done.not_running().next().unwrap().message();
    assert!(message.contains("no port") && message.contains("systemctl start web"), "{message}");
    assert!(status(world.dir.path(), Timestamp::EPOCH).unwrap().stale);
    world.web.script(SimFault::StartDies);
    assert_eq!(world.recover(false).not_running().count(), 1);
    assert_eq!(world.recover(false).not_running().count(), 0);
    assert!(world.web.is_running() && !status(world.dir.path(), Timestamp::EPOCH).unwrap().open);
}

#[test]
fn a_living_window_is_left_alone_unless_forced() {
    let world = World::new();
    let store = world.store();
    let mut intent = store.read("prod").unwrap().unwrap();
    intent.owner.start_time -= 1;
    store.write(&intent).unwrap();
    let seen = status(world.dir.path(), Timestamp::EPOCH).unwrap();
    assert!(seen.open && !seen.stale);
    assert_eq!(world.recover(false).open, ["prod"]);
    let wait = Duration::from_secs(5);
    let lock = SiteLock::acquire(&store, "prod", wait, &SystemClock, &Interrupt::manual()).unwrap();
    assert_eq!(world.recover(false).open, ["prod"]);
    assert!(!world.web.is_running());
    world.recover(true);
    assert!(world.web.is_running() && store.read("prod").unwrap().is_none());
    assert_eq!(lock.site(), "prod");
}

#[test]
fn the_next_run_recovers_under_its_own_lock() {
    let world = World::new();
    let store = world.store();
    let wait = Duration::from_secs(5);
    let lock = SiteLock::acquire(&store, "prod", wait, &SystemClock, &Interrupt::manual()).unwrap();
    let make = |_: &Intent, _: &IntentService| -> Result<Arc<dyn Service>, ServiceError> {
        Ok(world.web.clone())
    };
    let done = recover_locked(&store, &lock, &make, &*world.clock).unwrap();
    assert_eq!(done.services.len(), 2);
    assert!(world.web.is_running() && store.read("prod").unwrap().is_none());
    let again = recover_locked(&store, &lock, &make, &*world.clock).unwrap();
    assert!(again.services.is_empty());
}

#[test]
fn a_damaged_intent_does_not_keep_others_down() {
    let world = World::new();
    let path = world.dir.path().join("windows/aaa.json");
    std::fs::write(&path, "{").unwrap();
    let done = world.recover(false);
    assert!(world.web.is_running());
    assert_eq!(done.errors.len(), 1);
    assert!(chain(&done.errors[0]).contains("aaa.json"));
    assert!(path.exists(), "it needs a person");
    let seen = status(world.dir.path(), Timestamp::EPOCH).unwrap();
    assert!(seen.open && seen.stale && seen.problems.len() == 1);
}

/// A toy service by commands: it runs while a file is there, and each start adds a line.
struct Toy {
    dir: tempfile::TempDir,
    clock: Arc<dyn Clock>,
}

impl Toy {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: Arc::new(SystemClock) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn intent(&self, stop: &str, status: bool) -> Intent {
        let place = self.dir.path().display();
        let start = format!("cd {place} && echo \"$CABK_SITE $CABK_WAS\" >>starts && touch runs");
        let how = ServiceKind::Commands {
            stop: Shell(format!("cd {place} && {stop}")),
            start: Shell(start),
            status: status.then(|| Shell(format!("test -e {place}/runs || exit 3"))),
        };
        let unknown = ServiceState::Unknown("there is no status command".into());
        let state = if status { ServiceState::Running } else { unknown };
        let was = ServiceStatus::bare(state, "7");
        let mut intent = Intent::new("prod", self.clock.now(), self.clock.now()).unwrap();
        intent.owner.start_time += 1;
        intent.phase = Phase::Stopping;
        (intent.stop_timeout_ms, intent.start_timeout_ms) = (20_000, 20_000);
        intent.services.push(IntentService::new("local".into(), "toy".into(), how, &was));
        IntentStore::open(self.dir.path()).write(&intent).unwrap();
        intent
    }

    fn recover(&self) -> Recovery {
        let make =
            |intent: &Intent, service: &IntentService| service_of(intent, service, &self.clock);
        super::recover(self.dir.path(), &make, &*self.clock, false).unwrap()
    }

    fn starts(&self) -> String {
        std::fs::read_to_string(self.path("starts")).unwrap_or_default()
    }
}

#[test]
fn real_commands_start_it_again() {
    for status in [true, false] {
        let toy = Toy::new();
        toy.intent("rm runs", status);
        let done = toy.recover();
        assert!(matches!(done.services[0].outcome, Outcome::Runs(_)), "{done:?}");
        assert_eq!(toy.starts(), "prod 7\n");
        assert!(toy.path("runs").exists());
    }
}

/// The stop's command lives on when the one who ran it was killed: it would stop what `recover`
/// had just seen running.
#[test]
fn a_stop_that_is_under_way_is_waited_for() {
    let toy = Toy::new();
    std::fs::write(toy.path("runs"), "").unwrap();
    let intent = toy.intent("sleep 0.7 && rm runs", true);
    let store = IntentStore::open(toy.dir.path());
    let ServiceKind::Commands { stop, .. } = &intent.services[0].how else { panic!() };
    let CommandLine::Shell(stop) = CommandLine::from(stop) else { panic!() };
    let lock = StopLock::acquire(&store, "prod", Duration::ZERO, &SystemClock).unwrap().unwrap();
    let mut orphan = lock
        .inherited(|| std::process::Command::new("/bin/sh").args(["-c", &stop]).spawn().unwrap())
        .unwrap();
    drop(lock);
    let done = toy.recover();
    assert!(matches!(done.services[0].outcome, Outcome::Runs(_)), "{done:?}");
    assert!(orphan.try_wait().unwrap().is_some(), "the stop has ended");
    assert!(toy.path("runs").exists());
    assert_eq!(toy.starts(), "prod 7\n");
}

/// So does the start's: a second one beside it might start two.
#[test]
fn a_start_that_is_under_way_is_not_doubled() {
    let toy = Toy::new();
    let mut intent = toy.intent("rm runs", true);
    intent.phase = Phase::Starting;
    IntentStore::open(toy.dir.path()).write(&intent).unwrap();
    let late = format!("sleep 0.5; touch {}", toy.path("runs").display());
    let mut orphan = std::process::Command::new("/bin/sh").args(["-c", &late]).spawn().unwrap();
    toy.recover();
    orphan.wait().unwrap();
    assert_eq!(toy.starts(), "");
    assert!(!status(toy.dir.path(), Timestamp::EPOCH).unwrap().open);
}
