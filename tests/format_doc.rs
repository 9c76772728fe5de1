//! `docs/format.md` and the code say the same: constants, contexts, magics, fields, bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cabk::backend::Space;
use cabk::base::{id, limits, time::Timestamp};
use cabk::codec::seal::TAG_LEN;
use cabk::format::header::{
    FORMAT_VERSION, HEADER_LEN, KNOWN_DELETE_FEATURES, KNOWN_READ_FEATURES, ObjectKind,
};
use cabk::format::{content, control, manifest, pack, tree};
use cabk::store::cut::ChunkSizes;
use cabk::store::keys::DERIVATION;
use cabk::store::{pack_builder, writer};
use fastcdc::v2020::{Normalization, select_masks};
use serde_json::Value;

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn document() -> String {
    file("docs/format.md")
}

/// The part of the document below a heading, up to the next heading of any level.
fn section(heading: &str) -> String {
    let text = document();
    let (_, below) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("docs/format.md has no section {heading}"));
    below.lines().take_while(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// First and second cell of each row whose first cell is code, without the code marks.
fn rows(text: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let value = cells.next()?.trim_end_matches(" |").trim().trim_matches('`').to_owned();
        Some((name, value))
    };
    text.lines().filter_map(row).collect()
}

/// Rows that are about constants: their names are in capitals.
fn constants(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in rows(text) {
        let word = name.split('.').next().unwrap_or_default();
        if word.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_')) {
            assert!(found.insert(name.clone(), value).is_none(), "{name} stands there twice");
        }
    }
    found
}

/// The value of a constant that the crate keeps to itself, out of its source.
fn private(path: &str, name: &str) -> u64 {
    let text = file(path);
    let lead = format!("const {name}: ");
    let line = text.lines().find(|line| line.contains(&lead)).unwrap_or_else(|| panic!("{name}"));
    let (_, value) = line.split_once(" = ").unwrap();
    let value = value.trim_end_matches(';').trim_start_matches("Duration::from_secs(");
    let sum = |part: &str| -> u64 {
        let mut sum = 0;
        for term in part.split(" + ") {
            let digits = |n: &str| n.trim_end_matches(')').replace('_', "").parse::<u64>().unwrap();
            sum += match term.split_once(" << ") {
                Some((n, by)) => digits(n) << digits(by),
                None => digits(term),
            };
        }
        sum
    };
    sum(value)
}

fn expected() -> BTreeMap<String, String> {
    let masks = select_masks(ChunkSizes::DEFAULT.avg as usize, Normalization::Level1);
    let repository = "src/store/repository/mod.rs";
    let numbers: Vec<(&str, u64)> = vec![
        ("HEADER_LEN", HEADER_LEN as u64),
        ("FORMAT_VERSION", u64::from(FORMAT_VERSION)),
        ("KNOWN_READ_FEATURES", KNOWN_READ_FEATURES),
        ("KNOWN_DELETE_FEATURES", KNOWN_DELETE_FEATURES),
        ("DERIVATION.memory_kib", u64::from(DERIVATION.memory_kib)),
        ("DERIVATION.passes", u64::from(DERIVATION.passes)),
        ("DERIVATION.lanes", u64::from(DERIVATION.lanes)),
        ("WRAPPED_LEN", private("src/store/keys.rs", "WRAPPED_LEN")),
        ("TAG_LEN", TAG_LEN as u64),
        ("PACK_BODY_ABOVE", private(repository, "PACK_BODY_ABOVE")),
        ("BODY_PLAIN_MAX", private(repository, "BODY_PLAIN_MAX")),
        ("BLOCK_HEADER_LEN", pack::BLOCK_HEADER_LEN as u64),
        ("TRAILER_LEN", pack::TRAILER_LEN as u64),
        ("BODY_PREFIX_LEN", pack_builder::BODY_PREFIX_LEN as u64),
        ("FOOTER_RECORD", pack::FOOTER_RECORD),
        ("PACK_TARGET", writer::PACK_TARGET),
        ("FIRST_BLOCK", writer::FIRST_BLOCK as u64),
        ("LATER_BLOCK", writer::LATER_BLOCK as u64),
        ("TREE_BLOCK", writer::TREE_BLOCK as u64),
        ("PUBLISH_PACKS", private("src/store/uploader.rs", "PUBLISH_PACKS")),
        ("PUBLISH_AFTER", private("src/store/uploader.rs", "PUBLISH_AFTER")),
        ("MASK_SMALL", masks.0),
        ("MASK_LARGE", masks.1),
        ("LIST_REFS_MIN", content::LIST_REFS_MIN as u64),
        ("LIST_REFS_MAX", content::LIST_REFS_MAX as u64),
        ("LIST_CUT_MASK", u64::from(content::LIST_CUT_MASK)),
        ("PAGE_NAMES_MIN", tree::PAGE_NAMES_MIN as u64),
        ("PAGE_NAMES_CUT", tree::PAGE_NAMES_CUT as u64),
        ("PAGE_CUT_MASK", u64::from(tree::PAGE_CUT_MASK)),
        ("PAGE_BYTES", private("src/tree/builder.rs", "PAGE_BYTES")),
    ];
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all: BTreeMap<String, String> =
        numbers.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
    all.insert("BLOCK_MAGIC".into(), text(pack::BLOCK_MAGIC));
    all.insert("TRAILER_MAGIC".into(), text(pack::TRAILER_MAGIC));
    all
}

/// The bounds as code names them: a new one must be added here and in the document.
fn bounds() -> BTreeMap<String, String> {
    macro_rules! table {
        ($($name:ident)*) => {
            [$((stringify!($name).to_owned(), limits::$name.to_string())),*].into()
        };
    }
    table![
        BLOCK_PLAIN_MAX BLOCK_SEALED_MAX BLOCK_CHUNKS_MAX BLOCK_TABLE_MAX PACK_MAX CHUNK_MAX
        LIST_MAX LIST_LEVELS_MAX ENTRY_MAX NAME_MAX PAGE_NAMES_MAX PAGE_BYTES_MAX PAGE_LEVELS_MAX DEPTH_MAX
        INLINE_CHUNKS_MAX INLINE_XATTR_MAX XATTR_TOTAL_MAX EXTENT_MAP_MAX INLINE_EXTENTS_MAX
        SEGMENT_MAX MANIFEST_MAX CONTROL_MAX MANIFEST_PROBLEMS_MAX MANIFEST_PROBLEM_BYTES_MAX ARGON2_MEMORY_KIB_MAX
        ARGON2_PASSES_MAX ARGON2_LANES_MAX SLOT_FACTS_MAX SLOT_LABEL_MAX ZSTD_WINDOW_LOG_MAX
        SITE_FILE_MAX
    ]
}

#[test]
fn constants_are_those_of_the_code() {
    let mut expected = expected();
    expected.extend(bounds());
    let found = constants(&document());
    for (name, value) in &expected {
        assert_eq!(found.get(name), Some(value), "{name}");
    }
    for name in found.keys() {
        assert!(expected.contains_key(name), "{name} stands in the document alone");
    }
}

#[test]
fn all_bounds_are_listed() {
    let source = file("src/base/limits.rs");
    let in_code: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    let table = constants(&section("## 15. Bounds of all decoders"));
    let listed: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    assert_eq!(in_code, listed);
}

#[test]
fn spaces_and_magics_are_those_of_the_code() {
    let rows: Vec<Vec<String>> = section("## 2. Names of objects")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect();
    let mut spaces: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    spaces.dedup();
    assert_eq!(spaces, Space::ALL.map(Space::prefix));
    let magics: BTreeSet<&str> =
        rows.iter().map(|row| row[3].as_str()).filter(|magic| !magic.is_empty()).collect();
    let in_code: BTreeSet<&str> =
        ObjectKind::ALL.iter().map(|kind| std::str::from_utf8(kind.magic()).unwrap()).collect();
    assert_eq!(magics, in_code);
}

/// All texts in the sources that begin as contexts do, those of tests too.
fn contexts_below(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contexts_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for piece in text.split("\"cabk 2026 ").skip(1) {
                let (context, _) = piece.split_once('"').unwrap();
                found.insert(format!("cabk 2026 {context}"));
            }
        }
    }
}

#[test]
fn contexts_are_those_of_the_code() {
    let mut in_code = BTreeSet::new();
    contexts_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut in_code);
    let listed: BTreeSet<String> = rows(&document())
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("cabk 2026 "))
        .collect();
    assert_eq!(listed, in_code);
}

#[test]
fn classes_and_kinds_have_the_numbers_of_the_code() {
    let rows: BTreeMap<String, String> = rows(&section("## 9. Packs")).into_iter().collect();
    for class in pack::Class::ALL {
        assert_eq!(rows.get(&format!("{class:?}")), Some(&class.code().to_string()), "{class:?}");
    }
    for kind in pack::ChunkKind::ALL {
        let name = format!("ChunkKind::{kind:?}");
        assert_eq!(rows.get(&name), Some(&kind.code().to_string()), "{name}");
    }
}

#[test]
fn default_sizes_are_those_of_the_code() {
    let ChunkSizes { min, avg, max } = ChunkSizes::DEFAULT;
    let text = section("### Configuration");
    assert!(text.contains(&format!("chunks of {min}, {avg} and {max} bytes")), "{text}");
}

/// The fields that a body has at rest, and those of the objects in it.
fn names(value: &Value, top: &mut BTreeSet<String>, below: &mut BTreeSet<String>) {
    if let Value::Object(map) = value {
        for (name, value) in map {
            top.insert(name.clone());
            inner(value, below);
        }
    }
}

fn inner(value: &Value, below: &mut BTreeSet<String>) {
    match value {
        Value::Object(_) => {
            let mut top = BTreeSet::new();
            names(value, &mut top, below);
            below.append(&mut top);
        }
        Value::Array(list) => list.iter().for_each(|one| inner(one, below)),
        _ => {}
    }
}

fn held_by<T: serde::Serialize>(heading: &str, bodies: &[T]) {
    let text = section(heading);
    let listed: BTreeSet<String> = rows(&text).into_iter().map(|(name, _)| name).collect();
    let (mut top, mut below) = (BTreeSet::new(), BTreeSet::new());
    for body in bodies {
        names(&serde_json::to_value(body).unwrap(), &mut top, &mut below);
    }
    assert_eq!(listed, top, "{heading}");
    for name in below {
        assert!(text.contains(&format!("`{name}`")), "{heading} does not name {name}");
    }
}

const NOW: Timestamp = Timestamp::EPOCH;

#[test]
fn control_bodies_have_the_fields_of_the_code() {
    let hex = || control::HexBytes(vec![1]);
    held_by(
        "### Configuration",
        &[control::ConfigBody {
            number: 1,
            created: NOW,
            chunk_min: 1,
            chunk_avg: 1,
            chunk_max: 1,
            compression: 3,
            parity_percent: 0,
            seals: vec![control::EpochSecret { epoch: 1, secret: hex() }],
            epoch: 1,
            ids: hex(),
            cuts: hex(),
            related_to: None,
        }],
    );
    let id = id::KeyId::from_array([1; 16]);
    let label = String::new();
    let slot = control::SlotBody { id, label, created: NOW, recovery: false, master: hex() };
    held_by("### Key slot", &[slot]);
    let holder =
        control::Holder { host: String::new(), boot_id: String::new(), pid: 1, start_ticks: 1 };
    let id = id::LeaseId::from_array([1; 16]);
    let operation = String::new();
    let lease = control::LeaseBody { id, holder, operation, taken: NOW, obeys: 0, reads: vec![] };
    held_by("### Lease", &[lease]);
    let by = control::EndedBy::Holder;
    held_by("### Lease end", &[control::LeaseEndBody { id, by, manifest: None, roots: vec![] }]);
    let condemned = control::CondemnedBody { number: 1, packs: vec![] };
    held_by("### Condemned generation", &[condemned]);
    let facts = [
        control::Fact::Forgotten { site: String::new(), sequence: 1 },
        control::Fact::Pinned { reason: String::new(), until: None },
        control::Fact::Unpinned,
        control::Fact::Drilled { passed: true },
        control::Fact::Lost { paths: vec![] },
    ];
    let about = id::ManifestId::from_array([1; 32]);
    held_by("### Note", &facts.map(|fact| control::NoteBody { about, time: NOW, fact }));
}

fn manifest_body() -> manifest::ManifestBody {
    let hex = || control::HexBytes(vec![1]);
    manifest::ManifestBody {
        kind: manifest::RecordKind::Snapshot,
        origin: manifest::Origin::Window,
        site: String::new(),
        host: String::new(),
        time: NOW,
        tool_version: String::new(),
        connect_version: None,
        sequence: 1,
        writer: String::new(),
        predecessors: vec![],
        tags: vec![],
        window: Some(manifest::WindowRecord {
            stopped_at: None,
            started_at: None,
            downtime_ms: None,
            nodes: vec![manifest::NodeRecord {
                node: String::new(),
                service: String::new(),
                ran_before: true,
                runs_after: None,
            }],
            frozen: vec![manifest::FrozenRecord {
                by: String::new(),
                paths: vec![],
                made: String::new(),
                at: Timestamp::EPOCH,
                took_ms: 0,
            }],
            phases: Some(manifest::WindowPhases::default()),
        }),
        evidence: vec![manifest::Evidence {
            check: String::new(),
            subject: String::new(),
            node: String::new(),
            scope: String::new(),
            held: true,
            how: manifest::How::Observed,
            detail: String::new(),
            looked_at: vec![cabk::base::time::Timestamp::EPOCH],
        }],
        sources: vec![manifest::SourceRecord {
            roles: vec![],
            path: None,
            database: None,
            setting: None,
            bytes: 0,
            dir: true,
        }],
        excludes: vec![],
        left_out: vec![],
        mounts: vec![manifest::MountRecord { path: hex(), fs_type: String::new(), crossed: true }],
        root: hex(),
        owners: manifest::Owners::default(),
        summary: manifest::Summary::default(),
        problems: vec![manifest::ProblemRecord { path: hex(), error: String::new() }],
        problems_total: 1,
        extra_roots: vec![],
        warnings: vec![],
    }
}

#[test]
fn manifests_have_the_fields_of_the_code() {
    held_by("### Manifest", &[manifest_body()]);
}
