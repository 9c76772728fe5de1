//! Which value counts, and what typed values are.

use super::*;
use crate::site::gcfg;

fn settings(texts: &[&str]) -> Settings {
    let mut settings = Settings::default();
    for (number, text) in texts.iter().enumerate() {
        let path = format!("/etc/{number}.gcfg");
        settings.add_file(path.as_bytes(), &gcfg::parse(text.as_bytes()).unwrap());
    }
    settings
}

#[test]
fn the_last_value_wins_and_sections_add_up() {
    let all = settings(&[
        "[Server]\nDataDir = /a\n[HTTP]\nListen = :1\n[server]\ndatadir = /b\nAddress =\n",
        "[Server]\nDATADIR = /c\n",
    ]);
    assert_eq!(all.get("server", "DataDir"), Some("/c"));
    assert_eq!(all.find("Server", "DataDir").unwrap().origin.to_string(), "/etc/1.gcfg:2");
    assert_eq!(all.get("HTTP", "Listen"), Some(":1"));
    assert_eq!(all.get("Server", "Address"), None);
    assert!(all.find("Server", "Address").is_some());
    assert_eq!(all.get("Server", "None"), None);
}

#[test]
fn subsections_are_told_apart_by_case() {
    let all = settings(&["[LDAP \"A\"]\nURL = 1\n[ldap \"a\"]\nurl = 2\n[LDAP \"A\"]\nUrl = 3\n"]);
    assert_eq!(all.get_in("LDAP", "A", "URL"), Some("3"));
    assert_eq!(all.get_in("LDAP", "a", "URL"), Some("2"));
    assert_eq!(all.get("LDAP", "URL"), None);
    let each: Vec<_> = all.each("LDAP", "URL").iter().map(|s| s.value.clone().unwrap()).collect();
    assert_eq!(each, ["2", "3"]);
    assert_eq!(all.find_in("LDAP", "A", "URL").unwrap().name(), "LDAP \"A\".Url");
}

#[test]
fn repeated_properties_append_and_a_key_alone_takes_back() {
    let all = settings(&["[R]\nExecutable = /1\nExecutable = /2\nExecutable =\n"]);
    assert_eq!(all.all("R", "executable").len(), 2);
    let all = settings(&["[R]\nExecutable = /1\nExecutable\nExecutable = /2\n"]);
    let values: Vec<_> = all.all("R", "Executable").iter().map(|s| s.value.clone()).collect();
    assert_eq!(values, [Some("/2".to_string())]);
}

#[test]
fn variables_override_files() {
    let mut all = settings(&["[Server]\nDataDir = /a\n"]);
    let origin = |name: &str| Origin::EnvFile {
        name: name.into(),
        path: b"/etc/default/x"[..].into(),
        line: 7,
    };
    let name = "CONNECT_SERVER_DATADIR";
    assert!(all.add_variable(name, "/b", origin(name)));
    assert_eq!(all.get("Server", "DataDir"), Some("/b"));
    let found = all.find("Server", "DataDir").unwrap();
    assert_eq!(found.name(), "Server.DataDir");
    assert_eq!(found.origin.to_string(), "CONNECT_SERVER_DATADIR in /etc/default/x:7");
    assert!(!all.add_variable("PATH", "/bin", origin("PATH")));
    assert_eq!(override_of("CONNECT_POSTGRES_PASSWORD"), Some(("POSTGRES", "PASSWORD")));
    for name in ["CONNECT_SERVER", "CONNECT__X", "CONNECT_X_", "connect_a_b", "CONNECT_A_B C"] {
        assert_eq!(override_of(name), None, "{name}");
    }
}

#[test]
fn typed_values() {
    let all = settings(&[
        "[A]\nb\nc = Off\nd = maybe\ne = 5 KiB\nf = 1h30m\ng = 1500000000\nh = 1.5h\ni = 30d\n\
        j = 100ms\nk = fast\nl = 99999999999h\nm =\nn = -5s\no = 0.000000001s\np = 1.2.3s\n",
    ]);
    assert_eq!(all.bool("A", "b"), Ok(Some(true)));
    assert_eq!(all.bool("A", "c"), Ok(Some(false)));
    assert_eq!(all.bool("A", "z"), Ok(None));
    let e = all.bool("A", "d").unwrap_err();
    assert_eq!(e.to_string(), "A.d (/etc/0.gcfg:4) is not a truth value");
    assert_eq!(all.size("A", "e"), Ok(Some(5 << 10)));
    assert!(all.size("A", "k").is_err());
    for (key, want) in [
        ("f", Duration::from_secs(5400)),
        ("g", Duration::from_millis(1500)),
        ("h", Duration::from_secs(5400)),
        ("i", Duration::from_secs(30 * 86_400)),
        ("j", Duration::from_millis(100)),
        ("o", Duration::from_nanos(1)),
    ] {
        assert_eq!(all.duration("A", key), Ok(Some(want)), "{key}");
    }
    for key in ["k", "l", "m", "n", "p", "b"] {
        assert!(all.duration("A", key).is_err(), "{key}");
    }
}

#[test]
fn the_second_file_has_the_name_of_the_first() {
    assert_eq!(migration_path(b"/etc/c/x.gcfg"), b"/etc/c/x-migration.gcfg");
    assert_eq!(migration_path(b"/etc/c.d/x"), b"/etc/c.d/x-migration");
    assert_eq!(migration_path(b"x.gcfg"), b"x-migration.gcfg");
}

#[test]
fn debug_shows_no_value() {
    let all = settings(&["[Postgres]\nPassword = hunter2\n"]);
    assert!(!format!("{all:?}").contains("hunter2"));
}
