//! The commands beside `snapshot` and `restore`, from outside: JSON, exit codes, warnings.

mod common;
#[path = "verbs/keys.rs"]
mod keys;
#[path = "verbs/look.rs"]
mod look;
#[path = "verbs/place.rs"]
mod place;
#[path = "verbs/site.rs"]
mod site;
#[path = "verbs/terminal.rs"]
mod terminal;

use serde_json::Value;

use place::{PASSWORD, Place, failed, flip};

#[test]
fn init_makes_a_repository_once() {
    let place = Place::new();
    let made = place.json(&["init", "--compression", "5", "--parity", "3"]);
    assert_eq!(made["repo"], place.text("repo"));
    assert_eq!(made["encrypted"], true);
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    let error = place.fails(22, &["init"]);
    assert!(error["message"].as_str().unwrap().contains("already"), "{error}");
    place.file("full/x", b"");
    place.fails(22, &["-r", &place.text("full"), "init"]);
    place.fails(2, &["-r", "s3://bucket/x", "init"]);
    place.fails(2, &["-r", &place.text("new"), "init", "--parity", "60"]);
    let told = place.run(&["-r", &place.text("two"), "init", "--parity", "3"]).stderr;
    assert!(String::from_utf8(told).unwrap().contains("no effect yet"));
}

#[test]
fn an_init_that_was_killed_is_told() {
    let place = Place::with_repository();
    for object in place.objects("config") {
        std::fs::remove_file(object).unwrap();
    }
    let error = place.fails(22, &["init"]);
    assert!(error["message"].as_str().unwrap().contains("did not end"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("remove"), "{error}");
    place.fails(10, &["snapshots"]);
    std::fs::remove_dir(place.path("repo/config")).unwrap();
    place.fails(22, &["init"]);
}

#[test]
fn a_repository_without_encryption_has_no_keys() {
    let place = Place::new();
    let made = place.json(&["init", "--no-encryption"]);
    assert_eq!(made["encrypted"], false);
    let mut command = place.command(&["--json", "key", "list"]);
    let output = command.env_remove("CABK_PASSWORD").output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["keys"].as_array().unwrap().len(), 0);
    for args in [&["key", "add", "--recovery"][..], &["key", "export"], &["key", "passwd"]] {
        place.fails(22, args);
    }
}

#[test]
fn related_repositories_share_names_and_cuts() {
    let place = Place::with_repository();
    let one = place.json(&["-r", &place.text("repo"), "snapshots"]);
    assert_eq!(one["snapshots"].as_array().unwrap().len(), 0);
    let file = place.file("password", PASSWORD.as_bytes());
    let second = place.text("second");
    let flags = ["--related-password-file", file.to_str().unwrap()];
    let repo = place.text("repo");
    let made = place.json(&[&["-r", &second, "init", "--related-to", &repo][..], &flags].concat());
    assert!(made["related_to"].is_string(), "{made}");
    place.file("src/a", &vec![7; 100_000]);
    for repo in [&repo, &second] {
        place.ok(&[
            "-r",
            repo,
            "snapshot",
            "--path",
            &place.text("src"),
            "--site-name",
            "s",
            "--allow-volatile-state",
        ]);
    }
    let third = place.text("third");
    place.fails(
        12,
        &["-r", &third, "init", "--related-to", &repo, "--related-password-command", "echo wrong"],
    );
    assert!(!place.path("third").exists(), "nothing is made where the other does not open");
}

#[test]
fn what_is_no_repository_or_no_key_has_its_code() {
    let place = Place::with_repository();
    for args in [&["snapshots"][..], &["stats"], &["key", "list"], &["unlock"], &["ls", "latest"]] {
        let nothing = place.text("nothing");
        let error = place.fails(10, &[&["-r", &nothing], args].concat());
        assert!(error["message"].as_str().unwrap().contains(&nothing), "{error}");
        let output =
            place.command(&[&["--json"], args].concat()).env("CABK_PASSWORD", "x").output();
        failed(12, args, &output.unwrap());
        place.fails(2, &[&["-r", "sftp://host/x"], args].concat());
        let output =
            place.command(&[&["--json"], args].concat()).env_remove("CABK_PASSWORD").output();
        let error = failed(2, args, &output.unwrap());
        assert_eq!(error["code"], "no-password");
    }
    place.fails(1, &["show", "latest"]);
    place.fails(1, &["show", "abcdef"]);
    place.fails(1, &["ls", "abcdef:/x"]);
}

#[test]
fn one_copy_of_configuration_and_key_suffices() {
    let place = Place::with_repository();
    for space in ["config", "keys"] {
        let copies = place.objects(space);
        assert_eq!(copies.len(), 2);
        flip(&copies[0], 100);
    }
    let output = place.run(&["snapshots"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(told.matches("its other copy serves").count(), 2, "{told}");
    std::fs::remove_file(&place.objects("keys")[0]).unwrap();
    assert!(place.run(&["snapshots"]).status.success());
    flip(&place.objects("keys")[0], 100);
    place.fails(20, &["snapshots"]);
}

#[test]
fn a_newer_format_is_told_as_such() {
    let place = Place::with_repository();
    for object in place.objects("config") {
        let mut bytes = std::fs::read(&object).unwrap();
        // The version stands behind the magic (docs/format.md, section 4).
        bytes[8] = 99;
        // A newer version ends its objects with their checksum all the same.
        let split = bytes.len() - 32;
        let sum = blake3::hash(&bytes[..split]);
        bytes[split..].copy_from_slice(sum.as_bytes());
        std::fs::write(object, bytes).unwrap();
    }
    let error = place.fails(1, &["snapshots"]);
    assert!(error["message"].as_str().unwrap().contains("newer"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains(env!("CARGO_PKG_VERSION")), "{error}");
}
