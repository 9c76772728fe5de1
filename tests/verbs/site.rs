//! `discover` and `window`.

use serde_json::Value;

use super::place::Place;

#[test]
fn discover_lists_sources_with_sizes_and_warnings() {
    let place = Place::new();
    place.file("data/db/connect.db", b"x");
    place.file("data/apps/1/1/app.R", &vec![b'a'; 5_000]);
    std::os::unix::fs::symlink(place.path("data"), place.path("link")).unwrap();
    let gcfg =
        format!("[Server]\nAddress = https://c.example.com\nDataDir = {}\n", place.text("link"));
    let gcfg = place.file("etc/connect.gcfg", gcfg.as_bytes());
    let gcfg = gcfg.to_str().unwrap();
    let found = place.json(&["discover", "--site", gcfg, "--path", &place.text("none")]);
    assert_eq!(found["site"], "c.example.com");
    let sources = found["sources"].as_array().unwrap();
    let at = |path: &str| sources.iter().find(|s| s["path"] == place.text(path)).unwrap();
    assert_eq!(at("data")["role"], "data-dir");
    assert_eq!(at("data")["setting"], "Server.DataDir");
    assert_eq!(at("data")["bytes"], 5_001);
    assert_eq!(at("data/db")["roles"], serde_json::json!(["sqlite", "database-dir"]));
    assert_eq!((&at("link")["exists"], &at("none")["exists"]), (&true.into(), &false.into()));
    let codes: Vec<&str> =
        found["warnings"].as_array().unwrap().iter().map(|w| w["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"secret-key-missing"), "{codes:?}");
    let readable = place.ok(&["discover", "--site", gcfg]);
    assert!(readable.contains("data-dir") && readable.contains("(Server.DataDir)"), "{readable}");
    assert!(!place.path("repo").exists() && !place.path("cache").exists(), "nothing is written");

    let plain = place.json(&["discover", "--path", &place.text("data"), "--site-name", "p"]);
    assert_eq!((&plain["site"], &plain["sources"][0]["role"]), (&"p".into(), &"extra".into()));
    let error = place.fails(2, &["discover", "--site", &place.text("none.gcfg")]);
    assert!(error["hint"].is_string() && error["causes"].is_array(), "{error}");
    for hostile in [&b"[Server\n"[..], b"\0\xff\xfe", b"[Server]\nDataDir = \"x\n"] {
        let file = place.file("hostile.gcfg", hostile);
        place.fails(2, &["discover", "--site", file.to_str().unwrap()]);
    }
}

#[test]
fn window_tells_and_recovers() {
    let place = Place::new();
    let status = place.json(&["window", "status"]);
    assert_eq!((&status["open"], &status["stale"]), (&false.into(), &false.into()));
    assert!(status["since"].is_null() && status["nodes"].as_array().unwrap().is_empty());
    let done = place.json(&["window", "recover"]);
    assert!(done["recovered"].as_array().unwrap().is_empty());
    let running = place.text("running");
    for (start, code) in [("false".to_owned(), 30), (format!("touch {running}"), 0)] {
        leave_open(&place, &start, &format!("test -e {running} || exit 3"));
        let output = place.run(&["--json", "window", "status"]);
        // Nothing was stopped yet, but something is left.
        assert_eq!(output.status.code(), Some(3));
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&status["open"], &status["stale"]), (&true.into(), &true.into()), "{status}");
        assert_eq!(
            (&status["phase"], &status["windows"][0]["overdue"]),
            (&"armed".into(), &true.into())
        );
        assert_eq!(status["nodes"][0]["ran_before"], true);
        let output = place.run(&["--json", "window", "recover"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        let done: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(done["recovered"][0]["runs"], code == 0, "{done}");
    }
    assert_eq!(place.json(&["window", "status"])["open"], false);
}

/// Leaves what a killed run leaves: an intent whose owner is gone.
fn leave_open(place: &Place, start: &str, status: &str) {
    use cabk::host::service::{ServiceState, ServiceStatus};
    use cabk::window::intent::{Intent, IntentCommand, IntentService, IntentStore, ServiceKind};
    let now = cabk::base::time::Timestamp::EPOCH;
    let mut intent = Intent::new("site", now, now).unwrap();
    intent.start_timeout_ms = 500;
    let how = ServiceKind::Commands {
        stop: IntentCommand::Shell("true".into()),
        start: IntentCommand::Shell(start.into()),
        status: Some(IntentCommand::Shell(status.into())),
    };
    let was = ServiceStatus::bare(ServiceState::Running, "it ran");
    intent.services = vec![IntentService::new("local".into(), "toy".into(), how, &was)];
    // No process has this start time.
    intent.owner.start_time = 1;
    IntentStore::open(&place.path("state")).write(&intent).unwrap();
}
