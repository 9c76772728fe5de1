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

/// Notes what it was asked, and says that timers are active.
const NOTES: &str = r#"#!/bin/sh
echo "$(basename "$0") $*" >>"$(dirname "$0")/notes"
[ -e "$(dirname "$0")/no-timers" ] && { echo 'no bus' >&2; exit 1; }
exit 0
"#;

fn noting(bed: &Bed, name: &str) -> PathBuf {
    let path = bed.dir.path().join(name);
    std::fs::write(&path, NOTES).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_node_guards_its_unit_by_a_timer_and_a_hold() {
    use crate::host::service::Precaution;
    let mut bed = Bed::new("rsc.service");
    let control = bed.unit.program.clone();
    bed.unit.run_program = noting(&bed, "systemd-run");
    bed.unit.program = noting(&bed, "control");
    bed.unit.hold_dir = bed.dir.path().join("holds");
    bed.unit.unit_dir = bed.dir.path().join("units");
    let hold = bed.dir.path().join("holds/hold-rsc.service");
    bed.unit.arm(Some(Duration::from_millis(1_800_500)), "until then").unwrap();
    let notes = bed.read("notes");
    let asked = notes.lines().find(|line| line.starts_with("systemd-run ")).unwrap();
    assert!(asked.contains("--on-active=1801 --timer-property=AccuracySec=100ms /bin/sh -c rm"));
    let begin = notes.lines().next().unwrap();
    assert!(begin.starts_with("control stop -- cabk-guard-rsc-"), "an earlier one goes: {begin}");
    assert!(!hold.exists(), "no drop-in heeds it");
    bed.unit.disarm().unwrap();
    assert!(
        bed.read("notes").lines().last().unwrap().starts_with("control stop -- cabk-guard-rsc-")
    );

    // Where the drop-in is, the hold is there until the start, which also cancels the timer.
    bed.put(&format!("units/rsc.service.d/{DROP_IN}"), "");
    bed.unit.arm(Some(TIME), "until then").unwrap();
    assert_eq!(std::fs::read_to_string(&hold).unwrap(), "until then\n");
    bed.put("notes", "");
    bed.unit.program = control;
    let was = bed.unit.status().unwrap();
    bed.unit.stop(TIME).unwrap();
    assert!(hold.exists());
    bed.unit.start(TIME, &was).unwrap();
    assert!(!hold.exists());
    assert!(bed.read("calls").lines().last().unwrap().starts_with("stop -- cabk-guard-rsc-"));

    bed.unit.program = noting(&bed, "control");
    bed.put("no-timers", "");
    let error = bed.unit.arm(Some(TIME), "").unwrap_err().to_string();
    assert!(error.contains("no bus"), "{error}");
    // Without a timer there is nothing to fail.
    bed.unit.arm(None, "until then").unwrap();
    assert!(hold.exists());
}

/// The line that the timer runs does what it should.
#[test]
fn what_the_timer_runs_takes_the_hold_away_and_starts_the_unit() {
    use crate::host::service::Precaution;
    let mut bed = Bed::new("rsc.service");
    bed.put("state", "inactive");
    bed.put(&format!("units/rsc.service.d/{DROP_IN}"), "");
    bed.put("limit", "");
    bed.unit.hold_dir = bed.dir.path().join("holds");
    bed.unit.unit_dir = bed.dir.path().join("units");
    bed.unit.arm(None, "x").unwrap();
    let hold = bed.dir.path().join("holds/hold-rsc.service");
    // Runs at once what it should run later.
    let now = "#!/bin/sh\nwhile [ \"$1\" != /bin/sh ]; do shift; done\nexec \"$@\"\n";
    bed.put("systemd-run", now);
    bed.unit.run_program = bed.dir.path().join("systemd-run");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&bed.unit.run_program, mode).unwrap();
    // That its own systemctl knows no timers is told afterwards.
    let _ = bed.unit.arm(Some(TIME), "");
    assert!(!hold.exists());
    assert_eq!(bed.read("state").trim(), "active");
}

#[test]
fn a_unit_on_its_way_and_one_that_could_not_start_say_so() {
    use crate::host::service::Way;
    let bed = Bed::new("rsc.service");
    let put = |active: &str, sub: &str, load: &str| {
        let text = show(active, sub, "aa", "", "yes").replace("=loaded", &format!("={load}"));
        bed.put("show-active", &text);
        bed.unit.status().unwrap()
    };
    let waits = put("activating", "auto-restart", "loaded");
    assert_eq!((waits.way, waits.start_refused), (Some(Way::Up), None));
    assert_eq!(put("deactivating", "stop-sigterm", "loaded").way, Some(Way::Down));
    let masked = put("active", "running", "masked");
    assert_eq!(masked.way, None);
    assert!(masked.start_refused.unwrap().contains("masked"));
}
