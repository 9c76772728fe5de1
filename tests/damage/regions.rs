//! The regions of each kind of object, by the layouts of `docs/format.md`.

use std::path::Path;

/// Kinds of objects, by where they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Config,
    Slot,
    Pack,
    Segment,
    Manifest,
    Lease,
    Generation,
    Note,
}

impl Kind {
    pub(crate) fn of(object: &Path) -> Self {
        let space = |name: &str| object.iter().any(|part| part == name);
        [
            ("config", Self::Config),
            ("keys", Self::Slot),
            ("packs", Self::Pack),
            ("index", Self::Segment),
            ("snapshots", Self::Manifest),
            ("captures", Self::Manifest),
            ("leases", Self::Lease),
            ("condemned", Self::Generation),
            ("notes", Self::Note),
        ]
        .into_iter()
        .find(|(name, _)| space(name))
        .map(|(_, kind)| kind)
        .unwrap()
    }
}

/// A stretch of bytes with one meaning.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) name: String,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

struct Cutter {
    at: usize,
    list: Vec<Region>,
}

impl Cutter {
    fn next(&mut self, name: &str, len: usize) {
        if len > 0 {
            let to = self.at + len;
            self.list.push(Region { name: name.into(), from: self.at, to });
            self.at = to;
        }
    }
}

/// All regions of an object, one behind the other.
pub(crate) fn regions(kind: Kind, bytes: &[u8]) -> Vec<Region> {
    let mut cut = Cutter { at: 0, list: Vec::new() };
    for (name, len) in [
        ("magic", 8),
        ("version", 2),
        ("suite", 1),
        ("zero", 1),
        ("epoch", 4),
        ("read features", 8),
        ("delete features", 8),
        ("salt", 32),
    ] {
        cut.next(name, len);
    }
    match kind {
        Kind::Pack => pack(&mut cut, bytes),
        kind => {
            cut.next("repository", 16);
            if kind == Kind::Slot {
                cut.next("derivation", 12);
                cut.next("commitment", 32);
            }
            cut.next("body", bytes.len() - cut.at - 16 - 32);
            cut.next("tag", 16);
            cut.next("checksum", 32);
        }
    }
    assert_eq!(cut.at, bytes.len());
    cut.list
}

fn pack(cut: &mut Cutter, bytes: &[u8]) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let trailer = bytes.len() - 16;
    let footer = word(trailer + 8);
    while cut.at < trailer - footer {
        let (table, body) = (word(cut.at + 8), word(cut.at + 12));
        cut.next("block magic", 4);
        cut.next("block class", 1);
        cut.next("block zero", 3);
        cut.next("table length", 4);
        cut.next("body length", 4);
        cut.next("table", table - 16);
        cut.next("table tag", 16);
        cut.next("body", body - 16);
        cut.next("body tag", 16);
    }
    cut.next("footer", footer - 16);
    cut.next("footer tag", 16);
    cut.next("trailer magic", 4);
    cut.next("trailer zero", 4);
    cut.next("footer length", 4);
    cut.next("blocks", 4);
}
