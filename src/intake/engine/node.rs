//! Directories whose entries are not complete yet.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Engine, IntakeError};
use crate::base::id::ChunkId;
use crate::format::segment::ChunkKey;
use crate::format::tree::{Entry, Meta, Node};
use crate::host::fs::{Attributes, Stat};
use crate::intake::digest::{self, Digest};
use crate::intake::file::{self, FileError, Remarks, Surroundings};
use crate::intake::first::DirNo;
use crate::intake::mounted::Mounted;
use crate::intake::scan::Target;
use crate::store::accelerator::DirRecord;
use crate::store::reader::ReadError;
use crate::tree::builder::DirBuilder;

/// A name in a directory that is not complete.
pub(super) struct Slot {
    pub(super) name: Vec<u8>,
    pub(super) state: SlotState,
}

/// What is known of it.
pub(super) enum SlotState {
    /// To be read; the metadata of a directory where it is that of the last run.
    Waiting(Option<Box<Meta>>),
    /// Read.
    Done(Box<Entry>),
    /// A sub-directory of an unchanged directory: its tree, and its metadata where it is new.
    Tree(Option<ChunkId>),
    /// Could not be read.
    Gone,
}

/// A directory.
pub(super) struct DirState {
    pub(super) parent: Option<(usize, usize)>,
    pub(super) target: Target,
    /// Its number in an earlier read of this run ...
    pub(super) known: Option<DirNo>,
    /// ... and in this one.
    pub(super) number: Option<DirNo>,
    pub(super) volume: Arc<Mounted>,
    pub(super) stat: Option<Stat>,
    pub(super) key: ChunkKey,
    pub(super) record: Option<DirRecord>,
    pub(super) attributes: Option<Attributes>,
    pub(super) listing: Digest,
    pub(super) entries: Vec<Digest>,
    pub(super) unchanged: bool,
    pub(super) failed: bool,
    /// Digests that must not be kept.
    doubted: Vec<Digest>,
    pub(super) slots: Vec<Slot>,
    pub(super) pending: usize,
}

impl DirState {
    /// A name could not be read as it is: the next run must not believe that it was.
    pub(super) fn doubt(&mut self, digest: &Digest) {
        self.listing = digest::NONE;
        self.doubted.push(*digest);
    }

    /// The digests that may be kept.
    fn believable(&mut self) -> Vec<Digest> {
        let mut entries = std::mem::take(&mut self.entries);
        self.doubted.sort_unstable();
        if !self.doubted.is_empty() {
            entries.retain(|d| self.doubted.binary_search(d).is_err());
        }
        entries
    }
}

/// All directories that are not complete, by number; numbers are used again.
#[derive(Default)]
pub(super) struct Nodes {
    all: Vec<Option<DirState>>,
    free: Vec<usize>,
}

impl Nodes {
    pub(super) fn add(&mut self, parent: Option<(usize, usize)>, target: Target) -> usize {
        let state = DirState {
            parent,
            volume: Arc::clone(&target.volume),
            target,
            known: None,
            number: None,
            stat: None,
            key: [0; 16],
            record: None,
            attributes: None,
            listing: digest::NONE,
            entries: Vec::new(),
            unchanged: false,
            failed: false,
            doubted: Vec::new(),
            slots: Vec::new(),
            pending: 0,
        };
        match self.free.pop() {
            Some(number) => {
                self.all[number] = Some(state);
                number
            }
            None => {
                self.all.push(Some(state));
                self.all.len() - 1
            }
        }
    }

    pub(super) fn get(&self, number: usize) -> &DirState {
        match &self.all[number] {
            Some(state) => state,
            None => unreachable!("a directory is removed once, when it is complete"),
        }
    }

    pub(super) fn get_mut(&mut self, number: usize) -> &mut DirState {
        match &mut self.all[number] {
            Some(state) => state,
            None => unreachable!("a directory is removed once, when it is complete"),
        }
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<DirState> {
        self.free.push(number);
        self.all[number].take()
    }
}

impl Engine<'_> {
    /// All of a directory is known: it becomes pages, its record is kept, and the directory above
    /// learns of it; that one may be complete then, too.
    pub(super) fn complete(&mut self, first: usize) -> Result<(), IntakeError> {
        let mut next = Some(first);
        while let Some(number) = next {
            let Some(mut state) = self.nodes.remove(number) else { break };
            let tree = if state.failed { None } else { self.tree_of(&mut state)? };
            if let Some(no) = state.number {
                self.first_look.dirs[no as usize].tree = tree;
            }
            next = self.tell_above(number, state, tree)?;
        }
        Ok(())
    }

    fn tree_of(&mut self, state: &mut DirState) -> Result<Option<ChunkId>, IntakeError> {
        let namer = self.looker.reader.repository().namer();
        let trees = state.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Tree(tree) => Some(tree.as_ref().map(ChunkId::as_bytes)),
            SlotState::Done(entry) => match &entry.node {
                Node::Dir { tree, .. } => Some(tree.as_ref().map(ChunkId::as_bytes)),
                _ => None,
            },
            SlotState::Waiting(_) | SlotState::Gone => None,
        });
        let children = digest::children(namer, trees);
        let same = state.record.as_ref().filter(|r| state.unchanged && r.children == children);
        let tree = match same {
            Some(record) => return Ok(record.tree),
            None if state.unchanged => self.replace_children(state)?,
            None => self.build(std::mem::take(&mut state.slots))?,
        };
        let record = DirRecord {
            generation: self.generation,
            tree,
            listing: state.listing,
            children,
            entries: state.believable(),
        };
        let believed = &self.looker.believed;
        let kept = state.record.as_ref().is_some_and(|old| {
            let as_now = DirRecord { generation: old.generation, ..record.clone() };
            believed.contains(&old.generation) && *old == as_now
        });
        if !kept {
            self.looker.reader.accelerator().put_dir(state.key, &record)?;
        }
        Ok(tree)
    }

    fn build(&mut self, slots: Vec<Slot>) -> Result<Option<ChunkId>, IntakeError> {
        let worker = &mut self.hands[0].worker;
        let mut builder = DirBuilder::default();
        for slot in slots {
            if let SlotState::Done(entry) = slot.state {
                builder.push(*entry, worker)?;
            }
        }
        Ok(builder.finish(worker)?)
    }

    /// An unchanged directory whose sub-directories changed: its old entries, with new trees.
    fn replace_children(&mut self, state: &DirState) -> Result<Option<ChunkId>, IntakeError> {
        let Some(old) = state.record.as_ref().and_then(|r| r.tree) else { return Ok(None) };
        let mut trees: HashMap<&[u8], Option<ChunkId>> = HashMap::new();
        for slot in &state.slots {
            if let SlotState::Tree(tree) = &slot.state {
                trees.insert(&slot.name, *tree);
            }
        }
        let worker = &mut self.hands[0].worker;
        let mut builder = DirBuilder::default();
        self.looker.reader.entries(&old, &mut |mut entry: Entry| -> Result<(), IntakeError> {
            if let (Node::Dir { tree, .. }, Some(new)) =
                (&mut entry.node, trees.get(entry.name.as_slice()))
            {
                *tree = *new;
            }
            Ok(builder.push(entry, worker)?)
        })?;
        Ok(builder.finish(&mut self.hands[0].worker)?)
    }

    /// Gives a complete directory to the one above; its number where that is complete, too.
    fn tell_above(
        &mut self,
        number: usize,
        mut state: DirState,
        tree: Option<ChunkId>,
    ) -> Result<Option<usize>, IntakeError> {
        let problems = self.seen.problems.len();
        let fresh = match (state.stat.or(state.target.stat), state.target.meta_known) {
            (Some(stat), false) => Some(self.dir_meta(&mut state, &stat)?),
            _ => None,
        };
        let Some((above, slot)) = state.parent else {
            let node = Node::Dir { tree, partial: false };
            if let Some(meta) = fresh {
                self.finished.push((number, Entry { name: Vec::new(), meta, node }));
            }
            return Ok(None);
        };
        let name = self.nodes.get(above).slots[slot].name.clone();
        if state.failed || self.seen.problems.len() > problems {
            self.doubt_below(above, &name, &state);
        }
        let parent = self.nodes.get_mut(above);
        let known = match std::mem::replace(&mut parent.slots[slot].state, SlotState::Gone) {
            SlotState::Waiting(known) => known,
            _ => None,
        };
        parent.slots[slot].state = match fresh.or(known.map(|meta| *meta)) {
            Some(meta) => {
                let node = Node::Dir { tree, partial: false };
                SlotState::Done(Box::new(Entry { name, meta, node }))
            }
            None => SlotState::Tree(tree),
        };
        parent.pending -= 1;
        Ok((parent.pending == 0).then_some(above))
    }

    /// A sub-directory was not kept as it is, or not with all its attributes: the next run must not
    /// take its entry over.
    fn doubt_below(&mut self, above: usize, name: &[u8], state: &DirState) {
        let Some(stat) = &state.target.stat else { return };
        let namer = self.looker.reader.repository().namer();
        let parent = self.nodes.get_mut(above);
        let digest = digest::entry(namer, &parent.volume.volume.identity, name, stat);
        parent.doubt(&digest);
        self.mark_odd(above);
    }

    fn dir_meta(&mut self, state: &mut DirState, stat: &Stat) -> Result<Meta, IntakeError> {
        let attributes = state.attributes.take().unwrap_or_default();
        let around = Surroundings {
            volume: &state.volume.volume.identity,
            class: self.looker.plan.class(&state.target.trail.path()),
        };
        let hand = &mut self.hands[0];
        let mut remarks = Remarks::default();
        let made = file::meta(
            stat,
            attributes,
            around,
            &mut hand.worker,
            &mut hand.streamer,
            &mut remarks,
        );
        for problem in remarks.problems {
            self.seen.problems.push((state.target.trail.path(), problem));
        }
        match made {
            Ok(meta) => Ok(meta),
            Err(FileError::Write(error)) => Err(error.into()),
            Err(error) => Err(IntakeError::Read(ReadError::Repository(
                crate::store::repository::RepositoryError::Damaged {
                    object: super::with_source(&error),
                    source: crate::format::DecodeError::Invalid { what: "attributes" },
                },
            ))),
        }
    }
}
