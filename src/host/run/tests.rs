use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::*;
use crate::host::clock::SystemClock;

const LONG: Duration = Duration::from_secs(20);

fn sh(text: &str, timeout: Duration) -> Result<Finished, RunError> {
    run_bounded(&CommandLine::Shell(text.into()), &[], timeout, &SystemClock)
}

#[test]
fn output_status_and_environment_come_back() {
    let env = [("CABK_SITE", OsStr::new("a b"))];
    let line = CommandLine::Shell("echo \"$CABK_SITE\"; echo bad >&2; exit 3".into());
    let done = run_bounded(&line, &env, LONG, &SystemClock).unwrap();
    assert_eq!(done.status.code(), Some(3));
    assert_eq!(done.stdout.text(), "a b");
    assert_eq!(done.said(), "bad");
    assert_eq!(done.ending(), "exit code 3");
}

#[test]
fn arguments_reach_no_shell() {
    let line = CommandLine::Argv(vec!["printf".into(), "%s".into(), "$(id); *".into()]);
    let done = run_bounded(&line, &[], LONG, &SystemClock).unwrap();
    assert_eq!(done.stdout.kept, b"$(id); *");
}

#[test]
fn standard_input_is_empty_and_death_by_signal_is_told() {
    assert_eq!(sh("wc -c", LONG).unwrap().stdout.text().trim(), "0");
    assert_eq!(sh("kill -9 $$", LONG).unwrap().ending(), "signal 9");
}

#[test]
fn what_cannot_start_is_an_error() {
    let line = CommandLine::Argv(vec!["/nonexistent/program".into()]);
    let error = run_bounded(&line, &[], LONG, &SystemClock).unwrap_err();
    assert!(matches!(error, RunError::Spawn { .. }), "{error}");
    let empty = run_bounded(&CommandLine::Argv(vec![]), &[], LONG, &SystemClock).unwrap_err();
    assert!(matches!(empty, RunError::Empty));
}

#[test]
fn the_whole_group_dies_at_the_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let text = format!(
        "trap '' TERM; sleep 60 & echo $! > {0}; echo so far; wait; sleep 60",
        pids.display()
    );
    let began = Instant::now();
    let error = sh(&text, Duration::from_millis(300)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    let RunError::TimedOut { output, .. } = error else { panic!("{error}") };
    assert_eq!(output, "so far");
    let pid = std::fs::read_to_string(&pids).unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    // Gone, or a zombie that whoever adopted it has not reaped yet; a busy machine needs its time.
    let ended = || stat().map_or(true, |stat| stat.contains(") Z "));
    while !ended() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(ended(), "{:?}", stat());
}

#[test]
fn a_grandchild_that_keeps_the_output_open_neither_delays_nor_dies() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("alive");
    let text = format!("(sleep 0.4; echo late; touch {}) & echo started", flag.display());
    let began = Instant::now();
    let done = sh(&text, LONG).unwrap();
    assert!(began.elapsed() < Duration::from_millis(350));
    assert_eq!(done.stdout.text(), "started");
    drop(done);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !flag.exists() {
        assert!(Instant::now() < deadline, "the grandchild died");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn long_output_is_counted_and_wild_output_ends_the_program() {
    let done = sh("head -c 200000 /dev/zero", LONG).unwrap();
    assert_eq!((done.stdout.kept.len(), done.stdout.total), (KEPT_OUTPUT, 200_000));
    assert!(done.stdout.is_cut());
    let error = sh("exec cat /dev/zero", LONG).unwrap_err();
    assert!(matches!(error, RunError::TooMuchOutput { .. }), "{error}");
}

#[test]
fn passwords_are_not_inherited() {
    assert!(is_password(OsStr::new("CABK_PASSWORD")));
    assert!(is_password(OsStr::new("CABK_TO_PASSWORD")));
    assert!(!is_password(OsStr::new("CABK_PASSWORD_FILE")));
    assert!(!is_password(OsStr::new("PGPASSWORD")));
}

#[test]
fn messages_are_short_and_harmless() {
    let done = sh("head -c 3000 /dev/zero | tr '\\0' x; printf '\\033[2J'", LONG).unwrap();
    let said = done.said();
    assert!(said.starts_with("... x") && said.len() < 450 && !said.contains('\x1b'));
}
