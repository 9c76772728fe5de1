//! Freezing that goes wrong, and runs that are killed while something is frozen.

use std::process::Child;

use crate::places::Btrfs;
use crate::site::Site;
use crate::world::{Done, until};
use crate::{frozen, is_of_the_stop, living};

#[test]
fn what_a_killed_run_left_frozen_goes_with_the_next_or_with_a_recovery() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living(&disk);
    let held = |site: &Site, hold: &str| -> Child {
        site.put(&format!("svc/{hold}"), "");
        let mut command = site.command(&[]);
        let child = command.spawn().unwrap();
        until(30, "something to be frozen", || {
            disk.subvolumes().iter().any(|name| name.contains("cabk-"))
        });
        child
    };
    let kill = |mut child: Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    // While the start is under way: the guard starts it, and the next run removes what is left.
    let child = held(&site, "hold-start");
    kill(child);
    site.remove("svc/hold-start");
    until(20, "the service to run", || site.runs());
    assert!(disk.subvolumes().iter().any(|name| name.contains("cabk-")));
    let recovered = site.world.run(&["--json", "window", "recover"]).expect(0);
    assert_eq!(
        recovered.json["frozen_removed"].as_array().unwrap().len(),
        1,
        "{}",
        recovered.stdout
    );
    disk.is_clean(&site);
    let child = held(&site, "hold-start");
    let beside = site.world.run(&["--json", "window", "recover"]);
    assert_eq!(beside.json["frozen_removed"].as_array().unwrap().len(), 0, "its owner lives");
    kill(child);
    site.remove("svc/hold-start");
    let done: Done = site.snapshot(&[]).expect(0);
    assert!(done.stderr.contains("left something frozen"), "{}", done.stderr);
    assert_eq!(frozen(&done), "btrfs");
    disk.is_clean(&site);
    site.is_in_order();
}

#[test]
fn a_change_in_the_window_breaks_it_as_ever() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living(&disk);
    let script = "touch \"$1/svc/busy\"
(while [ -e \"$1/svc/busy\" ]; do : >\"$1/data/apps/3/1/short\"; rm -f \"$1/data/apps/3/1/short\"; done) \
        </dev/null >/dev/null 2>&1 &\n";
    site.put("svc/after-stop", script);
    site.remove("svc/after-start");
    let done = site.snapshot(&["--wait-quiet", "100ms"]).expect(4);
    let broken = done.evidence("tree-unchanged");
    let broken: Vec<_> = broken.iter().filter(|e| e["held"] == false).collect();
    assert!(broken[0]["detail"].as_str().unwrap().contains("apps/3/1"), "{broken:?}");
    disk.is_clean(&site);
    site.is_in_order();
}

/// A configuration whose commands take a snapshot of the file system's top, and mount nothing.
fn commands(site: &Site, disk: &Btrfs, create: &str, path: &str) {
    let (create, remove) = (
        create.to_owned(),
        format!(
            "echo removed $CABK_FREEZE >>{}; [ ! -e {at} ] || btrfs -q subvolume delete {at}",
            site.path("svc/freezes").display(),
            at = disk.path("shot").display(),
        ),
    );
    site.world.configure(&format!(
        "[window]\nfreeze_create = [\"sh\", \"-c\", \"{create}\"]\nfreeze_path = \"{path}\"\n\
         freeze_remove = [\"sh\", \"-c\", \"{remove}\"]\n"
    ));
}

fn shot(disk: &Btrfs) -> String {
    let (from, to) = (disk.path("data"), disk.path("shot"));
    format!("btrfs -q subvolume snapshot -r {} {}", from.display(), to.display())
}

#[test]
fn a_command_freezes_and_another_removes() {
    let Some(disk) = Btrfs::new() else { return };
    disk.subvolume("data");
    let site = living(&disk);
    let template = disk.path("shot");
    let link = site.path("frozen");
    let data = disk.path("data");
    std::fs::create_dir_all(link.join(data.parent().unwrap().strip_prefix("/").unwrap())).unwrap();
    std::os::unix::fs::symlink(template, link.join(data.strip_prefix("/").unwrap())).unwrap();
    commands(&site, &disk, &shot(&disk), link.to_str().unwrap());
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(frozen(&done), "command");
    is_of_the_stop(&site, &done);
    assert!(!disk.path("shot").exists(), "it is removed");
    let calls = std::fs::read_to_string(site.path("svc/freezes")).unwrap();
    assert_eq!(calls.lines().filter(|line| line.starts_with("removed cabk-")).count(), 1);
    disk.is_clean(&site);
    site.is_in_order();
}

#[test]
fn a_command_that_fails_costs_no_snapshot() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living(&disk);
    site.put("svc/after-stop", "rm -rf \"$1/copy\"; cp -a \"$1/data/.\" \"$1/copy\"\n");
    for (create, said) in [
        ("echo 'no room' >&2; exit 5", "exit code 5: no room"),
        ("cp -a $0 nowhere 2>/dev/null; true", "nothing was frozen at"),
    ] {
        commands(&site, &disk, create, disk.path("shot").to_str().unwrap());
        let done = site.snapshot(&["--freeze", "command"]).expect(0);
        assert_eq!(done.json["kind"], "snapshot");
        assert!(
            done.json["window"]["frozen"].is_null() && done.stderr.contains(said),
            "{}",
            done.stderr
        );
        is_of_the_stop(&site, &done);
        disk.is_clean(&site);
    }
    site.world.configure("");
    let done = site.snapshot(&["--freeze", "command"]).expect(2);
    assert!(done.stderr.contains("window.freeze_create"), "{}", done.stderr);
    site.is_in_order();
}
