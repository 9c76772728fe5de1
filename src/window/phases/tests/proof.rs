//! Invariant 4: whatever was not seen to hold makes no proof.

use super::*;

#[test]
fn a_process_in_the_tree_breaks_it_and_is_named() {
    for (what, words) in [
        (writer(), "open for writing (descriptor 4)"),
        (reader(), "open for reading (descriptor 4)"),
        (UseKind::Cwd, "as its current directory"),
        (UseKind::Map { writable: true }, "mapped for writing"),
    ] {
        let world = World::new();
        world.scripted([clean(), used_by(42, what)]);
        let disturbed = disturbed(prove(world.quiesce()));
        let one = named(disturbed.evidence(), "no-process-in-tree").clone();
        let expected =
            format!("after the reading: process 42 (R: R --slave) has /srv/a\\u{{1b}}b {words}");
        assert_eq!((one.held, one.detail), (false, expected));
        assert_eq!(disturbed.restart().record.downtime_ms, Some(4000));
        world.assert_in_order();
    }
}

#[test]
fn processes_have_their_time_to_leave() {
    let world = World::new();
    world.scripted((0..5).map(|_| used_by(42, writer())).chain([clean()]));
    let quiescent = world.quiesce();
    assert!(quiescent.intruders().is_empty());
    undisturbed(prove(quiescent));

    let world = World::new();
    world.scripted((0..500).map(|_| used_by(42, writer())));
    let began = world.clock.monotonic();
    let quiescent = world.quiesce();
    assert_eq!(quiescent.intruders().len(), 1);
    assert_eq!(world.clock.monotonic() - began, 2 * MINUTE + 2 * SECOND);
    *world.observer.scans.lock().unwrap() = VecDeque::from([clean()]);
    let reasons = disturbed(prove(quiescent)).reasons();
    assert!(reasons[0].contains("before the reading: process 42"), "{reasons:?}");
}

#[test]
fn a_mere_reader_is_waited_for_only_where_nothing_tells_of_changes() {
    let stop = |what: UseKind, by_events: bool| {
        let world = World::new();
        world.scripted([used_by(42, what)]);
        let stopped = world.stop().unwrap();
        let began = world.clock.monotonic();
        let set = HashSet::new();
        let trees = trees(&set);
        drop(match by_events {
            true => stopped.quiesce_beside(&trees, || ()).unwrap().0,
            false => stopped.quiesce(&trees).unwrap(),
        });
        // Dropping it started the services, which take a second each.
        world.clock.monotonic() - began - 2 * SECOND
    };
    assert_eq!(stop(reader(), true), Duration::ZERO);
    assert_eq!(stop(UseKind::Cwd, true), Duration::ZERO);
    for (what, by_events) in [(reader(), false), (writer(), true), (writer(), false)] {
        assert_eq!(stop(what, by_events), 2 * MINUTE, "{what:?}");
    }
}

#[test]
fn tolerated_programs_may_read_and_not_write() {
    let mut world = World::new();
    world.plan.rules.allow = vec!["/usr/sbin/scanner".into()];
    world.observer.programs.lock().unwrap().push(42);
    world.scripted([used_by(42, reader())]);
    let proof = undisturbed(prove(world.quiesce()));
    let detail = &named(proof.evidence(), "no-process-in-tree").detail;
    assert!(detail.contains("tolerated by the configuration: process 42"), "{detail}");
    world.observer.scans.lock().unwrap().push_front(used_by(42, writer()));
    world.plan.wait_quiet = Duration::ZERO;
    drop(proof);
    disturbed(prove(world.quiesce()));
}

#[test]
fn what_cannot_be_seen_is_not_held_unless_asserted() {
    let hidden = |pids: Vec<u32>, host: bool| {
        let mut scan = clean();
        scan.scope.unreadable = pids;
        scan.scope.pid_namespace_is_host = host;
        scan
    };
    let check = |scan: ScanResult, asserted: bool| {
        let mut world = World::new();
        if asserted {
            world.plan.rules.asserts = vec!["no-process-in-tree".into()];
        }
        world.scripted([scan]);
        let proven = prove(world.quiesce());
        let evidence = match &proven {
            Proven::Undisturbed(one) => one.evidence(),
            Proven::Disturbed(one) => one.evidence(),
        };
        let one = named(evidence, "no-process-in-tree");
        (one.held, one.how, one.detail.clone(), one.scope.clone())
    };
    let (held, how, detail, _) = check(hidden(vec![1], true), false);
    assert!(held && how == How::Observed && detail.contains("process 1 could not"), "{detail}");
    let (held, .., scope) = check(hidden(vec![1, 9], true), false);
    assert_eq!((held, &*scope), (false, "host without 1 processes"));
    assert!(!check(hidden(vec![], false), false).0);
    let (held, how, detail, scope) = check(hidden(vec![], false), true);
    assert_eq!((held, how, &*scope), (true, How::Asserted, "pid namespace"));
    assert!(detail.starts_with("asserted by the operator, because "), "{detail}");
    let seen = ScanResult { uses: used_by(4, writer()).uses, ..hidden(vec![], false) };
    assert!(!check(seen, true).0, "no assertion covers what was seen");
}

#[test]
fn the_services_are_looked_at_again() {
    let change = |act: fn(&World)| {
        let world = World::new();
        let quiescent = world.quiesce();
        act(&world);
        let disturbed = disturbed(prove(quiescent));
        let detail = named(disturbed.evidence(), "service-stopped").detail.clone();
        disturbed.restart();
        assert!(world.web.is_running() && !world.has_intent());
        detail
    };
    assert!(change(|world| world.web.set_running(true)).starts_with("it runs"));
    let again = change(|world| {
        world.web.set_running(true);
        world.web.set_running(false);
    });
    assert_eq!(again, "it was started and stopped again in between");
    let left = change(|world| world.web.leave_behind(vec![77]));
    assert_eq!(left, "processes are left in its control group: 77");
    let unknown = change(|world| {
        (0..3).for_each(|_| world.web.script(SimFault::StatusUnknown("?".into())));
    });
    assert_eq!(unknown, "this cannot be told: ?");
}

#[test]
fn a_window_longer_than_the_downtime_proves_nothing() {
    let world = World::new();
    let quiescent = world.quiesce();
    assert!(!quiescent.due().is_over());
    world.clock.advance(30 * MINUTE);
    assert!(quiescent.due().is_over());
    let disturbed = disturbed(prove(quiescent));
    let detail = &named(disturbed.evidence(), "service-stopped").detail;
    assert!(detail.ends_with("after the longest downtime of 30m 0s"), "{detail}");
    disturbed.restart();
    world.assert_in_order();
}

#[test]
fn waiting_for_quiet_ends_with_the_downtime() {
    let mut world = World::new();
    world.plan.max_downtime = 10 * SECOND;
    world.scripted([used_by(42, writer())]);
    let began = world.clock.monotonic();
    assert!(world.quiesce().due().is_over());
    assert!(world.clock.monotonic() - began <= 13 * SECOND);
}

#[test]
fn looks_that_are_missing_or_found_something() {
    let judge = |change: fn(&mut SecondLook)| {
        let world = World::new();
        let mut look = all_well();
        change(&mut look);
        let proven = world.quiesce().prove_unmoved(&look, &trees(&HashSet::new())).unwrap();
        disturbed(proven).reasons()
    };
    assert_eq!(
        judge(|look| look.trees.clear()),
        ["tree-unchanged: the sources: no tree was looked at again"]
    );
    assert_eq!(judge(|look| look.sources.clear()).len(), 1);
    let changed = judge(|look| {
        look.trees[0].changed = 9;
        look.trees[0].examples = vec![b"/srv/x\ny".to_vec()];
    });
    assert_eq!(changed, ["tree-unchanged: /srv: second scan: 9 changed: /srv/x\\ny"]);
    assert_eq!(judge(|look| look.sources[0].whole = false).len(), 1);
}

#[test]
fn readers_are_told_and_break_nothing_where_events_are() {
    let reading = UseKind::Fd { fd: 3, writable: false, flags: 0 };
    let nothing = HashSet::new();
    let one = |events: bool, what: UseKind| {
        let mut world = World::new();
        world.plan.wait_quiet = Duration::ZERO;
        world.scripted([used_by(42, what)]);
        let mut look = all_well();
        look.trees[0].by_events = events;
        let trees = trees(&nothing);
        match world.quiesce().prove_unmoved(&look, &trees).unwrap() {
            Proven::Undisturbed(proof) => proof.evidence().to_vec(),
            Proven::Disturbed(proof) => proof.evidence().to_vec(),
        }
    };
    for (events, what, held) in [
        (true, reading, true),
        (true, UseKind::Cwd, true),
        (true, UseKind::Map { writable: true }, false),
        (true, writer(), false),
        (false, reading, false),
        (false, UseKind::Cwd, false),
    ] {
        let all = one(events, what);
        let seen = all.iter().find(|e| e.check == "no-process-in-tree").unwrap();
        assert_eq!(seen.held, held, "{what:?} {events}: {}", seen.detail);
        assert!(seen.detail.contains("process 42"), "{}", seen.detail);
        assert_eq!(seen.detail.contains(evidence::ONLY_READS), held, "{}", seen.detail);
    }
}

#[test]
fn locks_on_a_database_break_it_and_leftovers_do_not() {
    let world = World::new();
    let file =
        |ending: &str, ino| SqliteFile { ending: ending.into(), device: (8, 1), ino, bytes: 4096 };
    let group = SqliteGroup { path: b"/srv/db".into(), files: vec![file("", 5), file("-wal", 6)] };
    let look = SecondLook { sqlite: vec![group], ..all_well() };
    let set = HashSet::new();
    let proof = undisturbed(world.quiesce().prove_unmoved(&look, &trees(&set)).unwrap());
    let one = named(proof.evidence(), "sqlite-settled");
    assert_eq!(one.detail, "no process holds a lock; there is a WAL of 4096 bytes");
    drop(proof);
    world.observer.locks.lock().unwrap().held.push(FileLock {
        kind: LockKind::Posix,
        write: true,
        pid: Some(42),
        dev: (8, 1),
        ino: 6,
        range: (120, None),
    });
    let disturbed = disturbed(world.quiesce().prove_unmoved(&look, &trees(&set)).unwrap());
    let one = named(disturbed.evidence(), "sqlite-settled");
    assert!(one.detail.starts_with("process 42 holds a write lock on the -wal"), "{}", one.detail);
}

#[test]
fn stopped_already_is_observed_where_it_can_be() {
    let mut world = World::new();
    world.plan.mode = Mode::AlreadyStopped;
    world.web.set_running(false);
    world.worker.set_running(false);
    (0..9).for_each(|_| world.worker.script(SimFault::StatusUnknown("no answer".into())));
    let closed = undisturbed(prove(world.quiesce())).restart();
    let how: Vec<How> = closed.evidence.iter().take(2).map(|one| one.how).collect();
    assert_eq!(how, [How::Observed, How::Asserted]);
    assert!(!world.web.calls().contains(&Action::Start) && closed.record.stopped_at.is_none());
    world.plan.mode = Mode::NoService;
    world.plan.services.clear();
    let closed = undisturbed(prove(world.quiesce())).restart();
    assert_eq!(named(&closed.evidence, "service-stopped").how, How::Asserted);
    assert!(closed.record.nodes.is_empty());
}

/// A real child holds a file while the window waits, and goes.
#[test]
fn a_real_process_leaves_late() {
    use crate::host::process::inode_of;
    use crate::window::observe::ThisMachine;

    /// Looks at this machine, and lets the child go after two looks.
    struct Impatient {
        child: Mutex<std::process::Child>,
        seen: AtomicBool,
        looks: std::sync::atomic::AtomicU32,
    }
    impl Observer for Impatient {
        fn node(&self) -> String {
            ThisMachine.node()
        }
        fn scan(&self, trees: &Trees<'_>) -> io::Result<Option<ScanResult>> {
            let mut found = ThisMachine.scan(trees)?.unwrap();
            let mut child = self.child.lock().unwrap();
            if found.uses.iter().any(|one| one.pid == child.id()) {
                self.seen.store(true, Ordering::SeqCst);
            }
            if self.looks.fetch_add(1, Ordering::SeqCst) == 1 {
                child.kill()?;
                child.wait()?;
            }
            found.scope = clean().scope;
            Ok(Some(found))
        }
        fn locks(&self) -> Result<Locks, LocksError> {
            ThisMachine.locks()
        }
        fn runs_program(&self, pid: u32, program: &Path) -> bool {
            ThisMachine.runs_program(pid, program)
        }
        fn write_back(&self, paths: &[Vec<u8>]) -> io::Result<()> {
            ThisMachine.write_back(paths)
        }
        fn clock_offset(&self) -> io::Result<Option<ClockOffset>> {
            ThisMachine.clock_offset()
        }
    }

    let world = World::new();
    let tree = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(tree.path().join("log")).unwrap();
    let child = std::process::Command::new("sleep").arg("60").stdout(log).spawn().unwrap();
    assert!(ThisMachine.runs_program(std::process::id(), &std::env::current_exe().unwrap()));
    assert!(!ThisMachine.runs_program(std::process::id(), Path::new("/bin/sh")));
    let observer = Arc::new(Impatient {
        child: Mutex::new(child),
        seen: AtomicBool::new(false),
        looks: 0.into(),
    });
    let context = Context { observer: observer.clone(), ..world.context() };
    let armed = arm(world.plan.clone(), context, &world.lock()).unwrap();
    let set = HashSet::new();
    let roots = [inode_of(tree.path()).unwrap()];
    let trees = Trees { roots: &roots, ..trees(&set) };
    let quiescent = armed.stop().unwrap().quiesce(&trees).unwrap();
    assert!(observer.seen.load(Ordering::SeqCst), "the child was seen");
    assert!(quiescent.intruders().is_empty(), "{:?}", quiescent.intruders());
    undisturbed(quiescent.prove_unmoved(&all_well(), &trees).unwrap()).restart();
    world.assert_in_order();
}
