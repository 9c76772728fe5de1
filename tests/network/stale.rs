//! What another machine changes is seen, though this one's caches still tell of what was there.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::Mounted;
use crate::fuse::Options;
use crate::world::bytes;

/// Much longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

fn broken(evidence: &Value) -> Vec<&Value> {
    evidence.as_array().unwrap().iter().filter(|one| one["held"] != true).collect()
}

#[test]
fn changes_of_another_machine_are_read_in_the_window() {
    let Some(m) = Mounted::new(&Options::stale_for(LONG)) else { return };
    let site = &m.site;
    for name in ["grown", "same", "replaced", "gone", "mode"] {
        site.put(&format!("data/apps/1/{name}"), "old content");
    }
    site.put("data/apps/2/dir/file", "old content");
    // Runs between the reading ahead and the window, on the other machine.
    site.put(
        "svc/after-stop",
        r#"cd "$1/b/apps/1" || exit 1
echo more >>grown
touch -r same ../../../svc/stamp; printf 'new content' >same; touch -r ../../../svc/stamp same
printf 'new content' >tmp && mv tmp replaced
rm gone; chmod 640 mode; echo new >new
rm -r ../2/dir; mkdir ../2/dir; echo new >../2/dir/other
cd "$1/data/apps/1"
stat -c %s grown >"$1/svc/seen"
cat same >"$1/svc/content"
ls >"$1/svc/names"
"#,
    );
    site.put("svc/stamp", "");
    let done = site.snapshot(&[]).expect(0);
    // Without asking anew the old state is seen: so it would have been kept.
    assert_eq!(std::fs::read_to_string(site.path("svc/seen")).unwrap(), "11\n");
    assert_eq!(std::fs::read_to_string(site.path("svc/content")).unwrap(), "old content");
    let names = std::fs::read_to_string(site.path("svc/names")).unwrap();
    assert!(names.contains("gone") && !names.contains("new"), "{names}");
    assert_eq!(done.json["kind"], "snapshot");
    let id = done.id();
    assert_eq!(m.kept(id, "apps/1/grown"), "old contentmore\n");
    for name in ["same", "replaced"] {
        assert_eq!(m.kept(id, &format!("apps/1/{name}")), "new content", "{name}");
    }
    assert_eq!(m.kept(id, "apps/1/new"), "new\n");
    assert_eq!(m.kept(id, "apps/2/dir/other"), "new\n");
    let tree = site.world.look().tree(id);
    let path = |name: &str| bytes(&site.path("data").join(name));
    assert!(!tree.contains_key(&path("apps/1/gone")));
    assert!(!tree.contains_key(&path("apps/2/dir/file")));
    assert_eq!(tree[&path("apps/1/mode")].meta.mode, 0o640);
    site.is_in_order();
}

#[test]
fn a_change_of_another_machine_in_the_window_is_noticed() {
    let Some(m) = Mounted::new(&Options::stale_for(LONG)) else { return };
    let site = &m.site;
    // It goes on changing, so that the two looks differ whenever they come.
    site.put(
        "svc/after-stop",
        r#"setsid sh -c 'cd /; while [ -e "$1/svc/busy" ]; do echo x >>"$1/b/apps/1/11/app.R"; done' sh "$1" \
  </dev/null >/dev/null 2>&1 &
"#,
    );
    site.put("svc/busy", "");
    let done = site.snapshot(&["--wait-quiet", "0"]);
    let _ = std::fs::remove_file(site.path("svc/busy"));
    let done = done.expect(4);
    let told = broken(&done.json["evidence"]);
    assert!(told.iter().any(|one| one["check"] == "tree-unchanged"), "{told:?}");
    site.is_in_order();
}

#[test]
fn a_name_that_leads_to_what_lay_there_before_is_no_snapshot() {
    let Some(m) = Mounted::new(&Options::stale_for(LONG)) else { return };
    let site = &m.site;
    site.put("data/apps/1/log", "yesterday's");
    site.put("svc/after-stop", "cd \"$1/b/apps/1\" && mv log log.1 && echo today >log\n");
    let done = site.snapshot(&[]);
    if done.code == 0 {
        // The kernel asked anew: then it has to be right.
        assert_eq!(m.kept(done.id(), "apps/1/log"), "today\n");
        assert_eq!(m.kept(done.id(), "apps/1/log.1"), "yesterday's");
        return;
    }
    let done = done.expect(4);
    let told = broken(&done.json["evidence"]);
    assert!(told.iter().any(|one| one["check"] == "all-sources-read"), "{told:?}");
    assert!(done.said().contains("leads to what lay there before"), "{}", done.said());
}

#[test]
fn a_file_that_some_client_has_open_is_told_by_its_name() {
    let Some(m) = Mounted::new(&Options::default()) else { return };
    m.site.put("data/apps/1/.nfs00000000000a4f1c00000003", "still written to");
    let done = m.site.snapshot(&[]).expect(4);
    let told = broken(&done.json["evidence"]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["check"], "no-process-in-tree");
    assert!(told[0]["subject"].as_str().unwrap().ends_with("/.nfs00000000000a4f1c00000003"));
    m.site.is_in_order();
}

#[test]
fn times_are_those_of_the_server() {
    let clock = Some(UNIX_EPOCH + Duration::from_secs(1_500_000_000));
    let Some(m) = Mounted::new(&Options { clock, ..Options::default() }) else { return };
    m.site.put("data/apps/1/same", "one");
    let first = m.site.snapshot(&[]).expect(0);
    assert_eq!(m.kept(first.id(), "apps/1/same"), "one");
    // By this machine's clock the first time is years old; by the server's it is just now.
    m.site.put("data/apps/1/same", "two");
    let second = m.site.snapshot(&[]).expect(0);
    assert_eq!(m.kept(second.id(), "apps/1/same"), "two");
}
