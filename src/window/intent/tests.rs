use super::*;

fn intent(site: &str) -> Intent {
    let time = Timestamp { secs: 1_800_000_000, nanos: 5 };
    let mut intent = Intent::new(site, time, time).unwrap();
    let was = ServiceStatus {
        invocation_id: Some("ab".into()),
        cgroup: Some("/system.slice/x".into()),
        ..ServiceStatus::bare(ServiceState::Running, "3 replicas")
    };
    let unit = ServiceKind::Systemd { unit: "x.service".into(), sudo: false };
    intent.services.push(IntentService::new("local".into(), "x".into(), unit, &was));
    let commands = ServiceKind::Commands {
        stop: IntentCommand::Shell("stop it".into()),
        start: IntentCommand::Argv(vec!["run".into(), "it\u{1b}".into()]),
        status: None,
    };
    let was = ServiceStatus::bare(ServiceState::Unknown("no status".into()), "no status");
    intent.services.push(IntentService::new("local".into(), "y".into(), commands, &was));
    intent
}

#[test]
fn what_was_written_is_read_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = IntentStore::open(&dir.path().join("not/yet"));
    assert!(store.list().unwrap().is_empty() && store.read("prod").unwrap().is_none());
    store.remove("prod").unwrap();
    let mut sites = ["prod", "a/../b", "a_.._b", "\u{e9}t\u{e9}\n", ""].map(intent);
    for one in &sites {
        store.write(one).unwrap();
        store.write(one).unwrap();
        assert_eq!(store.read(&one.site).unwrap().as_ref(), Some(one));
        assert!(!one.is_stale().unwrap());
    }
    let mut listed: Vec<Intent> = store.list().unwrap().into_iter().map(Result::unwrap).collect();
    listed.sort_by(|a, b| a.site.cmp(&b.site));
    sites.sort_by(|a, b| a.site.cmp(&b.site));
    assert_eq!(listed, sites);
    let services = &listed[0].services;
    assert_eq!(services[0].was().cgroup.as_deref(), Some("/system.slice/x"));
    assert_eq!(services[1].how.start_by_hand("local"), "run it\\u{1b}");
    for one in &sites {
        store.remove(&one.site).unwrap();
    }
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = IntentStore::open(dir.path());
    store.write(&intent("prod")).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&store.dir), mode(&store.path("prod", "json"))), (0o700, 0o600));
}

#[test]
fn a_dead_owner_leaves_it_stale() {
    let mut one = intent("prod");
    one.owner.start_time += 1;
    assert!(one.is_stale().unwrap(), "another process with its number");
    let mut one = intent("prod");
    one.owner.boot_id = "of yesterday".into();
    assert!(one.is_stale().unwrap(), "another boot");
}

#[test]
fn damaged_files_are_named_and_hide_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = IntentStore::open(dir.path());
    let good = intent("prod");
    store.write(&good).unwrap();
    let whole = std::fs::read(store.path("prod", "json")).unwrap();
    let path = store.path("bad", "json");
    let newer = String::from_utf8(whole.clone()).unwrap().replacen("1", "2", 1);
    let deep = "[".repeat(100_000).into_bytes();
    let large = vec![b' '; 2 << 20];
    let torn = whole[..whole.len() / 2].to_vec();
    for bytes in [vec![], b"{}".to_vec(), torn, whole.clone(), newer.into_bytes(), deep, large] {
        std::fs::write(&path, &bytes).unwrap();
        let text = match store.read("bad") {
            Err(error @ IntentError::Damaged { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
        let listed = store.list().unwrap();
        assert_eq!(listed.iter().filter(|one| one.is_err()).count(), 1);
        assert!(listed.iter().any(|one| one.as_ref().is_ok_and(|one| *one == good)));
    }
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(store.read("bad").is_err(), "a FIFO does not hold the reader");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(store.path("prod", "json"), &path).unwrap();
    assert!(store.read("bad").is_err(), "a link is not followed");
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = IntentStore::open(dir.path());
    let good = intent("prod");
    store.write(&good).unwrap();
    let path = store.path("prod", "json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen('{', "{\"guard\": {\"unit\": 7},", 1)).unwrap();
    assert_eq!(store.read("prod").unwrap(), Some(good));
}

#[test]
fn an_intent_of_a_version_without_sudo_is_understood() {
    let was = ServiceStatus::bare(ServiceState::Running, "active/running");
    let how = ServiceKind::Systemd { unit: "x.service".into(), sudo: true };
    let one = IntentService::new("ssh://me@far:22".into(), "x.service".into(), how, &was);
    let mut written = serde_json::to_value(&one).unwrap();
    assert_eq!(serde_json::from_value::<IntentService>(written.clone()).unwrap(), one);
    written.as_object_mut().unwrap().remove("sudo").unwrap();
    let old: IntentService = serde_json::from_value(written).unwrap();
    assert_eq!(old.how, ServiceKind::Systemd { unit: "x.service".into(), sudo: false });
    assert_eq!(one.how.start_by_hand(&one.node), "ssh -p 22 me@far sudo systemctl start x.service");
    assert_eq!(old.how.start_by_hand("local"), "systemctl start x.service");
}
