use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::base::path::bytes;

struct Place {
    _dir: tempfile::TempDir,
    top: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        Self { _dir: dir, top }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        bytes(&self.path(name)).to_vec()
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
        self
    }

    /// A site whose data directory is named through a symbolic link.
    fn site(&self) -> SourcesInput {
        self.file("disk/data/db/connect.db", "x")
            .file("disk/data/db/secret.key", "k")
            .file("disk/data/packrat/cache/a", "a")
            .file("disk/data/bundles/1/1.tar.gz", "b");
        symlink(self.path("disk/data"), self.path("data")).unwrap();
        let text = format!(
            "[Server]\nAddress = https://connect.example.com/\nDataDir = {}\n",
            self.path("data").display()
        );
        self.file("etc/connect.gcfg", &text);
        SourcesInput { gcfg: Some(self.path("etc/connect.gcfg")), ..SourcesInput::default() }
    }
}

fn codes(wanted: &Wanted) -> Vec<&'static str> {
    wanted.warnings.iter().map(|w| w.code).collect()
}

#[test]
fn a_link_and_its_target_are_both_sources_and_nested_ones_are_read_once() {
    let place = Place::new();
    let wanted = gather(&place.site()).unwrap();
    assert_eq!(wanted.site, "connect.example.com");
    assert!(wanted.is_site && !wanted.has_postgres());
    assert_eq!(wanted.data_dir, Some(place.bytes("disk/data")));
    assert_eq!(wanted.sqlite_dir, Some(place.bytes("disk/data/db")));
    let plan = wanted.plan().unwrap();
    let own: Vec<&Vec<u8>> =
        plan.roots.iter().filter(|r| is_within(r, bytes(&place.top))).collect();
    assert_eq!(own, [&place.bytes("data"), &place.bytes("disk/data"), &place.bytes("etc")]);
    let db = wanted.sources.iter().find(|s| s.path == place.bytes("disk/data/db")).unwrap();
    assert_eq!(db.roles, [Role::Sqlite, Role::DatabaseDir]);
    assert!(db.dir && db.secret && db.critical);
    let link = wanted.sources.iter().find(|s| s.path == place.bytes("data")).unwrap();
    assert!(!link.dir && link.exists);
    assert!(plan.secret.contains(&place.bytes("disk/data/db")));
    assert!(!plan.secret.contains(&place.bytes("disk/data")));
}

#[test]
fn keys_databases_and_bundles_stay_in_and_runtimes_go_when_asked() {
    let place = Place::new();
    let mut input = place.site();
    input.excludes = vec!["db".into(), "*.gz".into(), "*.log".into()];
    input.exclude_runtimes = true;
    let wanted = gather(&input).unwrap();
    assert!(codes(&wanted).contains(&"cannot-be-excluded"), "{:?}", wanted.warnings);
    let plan = wanted.plan().unwrap();
    assert!(!plan.leaves_out(&place.bytes("disk/data/db"), true));
    assert!(!plan.leaves_out(&place.bytes("disk/data/bundles/1/1.tar.gz"), false));
    assert!(plan.leaves_out(&place.bytes("disk/data/jobs/x.log"), false));
    assert!(plan.leaves_out(&place.bytes("disk/data/packrat/cache"), true));
    assert!(!plan.leaves_out(&place.bytes("disk/data/packrat"), true));
    assert_eq!(plan.excludes().len(), 3 + RUNTIME_CACHES.len());
}

#[test]
fn what_is_missing_is_told_by_discover_and_refused_by_a_plan() {
    let place = Place::new();
    let mut input = place.site();
    std::fs::remove_dir_all(place.path("disk/data")).unwrap();
    let wanted = gather(&input).unwrap();
    assert!(codes(&wanted).contains(&"critical-missing"));
    assert!(matches!(wanted.plan(), Err(SourcesError::CriticalMissing { .. })));
    input = SourcesInput { paths: vec![place.path("none")], ..SourcesInput::default() };
    let wanted = gather(&input).unwrap();
    assert!(matches!(wanted.plan(), Err(SourcesError::NotThere(_))));
    assert!(matches!(gather(&SourcesInput::default()), Err(SourcesError::Nothing)));
}

#[test]
fn the_repository_is_never_part_of_a_source() {
    let place = Place::new();
    place.file("src/repo/config/x", "").file("src/a", "");
    symlink(place.path("src/repo"), place.path("alias")).unwrap();
    let input = |paths: &[&str]| SourcesInput {
        paths: paths.iter().map(|p| place.path(p)).collect(),
        left_out: vec![(place.path("alias"), "the repository")],
        ..SourcesInput::default()
    };
    let wanted = gather(&input(&["src"])).unwrap();
    assert!(codes(&wanted).contains(&"left-out"));
    assert!(wanted.plan().unwrap().leaves_out(&place.bytes("src/repo"), true));
    let wanted = gather(&input(&["src/repo/config"])).unwrap();
    assert!(matches!(wanted.plan(), Err(SourcesError::Within { .. })));
}

#[test]
fn postgres_is_told_and_links_out_of_the_data_directory_are_warned_of() {
    let place = Place::new();
    let input = place.site();
    symlink("/usr", place.path("disk/data/elsewhere")).unwrap();
    let text = format!(
        "[Server]\nDataDir = {}\n[Database]\nProvider = postgres\n[Postgres]\nURL = postgres://u:p@h/d\n",
        place.path("data").display()
    );
    place.file("etc/connect.gcfg", &text);
    let wanted = gather(&input).unwrap();
    assert!(wanted.has_postgres());
    assert!(codes(&wanted).contains(&"leads-out"));
    assert!(wanted.sqlite_dir.is_none());
}

#[test]
fn a_version_is_asked_within_bounds() {
    let place = Place::new();
    place.file("connect", "#!/bin/sh\necho 'Posit Connect v2025.05.1'\n");
    let program = place.path("connect");
    let clock = crate::host::clock::SystemClock;
    assert!(connect_version(&program, &clock).is_err(), "it cannot be run");
    std::process::Command::new("chmod").arg("755").arg(&program).status().unwrap();
    assert_eq!(connect_version(&program, &clock).unwrap(), "2025.05.1");
    assert!(connect_version(Path::new("/bin/false"), &clock).is_err());
}

#[test]
fn names_become_patterns_of_themselves() {
    assert_eq!(literal("/a b/[x]*"), "/a\\ b/\\[x\\]\\*");
    let plan = ReadPlan::new(Vec::new(), &[format!("{}/c/", literal("/a b/{x}!*"))]).unwrap();
    assert!(plan.leaves_out(b"/a b/{x}!*/c", true));
    assert!(!plan.leaves_out(b"/a b/x/c", true));
}
