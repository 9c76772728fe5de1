//! A restore of a whole snapshot into a new directory; beside it the same files made from memory by
//! plain writes, without names of owners, times or checks.

mod common;
#[path = "common/repository.rs"]
mod repository;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cabk::base::progress::Silent;
use cabk::host::clock::SystemClock;
use cabk::host::signal::Interrupt;
use cabk::host::users::SystemOwners;
use cabk::intake::manners::Manners;
use cabk::intake::plan::ReadPlan;
use cabk::ops::restore::{RestoreInput, Target, restore};
use cabk::ops::session::{self, Location, Session};
use cabk::ops::snapshot::{FreezeWish, SnapshotInput, snapshot};
use cabk::record::snapshot::Snapshot;
use cabk::window::phases::{Mode, Plan};
use common::{RUNS, Table, Took, Work, scratch, sized, text, time};

/// Files of one directory.
const PER_DIR: u64 = 50;

struct Tree {
    files: Vec<(PathBuf, Vec<u8>)>,
    dirs: Vec<PathBuf>,
    bytes: u64,
}

/// Small files as of unpacked applications, and one of 1 MiB for each two hundred of them.
fn tree(files: u64) -> Tree {
    let words = text((2 << 20) + 1, 1);
    let mut tree = Tree { files: vec![], dirs: vec![], bytes: 0 };
    for n in 0..files {
        let dir = PathBuf::from(format!("{}/{}", n / PER_DIR / 40, n / PER_DIR));
        if n % PER_DIR == 0 {
            tree.dirs.push(dir.clone());
        }
        let len = if n % 200 == 0 { 1 << 20 } else { 200 + (n as usize * 131) % 8_000 };
        let from = (n as usize * 97) % (1 << 20);
        let content = words[from..from + len].to_vec();
        tree.bytes += len as u64;
        tree.files.push((dir.join(format!("file-{n}.js")), content));
    }
    tree
}

fn write(tree: &Tree, root: &Path) {
    for dir in &tree.dirs {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for (path, content) in &tree.files {
        fs::write(root.join(path), content).unwrap();
    }
}

fn take(session: Session, source: &Path, dir: &Path) -> Snapshot {
    let repository = Arc::clone(&session.repository);
    let path = source.to_str().unwrap().as_bytes().to_vec();
    let window = Plan {
        site: "bench".into(),
        services: vec![],
        others: Vec::new(),
        mode: Mode::NoService,
        leave_stopped: false,
        allow_capture: false,
        stop_timeout: Duration::from_secs(5),
        start_timeout: Duration::from_secs(5),
        max_downtime: Duration::from_secs(3600),
        wait_quiet: Duration::from_secs(1),
        health: None,
        rules: Default::default(),
    };
    let input = SnapshotInput {
        window,
        plan: ReadPlan::new(vec![path], &[]).unwrap(),
        sources: vec![],
        sqlite_dirs: vec![],
        connect_version: None,
        against: vec![],
        warnings: vec![],
        freeze: FreezeWish::none(),
        tags: vec![],
        precopy: false,
        wait_idle: Duration::ZERO,
        lock_wait: Duration::ZERO,
        min_free: 0,
        read_timeout: Duration::from_secs(60),
        state_dir: dir.join("state"),
        threads: 2,
        manners: Manners::none(Arc::new(SystemClock)),
        before_reading: &|| {},
        owners: &SystemOwners::default(),
        clock: Arc::new(SystemClock),
        interrupt: Interrupt::manual(),
        guards: Arc::new(cabk::window::guard::NoGuards),
        progress: &Silent,
    };
    let report = snapshot(session, &input).unwrap();
    Snapshot::open(&repository, report.id).unwrap()
}

fn main() {
    let tree = tree(sized(5_000, 50_000));
    let dir = scratch();
    let source = dir.path().join("source");
    write(&tree, &source);
    let taken = take(repository::make(dir.path()), &source, dir.path());
    let place = Location {
        repository: dir.path().join("repository"),
        cache: Some(dir.path().join("cache")),
    };
    let reader = session::open(&place, || None).unwrap().reader();
    let (owners, interrupt) = (SystemOwners::default(), Interrupt::manual());
    let again = |verify: bool| {
        let target = dir.path().join("target");
        let input = RestoreInput {
            reader: &reader,
            snapshot: &taken,
            subtree: None,
            target: Target::Directory(target.clone()),
            include: vec![],
            exclude: vec![],
            kept: vec![],
            delete: false,
            keep_extra: false,
            numeric_ids: false,
            map_user: vec![],
            map_group: vec![],
            owners: &owners,
            host: "bench",
            with_license: false,
            dry_run: false,
            verify,
            interrupt: &interrupt,
            progress: &Silent,
            threads: 2,
        };
        let (took, report) = time(|| restore(&input).unwrap());
        assert_eq!((report.problems_total, report.bytes), (0, tree.bytes));
        fs::remove_dir_all(target).unwrap();
        took
    };

    let (files, mib) = (tree.files.len() as u64, tree.bytes >> 20);
    let mut table = Table::new(&format!("restore, {files} files, {mib} MiB"));
    let plain = |sync: bool| {
        let target = dir.path().join("plain");
        fs::create_dir(&target).unwrap();
        let (took, ()) = time(|| {
            write(&tree, &target);
            if sync {
                rustix::fs::syncfs(fs::File::open(&target).unwrap()).unwrap();
            }
        });
        fs::remove_dir_all(target).unwrap();
        took
    };
    let times = |f: &dyn Fn() -> Took| (0..RUNS).map(|_| f()).collect::<Vec<_>>();
    let work = Work::Items(files);
    table.given_floor("plain writes, one thread", work, times(&|| plain(false)));
    table.given("restore", work, times(&|| again(false)));
    table.given("restore, read back", work, times(&|| again(true)));
    table.given("plain writes, then syncfs", work, times(&|| plain(true)));
}
