//! Whole sites below a temporary root.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::site::postgres::DatabaseRole;
use crate::site::read::below;

const GCFG: &str = DEFAULT_GCFG;
const UNIT: &str = "/usr/lib/systemd/system/rstudio-connect.service";

struct Toy {
    root: TempDir,
    input: DiscoverInput,
}

impl Toy {
    /// A plain SQLite site: nothing about it deserves a warning.
    fn new(gcfg: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut input = DiscoverInput::new(GCFG);
        input.root = root.path().to_path_buf();
        input.hostname = Some("machine".into());
        let toy = Self { root, input };
        toy.put(GCFG, gcfg);
        toy.put("/var/lib/rstudio-connect/db/connect.db", "");
        toy.put("/var/lib/rstudio-connect/db/secret.key", "00");
        toy
    }

    fn put(&self, path: &str, text: &str) {
        let whole = below(self.root.path(), path.as_bytes());
        std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
        std::fs::write(whole, text).unwrap();
    }

    fn site(&self) -> Site {
        discover(&self.input).unwrap()
    }
}

fn codes(site: &Site) -> Vec<&str> {
    site.warnings.iter().map(|w| w.code).collect()
}

fn list(site: &Site) -> Vec<(&str, String, Option<&str>)> {
    site.sources
        .iter()
        .map(|s| {
            let place = match &s.locator {
                Locator::Path(path) => String::from_utf8(path.clone()).unwrap(),
                Locator::Database(url) => url.clone(),
            };
            (s.roles[0].as_str(), place, s.setting.as_deref())
        })
        .collect()
}

const ADDRESS: &str = "[Server]\nAddress = https://Connect.Example.org:3939/rsc\n";

#[test]
fn a_plain_site_has_its_defaults_and_no_warnings() {
    let site = Toy::new(ADDRESS).site();
    assert_eq!(site.label, "connect.example.org");
    assert!(!site.label_from_hostname);
    assert_eq!(site.provider, Provider::Sqlite);
    assert_eq!(site.sqlite_dir.as_deref(), Some(&b"/var/lib/rstudio-connect/db"[..]));
    assert_eq!(codes(&site), [""; 0]);
    let db = "/var/lib/rstudio-connect/db";
    assert_eq!(
        list(&site),
        [
            ("data-dir", "/var/lib/rstudio-connect".into(), Some("Server.DataDir")),
            ("sqlite", db.into(), Some("SQLite.Dir")),
            ("database-dir", db.into(), Some("Database.Dir")),
            ("config", "/etc/rstudio-connect".into(), None),
            ("config", GCFG.into(), None),
        ]
    );
    assert_eq!(site.sources[0].origin, Some(Origin::Default));
    assert!(!site.sources[0].secret && site.sources[1].secret && site.sources[3].secret);
}

#[test]
fn every_named_resource_is_found() {
    let toy = Toy::new(
        "[Server]\nAddress = h\nDataDir = /data\nEncryptionKeyFile = /keys/e.key\nTempDir = /tmp\n\
        LandingDir = landing\n[HTTPS]\nCertificate = /etc/rstudio-connect/a.crt\nKey = /k/a.key\n\
        [SAML]\nIdPMetaData = https://idp/metadata\nIdPSigningCertificate = /etc/rstudio-connect/idp\n\
        [LDAP \"A\"]\nTLSCACertificate = /k/ca1\n[LDAP \"B\"]\nTLSCACertificate = /k/ca2\n\
        [Python]\nExecutable = /opt/python/3.11/bin/python\nExecutable = /opt/python/3.12/bin/python\n\
        [Applications]\nSupervisor = /k/super.sh --quick\n[Logging]\nServiceLog = /var/log/c.log\n\
        [Custom]\nThing = /k/thing\nPlace = /k\n[SQLite]\nDir = /local/db\n[Metrics]\nDataPath = /m\n",
    );
    for path in [
        "/data/x",
        "/data/db/secret.key",
        "/keys/e.key",
        "/etc/rstudio-connect/landing/index.html",
        "/etc/rstudio-connect/a.crt",
        "/etc/rstudio-connect/idp",
        "/k/a.key",
        "/k/ca1",
        "/k/ca2",
        "/k/super.sh",
        "/k/thing",
        "/local/db/connect.db",
        "/var/log/c.log",
        "/var/lib/rstudio-connect/a.lic",
        "/data/b.lic",
        "/var/lib/.local/state",
    ] {
        toy.put(path, "x");
    }
    let site = toy.site();
    let found = list(&site);
    for (role, path, setting) in [
        ("data-dir", "/data", Some("Server.DataDir")),
        ("sqlite", "/local/db", Some("SQLite.Dir")),
        ("database-dir", "/data/db", Some("Database.Dir")),
        ("referenced", "/keys/e.key", Some("Server.EncryptionKeyFile")),
        ("referenced", "/etc/rstudio-connect/landing", Some("Server.LandingDir")),
        ("referenced", "/etc/rstudio-connect/a.crt", Some("HTTPS.Certificate")),
        ("referenced", "/k/a.key", Some("HTTPS.Key")),
        ("referenced", "/k/ca1", Some("LDAP \"A\".TLSCACertificate")),
        ("referenced", "/k/ca2", Some("LDAP \"B\".TLSCACertificate")),
        ("referenced", "/etc/rstudio-connect/idp", Some("SAML.IdPSigningCertificate")),
        ("referenced", "/k/super.sh", Some("Applications.Supervisor")),
        ("referenced", "/m", Some("Metrics.DataPath")),
        ("referenced", "/k/thing", Some("Custom.Thing")),
        ("license", "/var/lib/rstudio-connect/a.lic", None),
        ("license", "/data/b.lic", None),
        ("license", "/var/lib/.local", None),
    ] {
        assert!(found.contains(&(role, path.into(), setting)), "{path}: {found:?}");
    }
    assert!(!found.iter().any(|(_, path, _)| path.starts_with("/tmp") || path.contains("log")));
    assert_eq!(site.programs.len(), 2);
    let key = site.sources.iter().find(|s| s.locator.path() == Some(b"/keys/e.key")).unwrap();
    assert!(key.secret && key.critical && key.kind == SourceKind::File);
    for code in ["relative-path", "outside", "missing", "not-a-source"] {
        assert!(codes(&site).contains(&code), "{code}: {:?}", site.warnings);
    }
    let missing: Vec<_> = site.warnings.iter().filter(|w| w.code == "missing").collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0].message, "Metrics.DataPath names /m, which is not there");
}

#[test]
fn what_is_missing_is_told_once() {
    let toy = Toy::new("[Server]\nDataDir = /none\n");
    let site = toy.site();
    assert_eq!(
        codes(&site),
        ["critical-missing", "critical-missing", "label-from-hostname"],
        "{:?}",
        site.warnings
    );
    assert_eq!((site.label.as_str(), site.label_from_hostname), ("machine", true));
    assert!(site.sources.iter().any(|s| !s.exists && s.kind == SourceKind::Missing));
}

#[test]
fn postgres_urls_are_sources_without_their_secrets() {
    let toy = Toy::new(
        "[Server]\nAddress = h\n[Database]\nProvider = Postgres\n[Postgres]\n\
        URL = postgres://u:hunter2@h/db?options=-csearch_path=connect\n\
        InstrumentationURL = postgres://u@h:5432/db?options=-csearch_path=instrumentation\n",
    );
    let site = toy.site();
    assert_eq!(site.provider, Provider::Postgres);
    assert_eq!((site.databases.len(), &site.sqlite_dir), (1, &None));
    assert_eq!(codes(&site), [""; 0]);
    let url = "postgres://u:***@h/db?options=-csearch_path=connect";
    assert!(list(&site).contains(&("postgres", url.into(), Some("Postgres.URL"))));
    assert!(site.databases[0].url.expose().contains("hunter2"));
    let shown = format!("{site:?} {}", serde_json::to_string(&site.sources).unwrap());
    assert!(!shown.contains("hunter2"));

    toy.put(
        GCFG,
        "[Server]\nAddress = h\n[Database]\nProvider = postgres\n[Postgres]\nURL = postgres://u@h/db\n\
        InstrumentationURL = postgres://u@h/other\n",
    );
    let site = toy.site();
    assert_eq!(codes(&site), ["postgres-no-password", "postgres-no-password"]);
    assert_eq!(site.databases[1].role, DatabaseRole::Instrumentation);
    toy.put("/etc/default/rstudio-connect", "CONNECT_POSTGRES_PASSWORD='hunter2'\n");
    let site = toy.site();
    assert_eq!(codes(&site), [""; 0]);
    assert_eq!(site.databases[0].password.as_ref().unwrap().expose(), "hunter2");
    assert!(list(&site).iter().any(|s| s.0 == "environment"));
    assert!(!format!("{site:?}").contains("hunter2"));
}

#[test]
fn strange_providers_and_keys_are_told() {
    let site =
        Toy::new("[Server]\nAddress = h\nEncryptionKey = k\n[Database]\nProvider = oracle\n")
            .site();
    assert_eq!(site.provider, Provider::Other("oracle".into()));
    assert_eq!(codes(&site), ["unknown-provider", "encryption-key-in-config"]);
    let site = Toy::new("[Server]\nAddress = h\n[Database]\nProvider = postgres\n").site();
    assert_eq!(codes(&site), ["postgres-no-url"]);
    let site = Toy::new("[Server]\nAddress = h\n[Http]\nPassword = a#b\n").site();
    assert_eq!(codes(&site), ["value-cut"]);
    assert!(site.warnings[0].message.contains(":4)"));
}

#[test]
fn units_environment_and_process_override_in_this_order() {
    let mut toy = Toy::new(ADDRESS);
    toy.input.units = vec!["rstudio-connect".into(), "other.service".into()];
    toy.put(
        UNIT,
        "[Service]\nEnvironment=CONNECT_SERVER_DATADIR=/unit CONNECT_HTTP_LISTEN=:1 TERM=x\n\
        EnvironmentFile=-/etc/none\nEnvironmentFile=/etc/c/*.env\nEnvironmentFile=/etc/gone\n\
        ExecStart=/opt/rstudio-connect/bin/connect --config /etc/other.gcfg\n",
    );
    toy.put("/etc/systemd/system/rstudio-connect.service.d/a.conf", "[Service]\nUser=root\n");
    toy.put("/etc/c/a.env", "CONNECT_SERVER_DATADIR=/env\nexport X=1\n");
    toy.put("/etc/default/rstudio-connect", "CONNECT_SERVER_DATADIR=/unused\n");
    toy.put("/opt/rstudio-connect/bin/connect", "");
    toy.put("/env/db/connect.db", "");
    toy.put("/env/db/secret.key", "");
    toy.input.process_env =
        vec![("CONNECT_HTTP_LISTEN".into(), ":1".into()), ("CONNECT_A_B".into(), "hunter2".into())];
    let site = toy.site();
    assert_eq!(site.data_dir, b"/env");
    assert_eq!(
        site.settings.find("Server", "DataDir").unwrap().origin.to_string(),
        "CONNECT_SERVER_DATADIR in /etc/c/a.env:1"
    );
    assert_eq!(
        codes(&site),
        [
            "other-config",
            "unit-missing",
            "in-unit-environment",
            "in-unit-environment",
            "environment-line",
            "missing",
            "only-in-process-environment",
        ]
    );
    assert!(!format!("{:?}", site.warnings).contains("hunter2"));
    let found = list(&site);
    for (role, path) in [
        ("unit", UNIT),
        ("unit", "/etc/systemd/system/rstudio-connect.service.d/a.conf"),
        ("environment", "/etc/c/a.env"),
    ] {
        assert!(found.iter().any(|s| s.0 == role && s.1 == path), "{path}");
    }
    assert!(site.program.unwrap().ends_with("opt/rstudio-connect/bin/connect"));

    toy.put("/etc/mine", "CONNECT_SERVER_DATADIR=/var/lib/rstudio-connect\n");
    toy.input.env_file = Some("/etc/mine".into());
    toy.input.unit_files.insert("rstudio-connect".into(), vec![UNIT.into()]);
    let site = toy.site();
    assert_eq!(site.data_dir, b"/var/lib/rstudio-connect");
    assert_eq!(list(&site).iter().filter(|s| s.0 == "unit").count(), 1);
    toy.input.env_file = Some("/etc/nothing".into());
    assert!(matches!(discover(&toy.input), Err(SiteError::Read { .. })));
}

#[test]
fn the_second_file_counts_and_is_a_source() {
    let toy = Toy::new("[Server]\nAddress = h\nDataDir = /a\n");
    let second = "/etc/rstudio-connect/rstudio-connect-migration.gcfg";
    toy.put(second, "[server]\ndatadir = /var/lib/rstudio-connect\n[Postgres]\nPassword = x\n");
    let site = toy.site();
    assert_eq!(site.data_dir, b"/var/lib/rstudio-connect");
    assert_eq!(codes(&site), ["migration-config-secrets", "set-twice"]);
    assert!(list(&site).contains(&("config", second.into(), None)));
}

#[test]
fn a_configuration_in_a_shared_directory_does_not_take_the_directory() {
    let mut toy = Toy::new(ADDRESS);
    toy.put("/etc/c.gcfg", ADDRESS);
    toy.input.gcfg = "/etc/c.gcfg".into();
    let site = toy.site();
    assert_eq!(codes(&site), ["config-directory-shared"]);
    let config: Vec<_> = list(&site).into_iter().filter(|s| s.0 == "config").collect();
    assert_eq!(config, [("config", "/etc/c.gcfg".to_string(), None)]);
    // Nor does one that stands beside its data.
    toy.put("/s/c.gcfg", "[Server]\nAddress = h\nDataDir = /s/data\n");
    toy.put("/s/data/db/connect.db", "");
    toy.put("/s/data/db/secret.key", "");
    toy.input.gcfg = "/s/c.gcfg".into();
    assert_eq!(codes(&toy.site()), ["config-directory-shared"]);
}

#[test]
fn bad_configurations_are_errors_with_their_place() {
    let mut toy = Toy::new("[Server]\nDataDir = \"/data\n");
    let e = discover(&toy.input).err().unwrap();
    let text = format!("{e}: {}", std::error::Error::source(&e).unwrap());
    assert_eq!(text, format!("{GCFG}: line 2, column 11: string not terminated"));
    let path = below(toy.root.path(), GCFG.as_bytes());
    std::fs::write(&path, [0u8, 159, 146, 150].repeat(100)).unwrap();
    assert!(matches!(discover(&toy.input), Err(SiteError::Gcfg { .. })));
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    assert!(matches!(discover(&toy.input), Err(SiteError::Read { .. })));
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(discover(&toy.input), Err(SiteError::Read { .. })));
    toy.input.gcfg = "/etc/none.gcfg".into();
    let e = discover(&toy.input).err().unwrap();
    assert!(matches!(&e, SiteError::Read { source, .. } if source.is_missing()), "{e}");
}

#[test]
fn files_as_large_as_they_may_be_are_described_in_bounded_time() {
    use crate::site::gcfg::ENTRIES_MAX;
    use std::fmt::Write as _;

    let toy = Toy::new("");
    let mut text = String::new();
    for n in 0..ENTRIES_MAX {
        write!(text, "[LDAP \"{n}\"]\nTLSCACertificate = /c/{n}\n").unwrap();
    }
    toy.put(GCFG, &text);
    toy.put("/etc/rstudio-connect/rstudio-connect-migration.gcfg", &text.replace("/c/", "/d/"));
    let clock = crate::host::clock::SystemClock;
    let before = crate::host::clock::Clock::monotonic(&clock);
    let site = toy.site();
    assert_eq!(site.warnings.iter().filter(|w| w.code == "set-twice").count(), ENTRIES_MAX);
    let taken = crate::host::clock::Clock::monotonic(&clock) - before;
    // A tenth of this on an idle machine; quadratic work took 17 s.
    assert!(taken.as_secs() < 10, "{taken:?}");
}

#[test]
fn extra_paths_and_own_configuration_are_sources() {
    let mut toy = Toy::new(ADDRESS);
    toy.put("/etc/cabk/cabk.toml", "");
    toy.put("/srv/extra/f", "");
    toy.input.cabk_config = Some("/etc/cabk/cabk.toml".into());
    toy.input.extra_paths = vec!["/srv/extra".into(), "/srv".into()];
    toy.input.site_name = Some("prod".into());
    let site = toy.site();
    assert_eq!(site.label, "prod");
    assert_eq!(codes(&site), ["wide-source"]);
    assert_eq!(list(&site).iter().filter(|s| s.0 == "extra").count(), 2);
    assert!(list(&site).contains(&("cabk", "/etc/cabk/cabk.toml".into(), None)));
    toy.input.cabk_config = Some("/etc/cabk/none.toml".into());
    assert!(!list(&toy.site()).iter().any(|s| s.0 == "cabk"));
}

#[test]
fn outermost_paths_carry_all_roles() {
    let toy = Toy::new("[Server]\nAddress = h\n[HTTPS]\nKey = /var/lib/rstudio-connect-key\n");
    toy.put("/var/lib/rstudio-connect-key", "k");
    let roots = merged_roots(&toy.site().sources);
    let paths: Vec<_> = roots.iter().map(|r| std::str::from_utf8(&r.path).unwrap()).collect();
    assert_eq!(
        paths,
        ["/etc/rstudio-connect", "/var/lib/rstudio-connect", "/var/lib/rstudio-connect-key"]
    );
    assert_eq!(roots[1].roles, [Role::DataDir, Role::Sqlite, Role::DatabaseDir]);
    assert!(roots[0].secret && !roots[1].secret && roots[2].secret);
    let db = Inner {
        path: b"/var/lib/rstudio-connect/db".to_vec(),
        roles: vec![Role::Sqlite, Role::DatabaseDir],
        secret: true,
    };
    assert_eq!(roots[1].inner, [db]);
    assert_eq!(merged_roots(&[]), []);
}

#[test]
fn sources_render_as_json() {
    let site = Toy::new(ADDRESS).site();
    let json: serde_json::Value = serde_json::to_value(&site.sources[1]).unwrap();
    assert_eq!(json["path"], "/var/lib/rstudio-connect/db");
    assert_eq!(json["roles"][0], "sqlite");
    assert_eq!((&json["kind"], &json["exists"]), (&"dir".into(), &true.into()));
    let odd = serde_json::to_value(Locator::Path(b"/a\xff".to_vec())).unwrap();
    assert_eq!(odd["path_hex"], "2f61ff");
}

#[test]
fn versions_are_found_in_what_the_program_prints() {
    for (text, want) in [
        ("Posit Connect v2026.08.0\n", Some("2026.08.0")),
        ("RStudio Connect 1.8.2-10 (Linux)", Some("1.8.2-10")),
        ("connect, version 2024.03.0+dev-1.", Some("2024.03.0+dev-1")),
        ("2023.12.0~ubuntu20", Some("2023.12.0~ubuntu20")),
        ("error: no such option", None),
        ("at 10:30, 3 things", None),
        ("", None),
    ] {
        assert_eq!(version_from_output(text).as_deref(), want, "{text}");
    }
}

#[test]
fn hosts_are_taken_from_addresses() {
    for (address, want) in [
        ("https://u:p@Host.Example:1/x", Some("host.example")),
        ("host/x", Some("host")),
        ("http://[::1]:80", Some("::1")),
        ("https:///x", None),
        ("a b", None),
    ] {
        assert_eq!(identity::host(address).as_deref(), want, "{address}");
    }
    assert_eq!(Path::new(DEFAULT_GCFG).extension().unwrap(), "gcfg");
}
