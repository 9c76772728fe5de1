//! What can be known before the stop refuses before the stop.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

use std::path::Path;

use crate::common::skip;
use crate::site::Site;
use crate::world::{Done, World};

/// The run was refused with this code, and nobody noticed.
#[track_caller]
fn untouched(site: &Site, done: Done, code: i32) -> Done {
    let done = done.expect(code);
    assert_eq!(site.calls().len(), 1, "only its first start: {:?}", site.calls());
    assert!(site.world.look().records.is_empty());
    site.is_in_order();
    done
}

#[test]
fn a_service_that_does_not_run_is_an_incident_or_a_wrong_name() {
    let site = Site::new();
    site.script("stop");
    let done = site.snapshot(&[]).expect(22);
    let hint = done.error()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("--already-stopped"), "{hint}");
    assert!(!site.runs() && !site.world.has_intent());
    assert_eq!(site.world.leases(), [""; 0]);
}

#[test]
fn a_service_that_runs_is_not_stopped_already() {
    let site = Site::new();
    let done = untouched(&site, site.snapshot(&["--already-stopped"]), 22);
    assert!(done.error()["error"]["message"].as_str().unwrap().contains("runs"));
}

#[test]
fn a_status_that_means_nothing_is_refused() {
    let site = Site::new();
    site.put("svc/status", "echo 'the daemon is away' >&2; exit 7\n");
    let done = site.snapshot(&[]).expect(22);
    assert!(done.said().contains("the daemon is away"), "{}", done.said());
    assert_eq!(site.calls().len(), 1);
}

#[test]
fn a_state_directory_in_memory_is_refused() {
    let shm = Path::new("/dev/shm");
    let Ok(state) = tempfile::tempdir_in(shm) else { return skip("there is no /dev/shm") };
    let site = Site::new();
    let args = site.args(&[]);
    let mut command = site.world.cabk();
    command.env("CABK_STATE_DIR", state.path()).args(["snapshot", "--json"]).args(&args);
    let done = Done::of(&command.output().unwrap());
    let done = untouched(&site, done, 22);
    assert!(done.stderr.contains("would not survive a reboot"), "{}", done.stderr);
    // Where nothing is stopped there is nothing to lose.
    let mut command = site.world.cabk();
    command.env("CABK_STATE_DIR", state.path()).args(["snapshot", "--path"]);
    Done::of(&command.arg(site.path("etc")).output().unwrap()).expect(0);
}

#[test]
fn a_site_on_postgres_is_refused_before_the_stop_or_is_a_capture() {
    let site = Site::new();
    site.gcfg(
        "[Database]\nProvider = postgres\n[Postgres]\nURL = postgres://u:hidden@db/connect\n",
    );
    let done = untouched(&site, site.snapshot(&[]), 22);
    assert!(done.stderr.contains("PostgreSQL"), "{}", done.stderr);
    let done = site.snapshot(&["--allow-capture"]).expect(4);
    assert_eq!(done.json["kind"], "capture");
    assert!(!done.said().contains("hidden"), "{}", done.said());
    let reasons = done.evidence("all-sources-read");
    assert!(
        reasons.iter().any(|e| e["held"] == false && e["detail"].to_string().contains("Postgre")),
        "{reasons:?}"
    );
    site.is_in_order();
}

#[test]
fn hostile_configurations_are_told() {
    let site = Site::new();
    let path = site.path("etc/connect.gcfg");
    let mut big = b"[Server]\nDataDir = /x\n; ".to_vec();
    big.resize(100 << 20, b'x');
    let binary: Vec<u8> = (0..=255u8).cycle().take(5_000).collect();
    let quote = b"[Server]\nDataDir = \"/srv/data\nAddress = x\n".to_vec();
    for (name, text) in [("100 MB", big), ("binary", binary), ("a quote without end", quote)] {
        std::fs::write(&path, text).unwrap();
        let began = std::time::SystemTime::now();
        let done = untouched(&site, site.snapshot(&[]), 2);
        assert!(began.elapsed().unwrap().as_secs() < 10, "{name}");
        let error = done.error();
        let causes = error["error"].to_string();
        assert!(causes.contains("connect.gcfg"), "{name}: {causes}");
        assert!(causes.len() < 2_000, "{name}: {causes}");
    }
    std::fs::remove_file(&path).unwrap();
    let done = untouched(&site, site.snapshot(&[]), 2);
    assert!(done.error().to_string().contains("connect.gcfg"));
    std::fs::create_dir(&path).unwrap();
    untouched(&site, site.snapshot(&[]), 2);
}

#[test]
fn a_data_directory_that_is_gone_is_refused() {
    let site = Site::new();
    let aside = site.path("aside");
    std::fs::rename(site.path("data"), &aside).unwrap();
    let done = site.snapshot(&[]).expect(22);
    assert!(done.stderr.contains("is not there"), "{}", done.stderr);
    std::fs::rename(&aside, site.path("data")).unwrap();
    assert_eq!(site.calls().len(), 1);
    site.is_in_order();
}

#[test]
fn a_dry_run_does_nothing() {
    let site = Site::new();
    let before = site.world.objects();
    let done = untouched(&site, site.snapshot(&["--dry-run"]), 0);
    assert_eq!((&done.json["dry_run"], &done.json["stops"]), (&true.into(), &true.into()));
    assert_eq!(site.world.objects(), before);
    assert!(!site.path("state").exists() && !site.path("cache").exists());
    let plain = World::new();
    plain.put("file", "x");
    let done = plain.snapshot(&["--dry-run"]).expect(0);
    assert_eq!(done.json["stops"], false);
}

#[test]
fn a_restore_in_place_asks_the_commands_whether_the_service_runs() {
    let site = Site::new();
    let done = site.snapshot(&[]).expect(0);
    let argv = |name: &str| {
        let (script, top) = (site.path("svc").join(name), site.world.top());
        format!("{name}_command = [\"sh\", {:?}, {:?}]\n", script.display(), top.display())
    };
    let lines: String = ["stop", "start", "status"].map(argv).concat();
    site.world.configure(&format!("[service]\n{lines}[site]\nname = \"toy\"\n"));
    let again = ["restore", "--json", done.id(), "--in-place"];
    let refused = site.world.run(&again).expect(22);
    assert!(refused.error()["error"]["message"].as_str().unwrap().contains("runs here"));
    site.script("stop");
    site.world.run(&again).expect(0);
}

#[test]
fn a_restore_in_place_and_a_window_keep_out_of_each_others_way() {
    use cabk::base::time::Timestamp;
    use cabk::window::intent::{Intent, IntentStore};
    let site = Site::new();
    let done = site.snapshot(&[]).expect(0);
    site.script("stop");
    let argv = |name: &str| {
        let (script, top) = (site.path("svc").join(name), site.world.top());
        format!("{name}_command = [\"sh\", {:?}, {:?}]\n", script.display(), top.display())
    };
    let lines: String = ["stop", "start", "status"].map(argv).concat();
    let by_commands =
        || site.world.configure(&format!("[service]\n{lines}[site]\nname = \"toy\"\n"));
    by_commands();
    let again = ["restore", "--json", done.id(), "--in-place"];
    let windows = site.path("state/windows");
    let is_lock = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "lock");
    let path = std::fs::read_dir(&windows).unwrap().map(|e| e.unwrap().path()).find(is_lock);
    let lock = std::fs::File::open(path.unwrap()).unwrap();
    lock.lock().unwrap();
    site.world.run(&again).expect(11);
    lock.unlock().unwrap();
    let store = IntentStore::open(&site.path("state"));
    store.write(&Intent::new("toy", Timestamp::EPOCH, Timestamp::EPOCH).unwrap()).unwrap();
    let refused = site.world.run(&again).expect(22).error().to_string();
    assert!(refused.contains("cabk window recover"), "{refused}");
    store.remove("toy").unwrap();
    // Units on a node that does not answer; commands are asked here, for all nodes.
    site.world
        .configure("[service]\nnodes = [\"ssh://root@127.0.0.1:1\"]\n[site]\nname = \"toy\"\n");
    let refused = site.world.run(&again).expect(22).error().to_string();
    assert!(refused.contains("ssh://root@127.0.0.1:1"), "{refused}");
    by_commands();
    std::fs::write(site.path("svc/status"), "exit 7\n").unwrap();
    let refused = site.world.run(&again).expect(22).error().to_string();
    assert!(refused.contains("cannot be told"), "{refused}");
    std::fs::write(site.path("svc/status"), "exit 3\n").unwrap();
    site.world.run(&again).expect(0);
}
