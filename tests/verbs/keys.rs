//! `key` and `unlock`.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use cabk::format::control::Holder;
use cabk::host::entropy::SystemEntropy;
use cabk::store::lease::Lease;
use cabk::store::repository::{self, Repository};
use serde_json::Value;

use super::place::{PASSWORD, Place};

#[test]
fn keys_are_added_listed_changed_and_removed() {
    let place = Place::with_repository();
    let second = place.file("second", b"another one\n");
    let second = second.to_str().unwrap();
    let added = place.json(&["key", "add", "--label", "night-job", "--new-password-file", second]);
    let recovery = place.json(&["key", "add", "--recovery"]);
    assert_eq!(recovery["recovery"], true);
    let list = place.json(&["key", "list"]);
    let keys = list["keys"].as_array().unwrap();
    let labels: Vec<&str> = keys.iter().map(|k| k["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["first", "night-job", "recovery"]);
    assert!(keys.iter().all(|k| k["created"].as_str().unwrap().ends_with('Z')));
    let with = |password: &str, args: &[&str]| {
        place.command(args).env("CABK_PASSWORD", password).output().unwrap().status.code()
    };
    assert_eq!(with("another one", &["snapshots"]), Some(0));
    assert_eq!(with(recovery["recovery_key"].as_str().unwrap(), &["snapshots"]), Some(0));

    let changed = place.json(&["key", "passwd", "--new-password-command", "echo third"]);
    assert_eq!(changed["replaces"], keys[0]["id"]);
    assert_eq!(with(PASSWORD, &["snapshots"]), Some(12));
    assert_eq!(with("third", &["snapshots"]), Some(0));
    let id = added["id"].as_str().unwrap();
    assert_eq!(with("third", &["key", "remove", &id[..5]]), Some(2));
    assert_eq!(with("third", &["key", "remove", &id[..12]]), Some(0));
    assert_eq!(with("another one", &["snapshots"]), Some(12));
    assert_eq!(with("third", &["key", "remove", recovery["id"].as_str().unwrap()]), Some(0));
    let last = changed["id"].as_str().unwrap();
    assert_eq!(with("third", &["key", "remove", last]), Some(22), "the last key stays");
    assert_eq!(with("third", &["key", "rotate"]), Some(0));
    assert_eq!(with("third", &["snapshots"]), Some(0));
    assert_eq!(place.objects("config").len(), 4);
}

#[test]
fn an_exported_key_brings_a_repository_back() {
    let place = Place::with_repository();
    let key = place.ok(&["key", "export"]);
    let page = place.ok(&["key", "export", "--paper"]);
    assert!(page.contains("1: ") && page.contains("key import"), "{page}");
    assert_eq!(place.json(&["key", "export"])["key"], key.trim());
    let exported = place.file("key.txt", key.as_bytes());
    let paper = place.file("paper.txt", page.to_uppercase().as_bytes());
    for (n, file) in [exported, paper].iter().enumerate() {
        let password = format!("echo new{n}");
        let args = ["key", "import", file.to_str().unwrap(), "--new-password-command", &password];
        let output = place.command(&args).env_remove("CABK_PASSWORD").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut opened = place.command(&["snapshots"]);
        assert!(opened.env("CABK_PASSWORD", format!("new{n}")).output().unwrap().status.success());
    }
    let other = Place::with_repository();
    let file = place.text("key.txt");
    let import = ["key", "import", &file, "--new-password-command", "echo x"];
    let error = other.fails(12, &import);
    assert!(error["message"].as_str().unwrap().contains("not of this repository"), "{error}");
    let typo = page.replacen("1: ", "1: f", 1);
    let typo = place.file("typo.txt", typo.as_bytes());
    let error = place.fails(12, &["key", "import", typo.to_str().unwrap()]);
    assert!(error["message"].as_str().unwrap().contains("line 1"), "{error}");
    let mut command = place.command(&["key", "import", "--new-password-command", "echo y"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The repository, past the program.
fn opened(place: &Place) -> Repository {
    let backend = cabk::backend::local::LocalBackend::open(&place.path("repo")).unwrap();
    let password = cabk::base::secret::Password::new(PASSWORD.into());
    let unlock = || Some(repository::Unlock::Password(password));
    repository::open(Arc::new(backend), Arc::new(SystemEntropy), unlock).unwrap().repository
}

/// A lease of some host; dropped without a release it is what a dead process leaves.
fn lease<'a>(repository: &'a Repository, host: &str) -> Lease<'a> {
    let holder = Holder { host: host.into(), boot_id: String::new(), pid: 1, start_ticks: 0 };
    let now = cabk::base::time::Timestamp::EPOCH;
    Lease::take(repository, holder, "snapshot", vec![], now).unwrap()
}

#[test]
fn unlock_removes_what_the_dead_left_and_nothing_else() {
    let place = Place::with_repository();
    let here = cabk::host::machine::hostname().unwrap();
    let repository = opened(&place);
    let take = |host: &str| lease(&repository, host);
    let alive = take(&here);
    drop(take(&here));
    drop(take("elsewhere"));
    let done = place.json(&["unlock"]);
    let count = |done: &Value, field: &str| done[field].as_array().unwrap().len();
    assert_eq!(
        (count(&done, "removed"), count(&done, "alive"), count(&done, "unknown")),
        (1, 1, 1),
        "{done}"
    );
    let done = place.json(&["unlock", "--host", "elsewhere"]);
    assert_eq!((count(&done, "removed"), count(&done, "alive")), (1, 1), "{done}");
    let done = place.json(&["unlock", "--host", &here]);
    assert_eq!((count(&done, "removed"), count(&done, "alive")), (0, 1), "{done}");
    alive.release().unwrap();
    assert!(place.objects("leases").is_empty());
}

#[test]
fn an_unlock_that_was_killed_is_ended_by_the_next() {
    const DEAD: usize = 40;
    let place = Place::with_repository();
    let here = cabk::host::machine::hostname().unwrap();
    let repository = opened(&place);
    let alive = lease(&repository, &here);
    let mut half_way = 0;
    for _ in 0..10 {
        while place.objects("leases").len() <= DEAD {
            drop(lease(&repository, &here));
        }
        let mut command = place.command(&["unlock"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && place.objects("leases").len() > DEAD {}
        // It may have ended by itself.
        let _ = child.kill();
        let by_itself = child.wait().unwrap().success();
        let left = place.objects("leases").len();
        assert!(left >= 1 && (!by_itself || left == 1), "{left}");
        half_way += usize::from(left > 1);
        if half_way > 0 {
            break;
        }
    }
    assert!(half_way > 0, "it is never half way done");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let left: Vec<String> = place.objects("leases").iter().map(|path| name(path)).collect();
    let whole = left.iter().filter(|name| !name.ends_with(".end")).count();
    let done = place.json(&["unlock"]);
    let count = |field: &str| done[field].as_array().unwrap().len();
    assert_eq!((count("removed"), count("alive"), count("unknown")), (whole - 1, 1, 0), "{left:?}");
    assert_eq!(place.objects("leases").len(), 1, "no end record is left either: {left:?}");
    alive.release().unwrap();
    assert!(place.objects("leases").is_empty());
    place.file("source/file", b"x");
    let source = place.text("source");
    place.ok(&["snapshot", "--site-name", "s", "--allow-volatile-state", "--path", &source]);
}
