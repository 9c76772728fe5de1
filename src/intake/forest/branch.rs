//! The tree of absolute paths that leads to the roots of a read.

use std::collections::BTreeMap;

use super::IntakeError;
use crate::base::time::Timestamp;
use crate::format::tree::{Entry, Meta, Node};
use crate::intake::engine::Engine;
use crate::intake::seen::Seen;
use crate::tree::builder::DirBuilder;

/// Some roots of a plan, read and built.
pub struct Apart {
    pub(super) top: Branch,
    pub(super) seen: Seen,
}

/// A part of the tree of absolute paths.
#[derive(Default)]
pub(super) struct Branch {
    pub(super) root: Option<Root>,
    /// Of a directory that leads to roots.
    pub(super) meta: Option<Meta>,
    pub(super) below: BTreeMap<Vec<u8>, Branch>,
}

impl Branch {
    /// Every directory becomes its entry.
    pub(super) fn build(&mut self, engine: &mut Engine<'_>) {
        self.root = self
            .root
            .take()
            .and_then(|root| root_entry(engine, b"", root))
            .map(|entry| Root::Leaf(Box::new(entry)));
        self.below.values_mut().for_each(|below| below.build(engine));
    }

    pub(super) fn add(&mut self, other: Self) {
        self.root = self.root.take().or(other.root);
        self.meta = self.meta.take().or(other.meta);
        for (name, below) in other.below {
            self.below.entry(name).or_default().add(below);
        }
    }
}

/// What a root is.
pub(super) enum Root {
    /// A directory: its place in the engine.
    Directory(usize),
    /// Anything else.
    Leaf(Box<Entry>),
}

/// Makes the entries of the directories that lead to the roots. One that could not be read has none.
pub(super) fn grow(
    engine: &mut Engine<'_>,
    name: &[u8],
    branch: Branch,
) -> Result<Entry, IntakeError> {
    let mut builder = DirBuilder::default();
    for (name, below) in branch.below {
        let entry = match below.root {
            None => Some(grow(engine, &name, below)?),
            Some(root) => root_entry(engine, &name, root),
        };
        if let Some(entry) = entry {
            builder.push(entry, &mut engine.hands[0].worker)?;
        }
    }
    let tree = builder.finish(&mut engine.hands[0].worker)?;
    let meta = branch.meta.unwrap_or_else(plain_dir);
    Ok(Entry { name: name.to_vec(), meta, node: Node::Dir { tree, partial: true } })
}

pub(super) fn root_entry(engine: &mut Engine<'_>, name: &[u8], root: Root) -> Option<Entry> {
    let entry = match root {
        Root::Directory(place) => engine.root_entry(place)?,
        Root::Leaf(entry) => *entry,
    };
    Some(Entry { name: name.to_vec(), ..entry })
}

pub(super) fn plain_dir() -> Meta {
    Meta {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::EPOCH,
        btime: None,
        flags: None,
        project: None,
        link: None,
        xattrs: crate::format::tree::Xattrs::NONE,
    }
}
