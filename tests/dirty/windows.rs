//! Windows that read only what changed since the read ahead.

use std::process::{Command, Stdio};

use crate::common::skip;
use crate::site::Site;
use crate::world::{Done, Guarded, bytes, is_root, past_the_grain};

fn by_events(done: &Done) -> bool {
    let trees = done.evidence("tree-unchanged");
    let detail = |e: &serde_json::Value| e["detail"].as_str().unwrap().to_owned();
    let told = !trees.is_empty() && trees.iter().all(|e| detail(e).contains("file system events"));
    if !told {
        assert!(!is_root(), "{trees:?}");
        skip("events of whole file systems take root");
    }
    told
}

/// Enough directories that a look at few of them is not a look at all.
fn grown() -> Site {
    let site = Site::new();
    for outer in 0..20 {
        for inner in 0..5 {
            site.put(&format!("data/apps/{outer}/{inner}/file"), &format!("{outer} {inner}"));
        }
    }
    past_the_grain();
    site
}

#[test]
fn what_changes_between_the_read_ahead_and_the_stop_is_in_the_snapshot() {
    let site = grown();
    std::fs::hard_link(site.path("data/apps/3/3/file"), site.path("svc/outside")).unwrap();
    site.put("svc/in/sub/moved", "moved in");
    site.put(
        "svc/after-stop",
        "set -e; cd \"$1/data/apps\"
        echo new >1/1/file; echo more >>2/2/file; rm 4/4/file; mv 5/4/file 6/4/renamed
        echo linked >\"$1/svc/outside\"; mv \"$1/svc/in\" 7/3/in; mv 8/1 8/one; mkdir -p 9/2/d
        echo over >19/0/over; mv 19/0/over 19/0/file; chmod 600 10/1/file; : >done\n",
    );
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(done.json["kind"], "snapshot");
    if !by_events(&done) {
        return;
    }
    let inside = site.world.look();
    let tree = inside.tree(done.id());
    let apps = bytes(&site.path("data/apps"));
    let mut kept: Vec<Vec<u8>> =
        tree.keys().filter(|path| path.starts_with(&apps)).cloned().collect();
    kept.sort();
    let walk = walkdir::WalkDir::new(site.path("data/apps"));
    let entries: Vec<_> = walk.into_iter().map(Result::unwrap).collect();
    let mut there: Vec<Vec<u8>> = entries.iter().map(|e| bytes(e.path())).collect();
    there.sort();
    assert_eq!(kept, there);
    for entry in entries.iter().filter(|e| e.file_type().is_file()) {
        let content = inside.bytes(&tree[&bytes(entry.path())]);
        assert!(content == std::fs::read(entry.path()).unwrap(), "{}", entry.path().display());
    }
    assert!(site.path("data/apps/done").exists(), "all of the changes happened");
    let mode = tree[&bytes(&site.path("data/apps/10/1/file"))].meta.mode;
    assert_eq!(mode, 0o600);
    site.is_in_order();
    let counts = |done: &Done| ["files", "dirs", "bytes"].map(|name| done.count(name));
    site.remove("svc/after-stop");
    // The log of the service grows; but for that a whole read sees the same.
    let whole = site.snapshot(&["--precopy", "never"]).expect(0);
    assert_eq!(counts(&whole)[..2], counts(&done)[..2]);
}

#[test]
fn who_only_reads_is_a_warning_where_events_are_told() {
    let site = grown();
    let mut command = Command::new("sleep");
    command.arg("60").current_dir(site.path("data/apps/3")).stdin(Stdio::null());
    let reader = Guarded(command.spawn().unwrap());
    let done = site.snapshot(&["--wait-quiet", "100ms"]);
    if !is_root() {
        skip("events of whole file systems take root");
        return;
    }
    let done = done.expect(0);
    assert!(by_events(&done) && done.json["kind"] == "snapshot");
    let seen = done.evidence("no-process-in-tree")[0];
    let detail = seen["detail"].as_str().unwrap();
    assert_eq!(seen["held"], true, "{detail}");
    let pid = format!("process {} (sleep", reader.0.id());
    assert!(detail.contains("only reading") && detail.contains(&pid), "{detail}");
    assert!(done.stderr.contains(&pid), "{}", done.stderr);
    site.is_in_order();
}

#[test]
fn a_file_made_and_removed_in_the_window_is_noticed() {
    let site = grown();
    let script = format!(
        "touch {1}\n(while [ -e {1} ]; do : >{0}; rm -f {0}; done) </dev/null >/dev/null 2>&1 &\n",
        site.path("data/apps/3/3/short").display(),
        site.path("svc/busy").display(),
    );
    site.put("svc/after-stop", &script);
    let done = site.snapshot(&["--wait-quiet", "100ms"]).expect(4);
    if !by_events(&done) {
        return;
    }
    let broken: Vec<_> =
        done.evidence("tree-unchanged").into_iter().filter(|e| e["held"] == false).collect();
    let detail = broken[0]["detail"].as_str().unwrap();
    assert!(detail.contains("data/apps/3/3"), "{detail}");
    site.is_in_order();
}
