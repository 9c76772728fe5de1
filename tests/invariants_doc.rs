//! Every test that `docs/invariants.md` names exists.

use std::collections::BTreeSet;
use std::path::Path;

fn tests_below(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for piece in text.split("#[test]").skip(1) {
                if let Some((_, rest)) = piece.split_once("fn ") {
                    found.insert(rest.split('(').next().unwrap_or_default().to_owned());
                }
            }
        }
    }
}

#[test]
fn named_tests_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = BTreeSet::new();
    tests_below(&root.join("src"), &mut there);
    tests_below(&root.join("tests"), &mut there);
    let text = std::fs::read_to_string(root.join("docs/invariants.md")).unwrap();
    // Names of tests are sentences: two underscores tell them from other words in code marks.
    let named: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() >= 2)
        .filter(|word| word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_' | b'0'..=b'9')))
        .collect();
    assert!(named.len() > 40, "{}", named.len());
    let gone: Vec<&&str> = named.iter().filter(|name| !there.contains(**name)).collect();
    assert!(gone.is_empty(), "docs/invariants.md names tests that do not exist: {gone:?}");
    assert_eq!(text.matches("\n## ").count(), 10);
}
