//! The order of the house: who may import whom, how long things may be, what may not be written.

#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{Source, blanked, files_below, functions, root, segments, sources, words};

/// Lines of a file.
const FILE_LINES: usize = 500;
/// Lines of a function, from its name to its closing brace.
const FUNCTION_LINES: usize = 70;
/// What is longer than it may be, as `path` or `path:function`. It only ever shrinks.
const TOO_LONG: &[&str] = &[];
/// Files of `src/ops` that are no verbs and may be imported by verbs.
const SHARED_OPS: &[&str] = &["progress", "session", "shared", "sources"];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The rooms in the order of their layers, as `src/lib.rs` lists them.
fn rooms() -> Vec<String> {
    read("src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.split_once(';'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The room of a file, and the names of the modules below the room that lead to it.
fn place(path: &str) -> Option<(&str, Vec<&str>)> {
    let mut parts = path.strip_prefix("src/")?.strip_suffix(".rs")?.split('/');
    let room = parts.next()?;
    Some((room, parts.filter(|part| *part != "mod").collect()))
}

fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
    if let Some(log) = std::env::var_os("CABK_SKIP_LOG") {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        log.write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
    }
}

fn fail_with(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn the_map_lists_each_room_once_with_its_purpose() {
    let rooms = rooms();
    assert!(rooms.len() > 5 && rooms.first().is_some_and(|room| room == "base"), "{rooms:?}");
    let listed: BTreeSet<&str> = rooms.iter().map(String::as_str).collect();
    assert_eq!(listed.len(), rooms.len());
    let sources = sources();
    let there: BTreeSet<&str> = sources
        .iter()
        .filter_map(|source| place(&source.path))
        .map(|(room, _)| room)
        .filter(|room| !matches!(*room, "lib" | "main"))
        .collect();
    assert_eq!(listed, there, "src/lib.rs and the directories of src differ");
    for line in read("src/lib.rs").lines().filter(|line| line.starts_with("pub mod ")) {
        assert!(line.contains("; // "), "a room without a purpose: {line}");
    }
}

#[test]
fn rooms_import_only_from_rooms_above() {
    let rooms = rooms();
    let rank: BTreeMap<&str, usize> =
        rooms.iter().enumerate().map(|(at, room)| (room.as_str(), at)).collect();
    let mut found = Vec::new();
    for source in sources() {
        let Some((room, below)) = place(&source.path) else { continue };
        let Some(&own) = rank.get(room) else { continue };
        let mut imports = segments(&source.code, "crate");
        // A chain of `super` that leaves the room is a way around.
        let chain = vec!["super"; below.len() + 1].join("::");
        imports.extend(segments(&source.code, &chain));
        for (name, at) in imports {
            if rank.get(name.as_str()).is_some_and(|&other| other > own) {
                found.push(format!("{}:{} imports {name}", source.path, source.line(at)));
            }
        }
    }
    fail_with(&found, "a room imports only from rooms above itself in src/lib.rs");
}

#[test]
fn a_verb_never_imports_a_verb() {
    let mut found = Vec::new();
    let sources = sources();
    let verbs: BTreeSet<&str> = sources
        .iter()
        .filter_map(|source| place(&source.path))
        .filter(|(room, below)| *room == "ops" && !below.is_empty())
        .map(|(_, below)| below[0])
        .filter(|verb| !SHARED_OPS.contains(verb))
        .collect();
    for source in &sources {
        let Some(("ops", below)) = place(&source.path) else { continue };
        let Some(own) = below.first() else { continue };
        let mut imports = segments(&source.code, "crate::ops");
        imports.extend(segments(&source.code, &vec!["super"; below.len()].join("::")));
        for (name, at) in imports {
            if name != *own && verbs.contains(name.as_str()) {
                found.push(format!("{}:{} imports {name}", source.path, source.line(at)));
            }
        }
    }
    fail_with(&found, "a verb of src/ops never imports a verb");
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            long.push((source.path.clone(), lines));
        }
        for (name, _, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES {
                long.push((format!("{}:{name}", source.path), lines));
            }
        }
    }
    let found: Vec<String> = long
        .iter()
        .filter(|(name, _)| !TOO_LONG.contains(&name.as_str()))
        .map(|(name, lines)| format!("{name} has {lines} lines"))
        .collect();
    fail_with(&found, "a file has at most 500 lines, a function at most 70");
    for name in TOO_LONG {
        assert!(long.iter().any(|(have, _)| have == name), "{name} is short: take it off the list");
    }
    assert!(TOO_LONG.is_empty(), "the list of what is too long is to be empty: {TOO_LONG:?}");
}

fn forbidden(source: &Source, code: &str, list: &[&str], found: &mut Vec<String>) {
    for word in list {
        for at in words(code, word) {
            found.push(format!("{}:{} has {word}", source.path, source.line(at)));
        }
    }
}

#[test]
fn nothing_is_left_undone_or_printed_past_the_command_line() {
    let mut found = Vec::new();
    for source in sources() {
        forbidden(&source, &source.code, &["todo!", "unimplemented!", "dbg!"], &mut found);
        let product = source.product();
        for (at, _) in product.match_indices(".unwrap()") {
            found.push(format!("{}:{} has unwrap", source.path, source.line(at)));
        }
        if !source.path.starts_with("src/cli/") {
            let print = ["println!", "eprintln!", "print!", "eprint!"];
            forbidden(&source, product, &print, &mut found);
        }
    }
    fail_with(&found, "not to be written here");
}

#[test]
fn unsafe_code_stands_in_one_room() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !source.path.starts_with("src/host/")) {
        forbidden(source, &source.code, &["unsafe"], &mut found);
    }
    fail_with(&found, "unsafe code stands in src/host alone");
}

/// Cargo runs what lies directly in `tests`; what lies deeper must be named by a module, a path or
/// an include, and what is no Rust by some file of the package.
#[test]
fn every_file_of_the_tests_is_used() {
    let sources = sources();
    let scripts = ["tests/run", "tests/long"];
    let everything: String = sources
        .iter()
        .filter(|source| source.path.starts_with("tests/"))
        .map(|source| source.text.as_str())
        .chain([read("tests/run"), read("tests/long")].iter().map(String::as_str))
        .collect();
    let mut found = Vec::new();
    for path in files_below("tests") {
        let inner = path.trim_start_matches("tests/");
        if scripts.contains(&path.as_str()) || !inner.contains('/') && inner.ends_with(".rs") {
            continue;
        }
        let stem = inner.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let module = stem.rsplit('/').next().unwrap_or(stem);
        let name = inner.rsplit('/').next().unwrap_or(inner);
        let parent = inner.split('/').next().unwrap_or(inner);
        let by_module = inner.ends_with(".rs")
            && (everything.contains(&format!("mod {module};")) || everything.contains(inner));
        let by_name = !inner.ends_with(".rs")
            && (everything.contains(name) || everything.contains(&format!("tests/{parent}")));
        if !by_module && !by_name {
            found.push(path.clone());
        }
    }
    fail_with(&found, "no test uses these files");
}

/// A table whose rows begin with room names in code marks lists all rooms, in order.
#[test]
fn documents_list_the_rooms_as_they_are() {
    let path = root().join("docs/architecture.md");
    let Ok(text) = std::fs::read_to_string(path) else {
        skipped("docs/architecture.md is not there yet");
        return;
    };
    let rooms = rooms();
    let listed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.trim_end_matches('/').trim_start_matches("src/"))
        .filter(|name| rooms.iter().any(|room| room == name))
        .collect();
    assert_eq!(listed, rooms, "docs/architecture.md does not list the rooms of src/lib.rs");
}

#[test]
fn the_reader_of_rust_knows_texts_and_lifetimes() {
    let text = "fn a<'x>(s: &'x str) -> char { /* } /* } */ */ let _ = (r#\"}\"#, b\"\\\"}\", \"}\"); '}' } // }\nfn b();";
    let code = blanked(text);
    assert_eq!(code.matches('}').count(), 1, "{code}");
    assert_eq!(functions(&code), [("a".to_owned(), 1, 1)]);
    let code = "use crate::{base::id, host::{fs, cli}, ops};\nlet _ = crate::store::x;";
    let names: Vec<String> = segments(code, "crate").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["base", "host", "ops", "store"]);
    assert_eq!(words("unsafe_code unsafe { my_unsafe }", "unsafe").count(), 1);
    assert_eq!(words("println!(a); eprintln!(b)", "println!").count(), 1);
}
