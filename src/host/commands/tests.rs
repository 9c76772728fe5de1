use std::path::Path;

use super::*;
use crate::host::clock::SystemClock;

const TIME: Duration = Duration::from_secs(20);

fn shell(dir: &Path, text: &str) -> CommandLine {
    CommandLine::Shell(text.replace("DIR", dir.to_str().unwrap()))
}

/// A service that is a file with a replica count: it runs when that is not 0.
fn replicas(dir: &Path) -> CommandService {
    std::fs::write(dir.join("n"), "3\n").unwrap();
    let commands = Commands {
        stop: shell(dir, "echo stop $CABK_SITE $CABK_NODE $CABK_WAS >> DIR/log; echo 0 > DIR/n"),
        start: shell(dir, "echo start $CABK_WAS >> DIR/log; echo $CABK_WAS > DIR/n"),
        status: Some(shell(dir, "cat DIR/n; [ $(cat DIR/n) != 0 ] || exit 3")),
    };
    CommandService::new(commands, OsStr::new("site-a"), "n1", Arc::new(SystemClock))
}

#[test]
fn what_the_status_printed_before_the_stop_reaches_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let service = replicas(dir.path());
    let was = service.status().unwrap();
    assert_eq!((&was.state, was.detail.as_str()), (&ServiceState::Running, "3"));
    service.stop(TIME).unwrap();
    assert_eq!(service.status().unwrap().state, ServiceState::Stopped);
    service.start(TIME, &was).unwrap();
    assert_eq!(service.status().unwrap().detail, "3");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(log, "stop site-a n1 3\nstart 3\n");
    assert_eq!(service.cgroup_processes().unwrap(), None);
}

#[test]
fn another_process_can_start_what_this_one_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let service = replicas(dir.path());
    std::fs::write(dir.path().join("n"), "0\n").unwrap();
    service.start(TIME, &ServiceStatus::bare(ServiceState::Running, "5")).unwrap();
    assert_eq!(service.status().unwrap().detail, "5");
}

#[test]
fn commands_that_come_back_early_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = replicas(dir.path());
    service.commands.stop = shell(dir.path(), "(sleep 0.3; echo 0 > DIR/n) &");
    service.stop(TIME).unwrap();
    assert_eq!(service.status().unwrap().state, ServiceState::Stopped);
    let was = ServiceStatus::bare(ServiceState::Running, "2");
    service.commands.start = shell(dir.path(), "(sleep 0.3; echo 2 > DIR/n) &");
    service.start(TIME, &was).unwrap();
}

#[test]
fn failures_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = replicas(dir.path());
    let short = Duration::from_millis(150);
    service.commands.stop = CommandLine::Shell("echo no right >&2; exit 9".into());
    let error = service.stop(TIME).unwrap_err().to_string();
    assert_eq!(error, "the stop of the service failed with exit code 9: no right");
    service.commands.stop = CommandLine::Shell("true".into());
    assert!(matches!(service.stop(short), Err(ServiceError::NotStopped { .. })));
    service.commands.stop = CommandLine::Shell("sleep 30".into());
    assert!(matches!(service.stop(short), Err(ServiceError::NotStopped { .. })));
    std::fs::write(dir.path().join("n"), "0\n").unwrap();
    service.commands.start = CommandLine::Argv(vec!["true".into()]);
    let was = ServiceStatus::bare(ServiceState::Running, "1");
    assert!(matches!(service.start(short, &was), Err(ServiceError::NotStarted { .. })));
}

#[test]
fn an_unclear_status_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = replicas(dir.path());
    service.commands.status = Some(CommandLine::Shell("echo odd; exit 4".into()));
    let state = service.status().unwrap().state;
    assert_eq!(state, ServiceState::Unknown("exit code 4: odd".into()));
    service.commands.status = None;
    assert!(matches!(service.status().unwrap().state, ServiceState::Unknown(_)));
    service.stop(TIME).unwrap();
    service.start(TIME, &ServiceStatus::bare(ServiceState::Running, "")).unwrap();
}
