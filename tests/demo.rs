//! `cabk demo` from outside: it shows what it should, and leaves nothing behind.

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabk::host::clock::{Clock, SystemClock};
use common::skip;

/// One demonstration at a time: each measures a downtime.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn temporary() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("demo-test-").tempdir().unwrap()
}

/// `cabk` with nothing of this environment but where it may put its temporary directory.
fn cabk(program: &Path, args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("TMPDIR", dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn own() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cabk"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Processes of the demonstration in this directory, whoever their parent is.
fn living(dir: &Path) -> BTreeSet<u32> {
    let wanted = dir.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        // A process that ends while it is looked at is gone.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(wanted)
    })
    .collect()
}

fn nothing_is_left(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(living(dir), BTreeSet::new());
}

fn succeeded(output: &Output) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
}

fn step<'a>(report: &'a serde_json::Value, name: &str, number: usize) -> &'a serde_json::Value {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().filter(|step| step["step"] == name).nth(number).unwrap()
}

/// What the one document of `--json` must say.
fn is_right(output: &Output) {
    succeeded(output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    assert!(number(&report["duration_ms"]) < 30_000, "{}", report["duration_ms"]);
    let (first, second) = (step(&report, "snapshot", 0), step(&report, "snapshot", 1));
    for taken in [first, second] {
        assert_eq!((&taken["kind"], &taken["restorable"]), (&"snapshot".into(), &true.into()));
        assert!(number(&taken["downtime_ms"]) <= number(&taken["duration_ms"]));
        assert_ne!(taken["pids"][0], taken["pids"][1]);
        let evidence = taken["evidence"].as_array().unwrap();
        assert!(evidence.iter().all(|one| one["held"] == true));
    }
    assert!(number(&second["bytes_added"]) < number(&first["bytes_added"]));
    assert!(number(&second["rows_at_stop"]) > number(&first["rows_at_stop"]));
    let capture = step(&report, "capture", 0);
    assert_eq!((&capture["kind"], &capture["restorable"]), (&"capture".into(), &false.into()));
    let evidence = capture["evidence"].as_array().unwrap();
    let broken = evidence.iter().filter(|one| one["held"] == false);
    let broken: BTreeSet<&str> = broken.map(|one| one["check"].as_str().unwrap()).collect();
    assert!(broken.contains("tree-unchanged"), "{broken:?}");
    let refused = step(&report, "refused", 0);
    assert_eq!((&refused["exit"], &refused["id"]), (&21.into(), &capture["id"]));
    assert_eq!(step(&report, "restored", 0)["id"], second["id"]);
    let compared = step(&report, "compared", 0);
    assert_eq!(compared["differences"], serde_json::json!([]));
    assert_eq!(compared["bytes"], second["bytes"]);
    let database = step(&report, "database", 0);
    assert_eq!(
        (&database["integrity"], &database["rows"]),
        (&"ok".into(), &second["rows_at_stop"])
    );
}

#[test]
fn it_tells_each_step_and_leaves_nothing_behind() {
    let _alone = alone();
    let dir = temporary();
    let output = cabk(own(), &["demo"], dir.path()).output().unwrap();
    succeeded(&output);
    let told = text(&output.stdout);
    for words in [
        "The first snapshot",
        "The second snapshot",
        "service down for",
        "capture, never restorable",
        "not held: tree-unchanged",
        "refused, exit code 21",
        "no difference",
        "integrity_check ok",
        "showed what they should",
    ] {
        assert!(told.contains(words), "{words} is not in:\n{told}");
    }
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    nothing_is_left(dir.path());
}

#[test]
fn json_is_one_document() {
    let _alone = alone();
    let dir = temporary();
    is_right(&cabk(own(), &["--json", "demo"], dir.path()).output().unwrap());
    nothing_is_left(dir.path());
}

#[test]
fn no_root_is_needed() {
    if !rustix::process::geteuid().is_root() {
        return skip("this is no root: the other tests of the demonstration show it already");
    }
    let _alone = alone();
    let dir = temporary();
    // Where nobody may read the program's own directory, a copy serves.
    let program = dir.path().join("cabk");
    std::fs::copy(own(), &program).unwrap();
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    for path in [dir.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&scratch, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(&program).args(["--json", "demo"]).current_dir("/");
    command.env_clear().env("TMPDIR", &scratch).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.code() == Some(126) => {
            skip("a copy of the program cannot be run by another user here");
        }
        Ok(output) => is_right(&output),
        Err(error) => skip(&format!("setpriv cannot be run: {error}")),
    }
    nothing_is_left(&scratch);
}

/// Waits until a process of the demonstration plays this part.
fn wait_for_part(dir: &Path, part: &str, child: &mut Child) {
    let began = SystemClock.monotonic();
    let plays = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|word| word == part.as_bytes())
    };
    while !living(dir).iter().any(plays) {
        assert!(
            SystemClock.monotonic() - began < Duration::from_secs(60),
            "no process plays {part}"
        );
        assert!(child.try_wait().unwrap().is_none(), "it ended before {part}");
        SystemClock.sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_signal_ends_it_and_all_that_it_started() {
    // While the service lives, while it is being stopped in a window, and while it is disturbed.
    for (part, signal) in [("run", "-INT"), ("stop", "-INT"), ("render", "-TERM")] {
        let _alone = alone();
        let signal = if common::ignores_interrupts() { "-TERM" } else { signal };
        let dir = temporary();
        let mut command = cabk(own(), &["demo"], dir.path());
        // A terminal's signal goes to the whole group.
        let mut child = command.process_group(0).spawn().unwrap();
        wait_for_part(dir.path(), part, &mut child);
        let group = format!("-{}", child.id());
        // The shell's own: the program of this name is not everywhere.
        let order = format!("kill {signal} {group}");
        let sent = Command::new("sh").args(["-c", &order]).status().unwrap();
        assert!(sent.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{part}: {}", text(&output.stderr));
        let told = text(&output.stderr);
        assert!(told.contains("interrupted; nothing is left behind"), "{part}: {told}");
        nothing_is_left(dir.path());
    }
}

#[test]
fn a_kill_ends_what_it_started_too() {
    let _alone = alone();
    let dir = temporary();
    let mut child = cabk(own(), &["demo"], dir.path()).spawn().unwrap();
    wait_for_part(dir.path(), "render", &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let began = SystemClock.monotonic();
    while !living(dir.path()).is_empty() {
        assert!(
            SystemClock.monotonic() - began < Duration::from_secs(20),
            "{:?}",
            living(dir.path())
        );
        SystemClock.sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_toy_service_is_no_command_to_be_seen() {
    for args in [&["--help"][..], &["completions", "bash"]] {
        let output = Command::new(own()).args(args).output().unwrap();
        assert!(!text(&output.stdout).contains("demo-service"), "{args:?}");
    }
}
