use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::host::clock::SystemClock;

/// A systemctl that keeps one unit's state in files of its own directory.
const SHIM: &str = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$*" >> "$dir/calls"
for unit; do :; done
verb=
for word; do case $word in show|stop|start|reset-failed) verb=$word; break;; esac; done
case $unit in
  rsc.service) ;;
  *) if [ $verb = show ]; then printf 'LoadState=not-found\nActiveState=inactive\nSubState=dead\n'; exit 0; fi
     echo "Unit $unit not loaded." >&2; exit 5;;
esac
case $verb in
  show) cat "$dir/show-$(cat "$dir/state")";;
  stop) [ -e "$dir/slow" ] && sleep 30; echo inactive > "$dir/state";;
  reset-failed) rm -f "$dir/limit"; echo reset >> "$dir/resets"; exit 1;;
  start)
    if [ -e "$dir/limit" ]; then echo 'start request repeated too quickly' >&2; exit 1; fi
    if [ -e "$dir/fail" ]; then
      n=$(cat "$dir/fail"); if [ $n -gt 0 ]; then echo $((n-1)) > "$dir/fail"; echo 'job failed' >&2; exit 1; fi
    fi
    [ -e "$dir/held" ] || echo active > "$dir/state";;
esac
"#;

fn show(active: &str, sub: &str, id: &str, group: &str, condition: &str) -> String {
    format!(
        "LoadState=loaded\nActiveState={active}\nSubState={sub}\nInvocationID={id}\nMainPID=0\n\
         ControlGroup={group}\nActiveEnterTimestampMonotonic=0\nFragmentPath=/etc/systemd/system/rsc.service\n\
         DropInPaths=/etc/systemd/system/rsc.service.d/a.conf /etc/x\\x20y.conf\n\
         EnvironmentFiles=/etc/default/rsc (ignore_errors=yes)\n\
         EnvironmentFiles=/etc/rsc env (ignore_errors=no)\nConditionResult={condition}\n"
    )
}

struct Bed {
    dir: tempfile::TempDir,
    unit: Systemd,
}

impl Bed {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("systemctl");
        std::fs::write(&program, SHIM).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Another test's fork may hold the script open for writing for a moment.
        while let Err(e) = std::process::Command::new(&program).arg("rsc.service").status() {
            assert_eq!(e.kind(), io::ErrorKind::ExecutableFileBusy);
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(dir.path().join("calls")).unwrap();
        let active = show("active", "running", "aa", "/system.slice/rsc.service", "yes")
            .replace("MainPID=0", "MainPID=41")
            .replace("Monotonic=0", "Monotonic=77");
        std::fs::write(dir.path().join("show-active"), active).unwrap();
        let inactive = show("inactive", "dead", "aa", "", "no");
        std::fs::write(dir.path().join("show-inactive"), inactive).unwrap();
        std::fs::write(dir.path().join("state"), "active").unwrap();
        let mut unit = Systemd::new(name, Arc::new(SystemClock)).unwrap();
        unit.program = program;
        unit.cgroup_root = dir.path().join("cgroup");
        Self { dir, unit }
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

const TIME: Duration = Duration::from_secs(20);

#[test]
fn one_question_tells_all() {
    let bed = Bed::new("rsc.service");
    let status = bed.unit.status().unwrap();
    assert_eq!(status.state, ServiceState::Running);
    assert_eq!(status.detail, "active/running");
    assert_eq!(status.invocation_id.as_deref(), Some("aa"));
    assert_eq!((status.main_pid, status.active_enter.as_deref()), (Some(41), Some("77")));
    assert_eq!(bed.read("calls").lines().count(), 1);
    let unit = bed.unit.properties().unwrap();
    let drop_ins = ["/etc/systemd/system/rsc.service.d/a.conf", "/etc/x y.conf"];
    assert_eq!(unit.drop_ins, drop_ins.map(PathBuf::from));
    let files = [("/etc/default/rsc", true), ("/etc/rsc env", false)];
    assert_eq!(unit.environment_files, files.map(|(path, may)| (PathBuf::from(path), may)));
}

#[test]
fn an_unknown_unit_and_a_bad_name_are_told_apart() {
    let bed = Bed::new("other.service");
    assert!(matches!(bed.unit.status(), Err(ServiceError::UnknownUnit(_))));
    for name in ["", "--now", "rsc*", "a b", "a\nb", "a;b"] {
        let made = Systemd::new(name, Arc::new(SystemClock));
        assert!(matches!(made, Err(ServiceError::BadUnitName(_))), "{name:?}");
    }
    assert!(Systemd::new("getty@tty1.service", Arc::new(SystemClock)).is_ok());
}

#[test]
fn stop_and_start_change_the_state() {
    let bed = Bed::new("rsc.service");
    let was = bed.unit.status().unwrap();
    bed.unit.stop(TIME).unwrap();
    let stopped = bed.unit.status().unwrap();
    assert_eq!((stopped.state, stopped.cgroup), (ServiceState::Stopped, None));
    bed.put("limit", "");
    bed.unit.start(TIME, &was).unwrap();
    assert_eq!(bed.unit.status().unwrap().state, ServiceState::Running);
    assert_eq!(bed.read("resets").lines().count(), 1);
}

#[test]
fn a_stop_that_hangs_ends_in_time() {
    let bed = Bed::new("rsc.service");
    bed.put("slow", "");
    let began = Instant::now();
    let error = bed.unit.stop(Duration::from_millis(200)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(error, ServiceError::NotStopped { .. }), "{error}");
}

#[test]
fn a_start_is_tried_three_times() {
    let bed = Bed::new("rsc.service");
    let was = bed.unit.status().unwrap();
    bed.unit.stop(TIME).unwrap();
    bed.put("fail", "2");
    bed.unit.start(TIME, &was).unwrap();
    bed.unit.stop(TIME).unwrap();
    bed.put("fail", "9");
    let error = bed.unit.start(TIME, &was).unwrap_err().to_string();
    assert!(error.contains("after 3 tries") && error.contains("job failed"), "{error}");
}

#[test]
fn a_start_that_systemd_silently_leaves_out_is_an_error() {
    let bed = Bed::new("rsc.service");
    let was = bed.unit.status().unwrap();
    bed.unit.stop(TIME).unwrap();
    bed.put("held", "");
    let error = bed.unit.start(TIME, &was).unwrap_err().to_string();
    assert!(error.contains("inactive/dead, a condition of the unit does not hold"), "{error}");
}

#[test]
fn states_on_the_way_count_as_running() {
    for (active, expected) in [
        ("activating", ServiceState::Running),
        ("deactivating", ServiceState::Running),
        ("reloading", ServiceState::Running),
        ("failed", ServiceState::Stopped),
        ("maintenance", ServiceState::Unknown("maintenance/x".into())),
    ] {
        let unit = UnitProperties::parse(show(active, "x", "", "", "yes").as_bytes()).unwrap();
        assert_eq!(unit.state(), expected, "{active}");
    }
    assert!(UnitProperties::parse(b"\xff\xfenothing\n").is_err());
    let masked = UnitProperties::parse(b"LoadState=masked\nActiveState=inactive\n").unwrap();
    assert!(masked.start_refused().is_some());
}

#[test]
fn processes_left_in_the_group_are_found_after_the_stop() {
    let bed = Bed::new("rsc.service");
    assert_eq!(bed.unit.cgroup_processes().unwrap(), None, "no hierarchy is mounted");
    bed.put("cgroup/systemd/cgroup.procs", "");
    let group = "cgroup/systemd/system.slice/rsc.service";
    bed.put(&format!("{group}/cgroup.procs"), "41\n");
    bed.put(&format!("{group}/job/deep/cgroup.procs"), "57\n43\n");
    bed.put(&format!("{group}/job/cgroup.procs"), "");
    bed.unit.status().unwrap();
    bed.unit.stop(TIME).unwrap();
    assert_eq!(bed.unit.cgroup_processes().unwrap(), Some(vec![41, 43, 57]));
    bed.put("cgroup/cgroup.controllers", "");
    bed.put("cgroup/system.slice/rsc.service/cgroup.procs", "99\n");
    assert_eq!(bed.unit.cgroup_processes().unwrap(), Some(vec![41, 43, 57, 99]));
    std::fs::remove_dir_all(bed.dir.path().join("cgroup/system.slice")).unwrap();
    std::fs::remove_dir_all(bed.dir.path().join(group)).unwrap();
    assert_eq!(bed.unit.cgroup_processes().unwrap(), Some(vec![]));
}

#[test]
fn no_systemctl_is_an_error_that_says_so() {
    let mut unit = Systemd::new("rsc.service", Arc::new(SystemClock)).unwrap();
    unit.program = PathBuf::from("/nonexistent/systemctl");
    let error = unit.status().unwrap_err();
    assert!(matches!(error, ServiceError::Run { source: RunError::Spawn { .. }, .. }), "{error}");
}
