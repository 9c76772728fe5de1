//! Freezing that goes wrong, and runs that are killed while something is frozen.

use std::process::Child;

use crate::places::Btrfs;
use crate::world::{Done, until};
use crate::{frozen, living};

#[test]
fn what_a_killed_run_left_frozen_goes_with_the_next_or_with_a_recovery() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living(&disk);
    let held = |site: &crate::site::Site, hold: &str| -> Child {
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
