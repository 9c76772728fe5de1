//! Restoring in place. Here: over a newer database whose writer was killed, with a hot journal, and
//! with a WAL. Rows and integrity are the snapshot's.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

mod common;
#[path = "common/seen.rs"]
mod seen;
#[path = "common/world.rs"]
mod world;

#[path = "in_place/killed.rs"]
mod killed;
#[path = "in_place/owners.rs"]
mod owners;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// In a child of this test: which mode to write in, and where.
const MODE: &str = "CABK_TEST_WRITER_MODE";
const FILE: &str = "CABK_TEST_WRITER_FILE";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.path("data")).unwrap();
        place.cabk(&["init", "--no-encryption"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cabk(&self, args: &[&str]) -> Output {
        self.cabk_with(args, &self.path("repo"))
    }

    fn cabk_with(&self, args: &[&str], repository: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cabk"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("CABK_REPO", repository)
            .env("CABK_STATE_DIR", self.path("state"))
            .env("CABK_CACHE_DIR", self.path("cache"))
            .env("CABK_CONFIG", self.config());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
        output
    }

    /// No space is kept free, and a test that cannot see all processes says so.
    fn config(&self) -> PathBuf {
        let path = self.path("cabk.toml");
        let text = "[repository]\nmin_free = \"0 B\"\n\n\
                    [evidence]\nassert = [\"no-process-in-tree\"]\n";
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn rows(path: &Path) -> (i64, String) {
    let db = rusqlite::Connection::open(path).unwrap();
    let count = db.query_row("select count(*) from t where v = 'old'", [], |r| r.get(0)).unwrap();
    let check = db.query_row("pragma integrity_check", [], |r| r.get(0)).unwrap();
    (count, check)
}

/// The child: changes all rows, lets some of it reach the disk, and dies.
#[test]
fn writer() {
    let (Ok(mode), Ok(file)) = (std::env::var(MODE), std::env::var(FILE)) else { return };
    let db = rusqlite::Connection::open(file).unwrap();
    db.pragma_update(None, "journal_mode", &mode).unwrap();
    db.pragma_update(None, "cache_size", 10).unwrap();
    db.execute_batch("update t set v = 'committed later';").unwrap();
    db.execute_batch("begin; update t set v = 'never committed' || id;").unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn over_a_killed_writer(mode: &str, left_behind: &str) {
    let place = Place::new();
    let file = place.path("data/connect.db");
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute_batch("create table t (id integer primary key, v text); begin;").unwrap();
    for id in 0..5_000 {
        db.execute("insert into t values (?1, 'old')", [id]).unwrap();
    }
    db.execute_batch("commit").unwrap();
    drop(db);
    let data = place.path("data");
    place.cabk(&["snapshot", "--path", data.to_str().unwrap(), "--site-name", "s"]);
    let killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env(MODE, mode)
        .env(FILE, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!killed.success());
    let companion = place.path("data").join(format!("connect.db{left_behind}"));
    let left = std::fs::metadata(&companion).expect("the killed writer leaves its companion");
    assert!(left.len() > 0);
    place.cabk(&["--site-name", "s", "restore", "latest", "--in-place"]);
    assert!(!companion.exists(), "{} is still there", companion.display());
    assert_eq!(rows(&file), (5_000, "ok".into()));
}

#[test]
fn a_hot_journal_does_not_survive_the_database_it_belongs_to() {
    over_a_killed_writer("delete", "-journal");
}

#[test]
fn a_wal_does_not_survive_the_database_it_belongs_to() {
    over_a_killed_writer("wal", "-wal");
}

#[test]
fn the_repository_and_what_cabk_keeps_outlast_a_restore_from_a_copy() {
    let place = Place::new();
    let top = place.dir.path().to_str().unwrap();
    std::fs::write(place.path("data/file"), "kept").unwrap();
    place.cabk(&["snapshot", "--path", top, "--site-name", "s"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    let copied = Command::new("cp").arg("-a").arg(place.path("repo")).arg(&copy).status().unwrap();
    assert!(copied.success());
    std::fs::write(place.path("data/file"), "newer").unwrap();
    std::fs::write(place.path("extra"), "too much").unwrap();
    place.cabk_with(&["--site-name", "s", "restore", "latest", "--in-place"], &copy);
    assert_eq!(std::fs::read_to_string(place.path("data/file")).unwrap(), "kept");
    assert!(!place.path("extra").exists());
    assert!(place.path("state").read_dir().unwrap().next().is_some());
    assert!(place.path("cache").exists());
    // Both are whole: neither is an extra of the other's snapshot.
    place.cabk(&["check", "--read-data"]);
    place.cabk_with(&["check", "--read-data"], &copy);
}
