use std::path::Path;
use std::time::Duration;

use super::load::load_or;
use super::*;

const DEFAULTS: &str = include_str!("defaults.toml");
const EXAMPLES: &str = include_str!("examples.toml");

fn read(text: &str) -> Result<Loaded, ConfigError> {
    parse(text, Path::new("cabk.toml"))
}

fn message(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn the_defaults_written_down_are_the_defaults() {
    let written = read(DEFAULTS).unwrap();
    assert_eq!(written.config, Config::default());
    assert_eq!(read("").unwrap().config, Config::default());
    assert_eq!(written.config.without_effect(), Vec::<String>::new());
    assert!(written.is_given("site.env_file") && !written.is_given("site.name"));
    assert!(!read("").unwrap().is_given("site.env_file"));
}

#[test]
fn every_default_is_what_the_manual_says() {
    let config = Config::default();
    assert_eq!(config.repository.min_free, 5 * 1024 * 1024 * 1024);
    assert_eq!(config.service.stop_timeout, Duration::from_secs(300));
    assert_eq!(config.service.max_downtime, Duration::from_secs(1800));
    assert_eq!(config.service.wait_quiet, Duration::from_secs(120));
    assert_eq!(config.check.read_data.hundredths(), 500);
    assert_eq!(config.retention, Retention::default());
}

#[test]
fn keys_without_a_default_are_read() {
    let config = read(EXAMPLES).unwrap().config;
    assert_eq!(config.repository.url.as_deref(), Some("/srv/backup/connect"));
    assert_eq!(config.site.name.as_deref(), Some("connect-prod"));
    assert_eq!(config.service.nodes, ["local", "ssh://root@connect-2"]);
    assert_eq!(config.retention.snapshots.keep_daily, Some(7));
    assert_eq!(config.retention.captures.keep_within, Some(Duration::from_secs(14 * 86_400)));
    let told = config.without_effect().join("\n");
    for key in ["retention.snapshots", "retention.captures"] {
        assert!(told.contains(key), "{told}");
    }
    assert!(!told.contains("repository") && !told.contains("site"), "{told}");
}

/// Every key of the file, in both texts together, is refused when it is misspelt, with its line.
#[test]
fn a_misspelt_key_is_named_with_its_line() {
    for text in [DEFAULTS, EXAMPLES] {
        for (index, line) in text.lines().enumerate() {
            let Some((key, _)) = line.split_once(" = ") else { continue };
            let wrong: String = text
                .lines()
                .enumerate()
                .map(
                    |(at, line)| {
                        if at == index { format!("x{line}\n") } else { format!("{line}\n") }
                    },
                )
                .collect();
            let told = message(&wrong);
            assert!(told.contains(&format!("line {}, key ", index + 1)), "{told}");
            assert!(told.contains(&format!("unknown field `x{key}`")), "{told}");
        }
    }
}

#[test]
fn wrong_values_are_named_with_key_and_line() {
    for (text, line, key, part) in [
        ("[repository]\nmin_free = \"5 parsecs\"", 2, "repository.min_free", "not a size"),
        ("[service]\n\nmax_downtime = \"5\"", 3, "service.max_downtime", "not a duration"),
        (
            "[service]\nnodes = [\n  \"local\",\n  \"connect-2\",\n]",
            2,
            "service.nodes",
            "not a node",
        ),
        ("[window]\nprecopy = \"maybe\"", 2, "window.precopy", "unknown variant `maybe`"),
        ("[window]\nmax_read_rate = \"0\"", 2, "window.max_read_rate", "never end"),
        ("[evidence]\nassert = [\"all-fine\"]", 2, "evidence.assert", "not a check"),
        ("[check]\nread_data = \"101%\"", 2, "check.read_data", "not a percentage"),
        ("[site]\nexclude = \"one\"", 2, "site.exclude", "invalid type"),
        ("[retention.snapshots]\nkeep_daily = -1", 2, "retention.snapshots.keep_daily", "-1"),
        ("[nonsense]\n", 1, "nonsense", "unknown field `nonsense`"),
        ("[site]\nname = \"a\"\nname = \"b\"", 3, "site.name", "duplicate key"),
        ("[site]\nname = \"unterminated", 2, "site.name", ""),
    ] {
        let told = message(text);
        let place = format!("cabk.toml, line {line}, key {key}: ");
        assert!(told.starts_with(&place), "{told:?} does not begin with {place:?}");
        assert!(told.contains(part), "{told:?} does not say {part:?}");
        assert!(!told.contains('\n'), "{told:?}");
    }
}

#[test]
fn keys_that_have_no_effect_yet_are_told_one_by_one() {
    for (text, key) in [
        ("[postgres]\nmax_hold = \"1h\"", "postgres.max_hold"),
        ("[bundles]\ntransparent = false", "bundles.transparent"),
        ("[hooks]\nbefore_stop = [\"wall\"]", "hooks.before_stop"),
        ("[window]\nfreeze = \"reflink\"", "window.freeze = reflink"),
    ] {
        let told = read(text).unwrap().config.without_effect();
        assert_eq!(told, [format!("{key} has no effect yet in this version")]);
    }
    let effective = "[check]\nread_data = \"50%\"\n[window]\nprecopy = \"never\"\nfreeze = \"btrfs\"\n\
        max_read_rate = \"50 MiB/s\"\nread_timeout = \"9s\"\n[service]\n\
        health_url = \"http://x\"\n[hooks]\nannounce = [\"wall\"]\n";
    assert!(read(effective).unwrap().config.without_effect().is_empty());
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    assert!(matches!(load_or(Some(&missing), &missing), Err(ConfigError::Read { .. })));
    assert_eq!(load_or(None, &missing).unwrap().config, Config::default());
    let present = dir.path().join("present.toml");
    std::fs::write(&present, "[site]\nname = \"a\"\n").unwrap();
    assert_eq!(load_or(None, &present).unwrap().file, Some(present.clone()));
    assert!(matches!(load_or(None, dir.path()), Err(ConfigError::Read { .. })));
}

#[test]
fn a_file_that_is_no_text_or_endless_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("binary");
    std::fs::write(&binary, [0xff, 0xfe, 0]).unwrap();
    for path in [binary.as_path(), Path::new("/dev/zero")] {
        assert!(matches!(load_or(Some(path), path), Err(ConfigError::NotText { .. })));
    }
}
