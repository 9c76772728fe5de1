//! Unit files and drop-ins, as systemd reads them.

use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn put(root: &TempDir, path: &str, text: &str) -> Vec<u8> {
    let whole: PathBuf = below(root.path(), path.as_bytes());
    std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
    std::fs::write(whole, text).unwrap();
    path.as_bytes().to_vec()
}

fn load(root: &TempDir, name: &str) -> Unit {
    let files = find_unit(root.path(), name).unwrap().unwrap();
    load_unit(root.path(), name, &files).unwrap()
}

const MAIN: &str = "/usr/lib/systemd/system/rstudio-connect.service";

#[test]
fn the_service_section_is_read() {
    let root = tempfile::tempdir().unwrap();
    put(
        &root,
        MAIN,
        "[Unit]\nDescription=Environment=no\n[Service]\n# a comment \\\n\
        Environment=CONNECT_SERVER_DATADIR=/data \"A=b c\" 'D=%%e'\\\n; between\n F=g\n\
        EnvironmentFile=-/etc/default/rstudio-connect\nEnvironmentFile=/etc/connect/*.env\n\
        ExecStart=-/opt/rstudio-connect/bin/connect \\\n    --config \"/etc/x y.gcfg\" \
        --migration-config=/etc/m.gcfg\nUser=root\n",
    );
    let unit = load(&root, "rstudio-connect");
    assert_eq!(unit.name, "rstudio-connect.service");
    let set: Vec<_> =
        unit.environment.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
    assert_eq!(set, [("CONNECT_SERVER_DATADIR", "/data"), ("A", "b c"), ("D", "%e"), ("F", "g")]);
    assert_eq!(unit.environment[0].line, 5);
    assert_eq!(unit.environment_files.len(), 2);
    assert!(unit.environment_files[0].optional && !unit.environment_files[1].optional);
    assert_eq!(unit.exec_start[0], "/opt/rstudio-connect/bin/connect");
    assert_eq!(unit.config(), Some("/etc/x y.gcfg"));
    assert_eq!(unit.migration_config(), Some("/etc/m.gcfg"));
    assert_eq!(unit.user.as_deref(), Some("root"));
}

#[test]
fn drop_ins_apply_in_order_and_mask_each_other() {
    let root = tempfile::tempdir().unwrap();
    put(&root, MAIN, "[Service]\nEnvironment=A=1\nExecStart=/one\n");
    put(
        &root,
        "/usr/lib/systemd/system/rstudio-connect.service.d/10-a.conf",
        "[Service]\nUser=x\n",
    );
    put(
        &root,
        "/etc/systemd/system/rstudio-connect.service.d/10-a.conf",
        "[Service]\nExecStart=\nExecStart=/two --config=/c\n",
    );
    put(
        &root,
        "/run/systemd/system/rstudio-connect.service.d/20-b.conf",
        "[Service]\nEnvironment=\nEnvironment=B=2\n",
    );
    put(&root, "/etc/systemd/system/service.d/05-all.conf", "[Service]\nUser=all\n");
    put(&root, "/etc/systemd/system/rstudio-.service.d/30-p.conf", "[Service]\nEnvironment=C=3\n");
    put(&root, "/etc/systemd/system/rstudio-connect.service.d/note.txt", "[Service]\nUser=no\n");
    let unit = load(&root, "rstudio-connect.service");
    assert_eq!(unit.exec_start, ["/two", "--config=/c"]);
    assert_eq!(unit.config(), Some("/c"));
    let set: Vec<_> = unit.environment.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(set, ["B", "C"]);
    assert_eq!(unit.user.as_deref(), Some("all"));
    assert_eq!(unit.files.len(), 5);
}

#[test]
fn the_first_directory_with_the_unit_wins() {
    let root = tempfile::tempdir().unwrap();
    put(&root, MAIN, "[Service]\nUser=low\n");
    put(&root, "/etc/systemd/system/rstudio-connect.service", "[Service]\nUser=high\n");
    assert_eq!(load(&root, "rstudio-connect").user.as_deref(), Some("high"));
    assert_eq!(find_unit(root.path(), "no-such.service").unwrap(), None);
}

#[test]
fn a_masked_unit_is_found_and_says_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("etc/systemd/system");
    std::fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.join("c.service")).unwrap();
    let unit = load(&root, "c");
    assert!(unit.exec_start.is_empty());
    assert_eq!(unit.files.len(), 1);
}

#[test]
fn an_instance_is_read_from_its_template() {
    let root = tempfile::tempdir().unwrap();
    put(&root, "/etc/systemd/system/connect@.service", "[Service]\nUser=t\n");
    put(&root, "/etc/systemd/system/connect@a.service.d/x.conf", "[Service]\nEnvironment=A=1\n");
    let unit = load(&root, "connect@a.service");
    assert_eq!((unit.user.as_deref(), unit.environment.len()), (Some("t"), 1));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["", "../x", "a/b", ".hidden", "a b", "a\n"] {
        assert!(matches!(find_unit(Path::new("/"), name), Err(UnitError::Name(_))), "{name:?}");
    }
}

#[test]
fn a_pipe_as_a_drop_in_is_an_error_with_the_unit() {
    let root = tempfile::tempdir().unwrap();
    put(&root, MAIN, "[Service]\n");
    let dir = root.path().join("etc/systemd/system/rstudio-connect.service.d");
    std::fs::create_dir_all(&dir).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("p.conf"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let files = find_unit(root.path(), "rstudio-connect").unwrap().unwrap();
    let e = load_unit(root.path(), "rstudio-connect", &files).unwrap_err();
    assert!(matches!(e, UnitError::Read { source: ReadError::NotRegular { .. }, .. }));
}

#[test]
fn words_are_split_as_in_c() {
    assert_eq!(words("a \"b c\" 'd\"e' f\\x41g\\101 \\s\\q"), ["a", "b c", "d\"e", "fAgA", " \\q"]);
    assert_eq!(words("  "), Vec::<String>::new());
    assert_eq!(words("\"\" x"), ["", "x"]);
    assert_eq!(words("\\x4 \\x00 a\\"), ["\\x4", "\\x00", "a\\"]);
}

#[test]
fn debug_shows_no_value() {
    let root = tempfile::tempdir().unwrap();
    put(&root, MAIN, "[Service]\nEnvironment=CONNECT_POSTGRES_PASSWORD=hunter2\n");
    assert!(!format!("{:?}", load(&root, "rstudio-connect")).contains("hunter2"));
    assert!(!format!("{:?}", parse(b"[Service]\nEnvironment=A=hunter2")).contains("hunter2"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for directive in parse(&bytes).unwrap() {
            let _ = words(&directive.value);
        }
    }

    #[test]
    fn arbitrary_unit_like_text_never_panics(text in "([A-B=\\[\\]\"'\\\\#;% \r\nxu0-9]){0,200}") {
        for directive in parse(text.as_bytes()).unwrap() {
            let _ = words(&directive.value);
        }
    }
}
