//! Windows that end before the sources are read: what was frozen holds the moment of the stop, whatever
//! the service does while cabk reads.

mod common;
#[path = "freeze/broken.rs"]
mod broken;
#[path = "freeze/places.rs"]
mod places;
#[path = "common/site.rs"]
mod site;
#[path = "common/world.rs"]
mod world;

use std::path::{Path, PathBuf};

use places::Btrfs;
use site::Site;
use world::{Done, World, past_the_grain};

/// What the service does right after its start: it changes everything that it can reach.
const AFTER_START: &str = "cd \"$1/data\" || exit 0
echo late >>apps/1/11/app.R; rm -rf apps/2; mkdir -p new/late; echo late >new/late/file
mv apps/3 apps/moved; chmod 700 apps/4; head -c 200000 /dev/urandom >large; : >\"$1/svc/went-on\"
";

/// What happens between the read ahead and the end of the stop; then everything is copied.
const AFTER_STOP: &str = "set -e; rm -rf \"$1/copy\"; cd \"$1/data\"
echo stopped >>apps/5/1/7; echo n >apps/6/new; rm apps/7/1/3; mkdir -p apps/6/deep/er
echo deep >apps/6/deep/er/file; mv apps/7/1/4 apps/2/1/four; echo more >>large
cp -a \"$1/data/.\" \"$1/copy\"
";

/// How the sources were frozen.
pub(crate) fn frozen(done: &Done) -> String {
    let window = &done.json["window"]["frozen"];
    window[0]["by"].as_str().map(str::to_owned).unwrap_or_else(|| {
        panic!("nothing was frozen: {window}\n{}", done.said());
    })
}

/// A site on a btrfs whose service goes on at once, and which is copied at its stop.
pub(crate) fn living(disk: &Btrfs) -> Site {
    living_in(&disk.path("data"))
}

/// The same, with its data in this directory.
pub(crate) fn living_in(data: &Path) -> Site {
    let world = World::new();
    std::fs::create_dir_all(data).unwrap();
    std::os::unix::fs::symlink(data, world.path("data")).unwrap();
    let site = Site::of(world);
    for app in 2..8 {
        for file in 0..20 {
            site.put(&format!("data/apps/{app}/1/{file}"), &format!("{app} {file}"));
        }
    }
    site.put("data/large", &"large ".repeat(40_000));
    site.put("svc/after-stop", AFTER_STOP);
    site.put("svc/after-start", AFTER_START);
    past_the_grain();
    site
}

/// What was kept of the data directory is what was there at the stop.
#[track_caller]
pub(crate) fn is_of_the_stop(site: &Site, done: &Done) {
    assert!(site.path("svc/went-on").exists(), "the service went on");
    let inside = site.world.look();
    let data = site.path("data").canonicalize().unwrap();
    let tree = inside.tree(done.id());
    let mut kept = 0;
    for one in walkdir::WalkDir::new(site.path("copy")) {
        let one = one.unwrap();
        let below = one.path().strip_prefix(site.path("copy")).unwrap();
        let path: PathBuf =
            if below.as_os_str().is_empty() { data.clone() } else { data.join(below) };
        let entry = tree.get(&world::bytes(&path)).unwrap_or_else(|| panic!("{}", path.display()));
        kept += 1;
        if one.file_type().is_file() {
            let same = inside.bytes(entry) == std::fs::read(one.path()).unwrap();
            assert!(same, "{} is of another moment", path.display());
        }
    }
    let top = world::bytes(&data);
    let all = tree.keys().filter(|path| cabk::base::path::is_within(path, &top)).count();
    assert_eq!(all, kept, "nothing else is there");
}

#[test]
fn a_btrfs_holds_the_moment_of_the_stop() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living(&disk);
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    assert_eq!(frozen(&done), "btrfs");
    is_of_the_stop(&site, &done);
    let detail = done
        .evidence("tree-unchanged")
        .iter()
        .any(|e| e["detail"].as_str().unwrap().contains("btrfs snapshot named cabk-"));
    assert!(detail, "{:?}", done.evidence("tree-unchanged"));
    disk.is_clean(&site);
    site.is_in_order();
    let shown = site.world.run(&["show", done.id()]).expect(0);
    assert!(shown.stdout.contains("frozen at"), "{}", shown.stdout);
}
