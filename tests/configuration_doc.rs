//! `docs/configuration.md` shows the defaults of the code and names every key.

use std::collections::BTreeSet;
use std::path::Path;

use cabk::cli::config::{Config, parse};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    std::fs::read_to_string(path).unwrap()
}

fn blocks(text: &str) -> Vec<&str> {
    let parts = text.split("```toml\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap()).collect()
}

fn keys(prefix: &str, table: &toml::Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => keys(&name, inner, found),
            _ => _ = found.insert(name),
        }
    }
}

#[test]
fn the_blocks_are_the_defaults_and_valid_examples() {
    let text = document();
    let [defaults, examples] = blocks(&text)[..] else { panic!("two blocks of TOML") };
    assert_eq!(parse(defaults, Path::new("defaults")).unwrap().config, Config::default());
    let example = parse(examples, Path::new("examples")).unwrap().config;
    assert_ne!(example, Config::default());
}

#[test]
fn each_key_has_its_row_and_each_row_is_a_key() {
    let text = document();
    let mut shown = BTreeSet::new();
    for block in blocks(&text) {
        keys("", &block.parse().unwrap(), &mut shown);
    }
    let rows: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(name, _)| name.contains('.'))
        .collect();
    let listed: BTreeSet<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed.len(), rows.len(), "a key stands there twice");
    // The policies of captures have the keys of those of snapshots.
    let shown: BTreeSet<&str> = shown.iter().map(String::as_str).collect();
    for name in &shown {
        assert!(listed.contains(name.replace("captures", "snapshots").as_str()), "{name}");
    }
    // Every key that is named is known: a wrong value for it is told as one.
    for name in listed {
        let (table, key) = name.rsplit_once('.').unwrap();
        let wrong = parse(&format!("[{table}]\n{key} = 1979-05-27\n"), Path::new("wrong"));
        let said = wrong.unwrap_err().to_string();
        assert!(!said.contains("unknown field"), "{name}: {said}");
    }
}
