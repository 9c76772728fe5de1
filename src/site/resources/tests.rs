//! The table of resources and what is guessed beside it.

use super::*;
use crate::site::gcfg;

fn settings(text: &str) -> Settings {
    let mut settings = Settings::default();
    settings.add_file(b"/etc/c.gcfg", &gcfg::parse(text.as_bytes()).unwrap());
    settings
}

#[test]
fn roles_have_one_name_everywhere() {
    let all = [
        Role::DataDir,
        Role::Sqlite,
        Role::DatabaseDir,
        Role::Config,
        Role::Referenced,
        Role::Environment,
        Role::Unit,
        Role::NodeConfig,
        Role::Postgres,
        Role::License,
        Role::Cabk,
        Role::Extra,
    ];
    for role in all {
        assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        assert_eq!(serde_json::from_str::<Role>(&format!("\"{role}\"")).unwrap(), role);
    }
}

#[test]
fn the_table_names_each_setting_once() {
    for (at, one) in RESOURCES.iter().enumerate() {
        for other in &RESOURCES[at + 1..] {
            assert!(one.section != other.section || one.key != other.key, "{}", one.name());
        }
    }
    for key in ["DataDir", "EncryptionKeyFile"] {
        assert!(RESOURCES.iter().any(|r| r.section == "Server" && r.key == key && r.critical));
    }
    assert!(RESOURCES.iter().any(|r| r.name() == "Database.Dir" && r.critical && r.secret));
}

#[test]
fn values_name_paths_or_not() {
    for (take, value, want) in [
        (Take::Path, "/a b", Some("/a b")),
        (Take::Path, "rel", Some("rel")),
        (Take::Path, "", None),
        (Take::Path, "/a\0b", None),
        (IfPath, "/a", Some("/a")),
        (IfPath, "file:///a", Some("/a")),
        (IfPath, "https://idp/metadata", None),
        (IfPath, "-----BEGIN CERTIFICATE-----", None),
        (Command, "/s/x.sh --flag /y", Some("/s/x.sh")),
        (Command, "nice -n 5", None),
    ] {
        assert_eq!(path_in(take, value), want, "{value}");
    }
}

#[test]
fn relative_paths_start_at_the_configuration() {
    assert_eq!(resolve(b"certs//x.pem", b"/etc/c"), b"/etc/c/certs/x.pem");
    assert_eq!(resolve(b"/a/./b/", b"/etc/c"), b"/a/b");
    assert_eq!(resolve(b"/a/../b", b"/etc/c"), b"/a/../b");
    assert_eq!(resolve(b"/", b"/etc"), b"/");
}

#[test]
fn other_absolute_paths_are_guessed() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["srv/d", "opt/x", "proc"] {
        std::fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    for file in ["srv/f", "opt/x/f"] {
        std::fs::write(root.path().join(file), b"x").unwrap();
    }
    std::fs::File::create(root.path().join("srv/big"))
        .unwrap()
        .set_len(GUESS_FILE_MAX + 1)
        .unwrap();
    let guessed = |text: &str| {
        let settings = settings(&format!("[S]\n{text}"));
        guess(root.path(), &settings.items()[0])
    };
    assert_eq!(guessed("A = /srv/f"), Some(Guess::File(b"/srv/f".to_vec())));
    assert_eq!(guessed("A = /srv/d"), Some(Guess::Dir(b"/srv/d".to_vec())));
    assert_eq!(guessed("A = /srv/big"), Some(Guess::LargeFile(b"/srv/big".to_vec())));
    for text in [
        "A = /opt/x/f",
        "A = /",
        "A = /srv/../opt/x/f",
        "A = /srv/none",
        "A = srv/f",
        "A = /proc",
        "AExecutable = /srv/f",
        "A",
    ] {
        assert_eq!(guessed(text), None, "{text}");
    }
    let server = settings("[Server]\nTempDir = /srv/d");
    assert_eq!(guess(root.path(), &server.items()[0]), None);
}
