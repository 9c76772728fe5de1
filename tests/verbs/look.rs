//! `snapshots`, `show`, `ls`, `stats`.

use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use serde_json::Value;

use super::common;
use super::place::{Place, flip};

/// A repository with two snapshots of plain directories, of two sites.
fn with_snapshots() -> Place {
    let place = Place::new();
    // Without encryption: what is looked at here does not depend on it, and keys take their time.
    place.ok(&["init", "--no-encryption"]);
    place.file("src/dir/one", b"one");
    place.file("src/two", &vec![0x5a; 300_000]);
    std::os::unix::fs::symlink("two", place.path("src/link")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff\nname");
    std::fs::write(place.path("src").join(odd), b"").unwrap();
    for (site, tag) in [("alpha", "a"), ("beta", "b")] {
        let src = place.text("src");
        place.ok(&[
            "snapshot",
            "--path",
            &src,
            "--site-name",
            site,
            "--tag",
            tag,
            "--allow-volatile-state",
        ]);
    }
    place
}

#[test]
fn snapshots_and_show_tell_what_is_kept() {
    let place = with_snapshots();
    let list = place.json(&["snapshots"]);
    let all = list["snapshots"].as_array().unwrap();
    assert_eq!((all.len(), list["captures"].as_array().unwrap().len()), (2, 0));
    for field in [
        "id",
        "kind",
        "restorable",
        "origin",
        "site",
        "host",
        "time",
        "tags",
        "connect_version",
        "evidence_held",
        "drilled",
        "pinned",
        "summary",
    ] {
        assert!(all[0].get(field).is_some(), "{field}: {}", all[0]);
    }
    assert_eq!((&all[0]["kind"], &all[0]["restorable"]), (&"snapshot".into(), &true.into()));
    assert_eq!(all[0]["tags"][0], "a");
    assert_eq!(all[0]["pinned"], false);
    let beta = place.json(&["snapshots", "--site-name", "beta"]);
    assert_eq!(beta["snapshots"][0]["id"], all[1]["id"]);
    assert_eq!(beta["snapshots"].as_array().unwrap().len(), 1);
    let none = place.json(&["snapshots", "--kind", "capture"]);
    assert_eq!(none["snapshots"].as_array().unwrap().len(), 0);

    let error = place.fails(2, &["show", "latest"]);
    assert!(error["message"].as_str().unwrap().contains("alpha, beta"), "{error}");
    let shown = place.json(&["show", "latest", "--site-name", "alpha"]);
    assert_eq!(shown["id"], all[0]["id"]);
    assert!(shown["evidence"].as_array().unwrap().iter().all(|e| e["held"] == true), "{shown}");
    assert_eq!(shown["sources"][0]["path"], place.text("src"));
    let id = all[1]["id"].as_str().unwrap();
    assert_eq!(place.json(&["show", &id[..8]])["id"], all[1]["id"]);
    let readable = place.ok(&["show", id]);
    assert!(readable.contains("snapshot (restorable)") && readable.contains("tree-unchanged"));
}

#[test]
fn a_damaged_manifest_hides_no_other_one() {
    let place = with_snapshots();
    let id = place.json(&["snapshots"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    flip(&place.path("repo/snapshots").join(&id), 90);
    let output = place.run(&["--json", "snapshots"]);
    assert_eq!(output.status.code(), Some(20));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    assert!(String::from_utf8(output.stderr).unwrap().contains(&id));
    place.fails(20, &["show", &id[..10]]);
}

#[test]
fn ls_lists_one_level_or_all() {
    let place = with_snapshots();
    let paths = |value: &Value| -> Vec<String> {
        let entries = value["entries"].as_array().unwrap();
        entries.iter().map(|e| e["path"].as_str().unwrap().to_owned()).collect()
    };
    let (src, at) = (place.text("src"), "--site-name=beta");
    let top = place.json(&["ls", "latest", at]);
    assert_eq!(paths(&top).last(), Some(&src), "down to the source, not into it");
    let one = place.json(&["ls", &format!("latest:{src}"), at]);
    assert_eq!(
        paths(&one),
        [
            format!("{src}/dir"),
            format!("{src}/link"),
            format!("{src}/odd\u{fffd}\nname"),
            format!("{src}/two"),
        ]
    );
    let entries = one["entries"].as_array().unwrap();
    for field in ["path", "type", "size", "mode", "uid", "gid", "user", "group", "mtime"] {
        assert!(entries[0].get(field).is_some(), "{field}");
    }
    assert_eq!((&entries[1]["type"], &entries[1]["target"]), (&"symlink".into(), &"two".into()));
    assert!(entries[2]["path_hex"].as_str().unwrap().ends_with("6f6464ff0a6e616d65"));
    assert_eq!((&entries[3]["type"], &entries[3]["size"]), (&"file".into(), &300_000.into()));
    let all = place.json(&["ls", "-R", "latest", at]);
    assert!(paths(&all).contains(&format!("{src}/dir/one")));
    let file = place.json(&["ls", &format!("latest:{src}/two"), at]);
    assert_eq!(paths(&file), [format!("{src}/two")]);
    place.fails(1, &["ls", &format!("latest:{src}/none"), at]);
    let readable = place.ok(&["ls", &format!("latest:{src}"), at]);
    assert!(readable.contains("link -> two") && readable.contains("\\n"), "{readable}");
    assert!(place.objects("leases").is_empty(), "no lease is left");
    let output = place.run(&["ls", "--no-lock", "latest", at]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("without a lease"));
}

#[test]
fn stats_count_shared_chunks_once() {
    let place = with_snapshots();
    let stats = place.json(&["stats"]);
    assert_eq!((&stats["snapshots"], &stats["captures"]), (&2.into(), &0.into()));
    let number = |field: &str| stats[field].as_u64().unwrap_or_else(|| panic!("{field}: {stats}"));
    assert_eq!(number("logical_bytes"), 2 * 300_003);
    assert!(number("unique_bytes") >= 3 && number("unique_bytes") < 2 * 300_003);
    assert!(number("repo_bytes") > 0 && number("chunks") > 0 && number("packs") > 0);
    let one = place.json(&["stats", "--site-name", "alpha"]);
    assert_eq!(one["snapshots"], 1);
    // A cache that cannot be used costs speed only.
    let blocked = place.file("blocked", b"");
    let output = place.run(&["--json", "--cache-dir", blocked.to_str().unwrap(), "stats"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("memory serves"));
}

#[test]
fn a_repository_that_cannot_be_written_is_read_without_a_lease() {
    let place = with_snapshots();
    let repo = place.path("repo");
    let mounted = Command::new("mount").arg("--bind").arg(&repo).arg(&repo).output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        return common::skip("a read-only mount cannot be made here");
    }
    let again = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&repo).output().unwrap();
    let outputs = [
        place.run(&["snapshots"]),
        place.run(&["stats"]),
        place.run(&["ls", "latest", "--site-name", "beta"]),
        place.run(&["snapshot", "--path", &place.text("src"), "--allow-volatile-state"]),
    ];
    let gone = Command::new("umount").arg(&repo).output().unwrap();
    assert!(again.status.success() && gone.status.success());
    let codes: Vec<Option<i32>> = outputs.iter().map(|o| o.status.code()).collect();
    let told: Vec<String> =
        outputs.iter().map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).collect();
    assert_eq!(codes, [Some(0), Some(0), Some(0), Some(1)], "{told:?}");
    assert!(told[1].contains("without a lease") && told[2].contains("without a lease"), "{told:?}");
    assert!(told[3].contains("cannot write"), "{told:?}");
}
