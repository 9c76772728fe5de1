//! Units, with a program in the place of `systemctl` that keeps one unit's state in files.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::common::skip;
use crate::site::Site;
use crate::world::{Done, Guarded, is_root, sees_machine};

const SHIM: &str = r#"#!/bin/sh
dir=$(dirname "$0"); top=$(dirname "$dir")
for unit; do :; done
for word; do case $word in show|stop|start|reset-failed) verb=$word; break;; esac; done
if [ "$unit" != toy.service ]; then
  [ "$verb" = show ] && printf 'LoadState=not-found\nActiveState=inactive\nSubState=dead\n' && exit 0
  echo "Unit $unit not loaded." >&2; exit 5
fi
case $verb in
  show)
    if sh "$top/svc/status" "$top" >/dev/null; then active=active sub=running group=/GROUP
    else active=inactive sub=dead group=; fi
    printf 'LoadState=loaded\nActiveState=%s\nSubState=%s\nInvocationID=%s\nControlGroup=%s\n' \
      $active $sub "$(cat "$top/svc/run")" "$group"
    printf 'MainPID=0\nActiveEnterTimestampMonotonic=7\nConditionResult=yes\n';;
  stop) sh "$top/svc/stop" "$top";;
  start) sh "$top/svc/start" "$top"; date +%N >"$top/svc/run"; cat "$top/svc/pid" >DIR/cgroup.procs;;
esac
"#;

/// A control group of this test's own.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let base = PathBuf::from("/sys/fs/cgroup");
        let bases = [base.join("unified"), base.clone(), base.join("systemd")];
        let base = bases.into_iter().find(|base| base.join("cgroup.procs").exists())?;
        let name = format!("cabk-test-{}", std::process::id());
        std::fs::create_dir(base.join(&name)).ok()?;
        Some(Self(base.join(name)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process in it may take a moment to end.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::process::Command::new("sleep").arg("0.02").status().unwrap();
        }
    }
}

fn with_units(site: &Site, group: &Group, args: &[&str]) -> Done {
    let name = group.0.file_name().unwrap().to_str().unwrap();
    let shim = SHIM.replace("GROUP", name).replace("DIR", group.0.to_str().unwrap());
    let program = site.path("bin/systemctl");
    if !program.exists() {
        site.put("bin/systemctl", &shim);
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        site.put("svc/run", "1");
        let pid = std::fs::read(site.path("svc/pid")).unwrap();
        std::fs::write(group.0.join("cgroup.procs"), pid).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let gcfg = site.path("etc/connect.gcfg");
    let mut all = vec!["--site", gcfg.to_str().unwrap(), "--wait-quiet", "300ms"];
    all.extend(args);
    let mut command = site.world.snapshot_command(&all);
    command.env("PATH", format!("{}:{path}", site.path("bin").display()));
    Done::of(&command.output().unwrap())
}

#[test]
fn a_unit_is_stopped_proven_and_started() {
    if !is_root() || !sees_machine() {
        return skip("a control group of one's own takes root on a whole machine");
    }
    let Some(group) = Group::new() else { return skip("no control group can be made here") };
    let site = Site::new();
    let unknown = with_units(&site, &group, &["--service", "other.service"]).expect(2);
    assert!(unknown.stderr.contains("other.service"), "{}", unknown.stderr);
    assert!(unknown.error()["error"]["hint"].as_str().unwrap().contains("--service"));
    assert!(site.runs() && !site.world.has_intent());

    let args = ["--service", "toy.service"];
    let done = with_units(&site, &group, &args).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    let stopped = done.evidence("service-stopped")[0];
    assert_eq!(stopped["subject"], "toy.service");
    assert!(stopped["detail"].as_str().unwrap().contains("control group is empty"), "{stopped}");
    assert!(site.runs());

    // The unit's own processes write; a stranger is told apart from them before the stop.
    let calls = site.calls().len();
    let held = site.path("data/apps/1/11/app.R");
    let script = format!("exec 3>>{}; exec sleep 53", held.display());
    let stranger = Guarded(Command::new("sh").arg("-c").arg(script).spawn().unwrap());
    crate::world::until(10, "the stranger", || {
        std::fs::read_link(format!("/proc/{}/fd/3", stranger.0.id())).is_ok_and(|p| p == held)
    });
    let done = with_units(&site, &group, &args).expect(22);
    for part in [&format!("process {}", stranger.0.id()), "app.R"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    assert_eq!(site.calls().len(), calls, "nothing was stopped");
    let done = with_units(&site, &group, &["--service", "toy.service", "--allow-capture"]);
    assert_eq!(done.expect(4).json["kind"], "capture");
    drop(stranger);
    with_units(&site, &group, &args).expect(0);
    assert!(site.runs() && !site.world.has_intent());
    drop(site);
}
