//! Complete directories become pages. In a window that waits until the service runs again: nothing of
//! it needs the sources.

use super::names::Merge;
use super::node::{DirState, Slot, SlotState};
use super::{Engine, IntakeError};
use crate::base::id::ChunkId;
use crate::format::tree::{Entry, Node};
use crate::intake::digest;
use crate::store::accelerator::DirRecord;
use crate::tree::builder::DirBuilder;

/// Names in directories that wait: with more, they are built in the window.
const WAITING_NAMES: usize = 1 << 17;

/// Complete directories that wait to be built.
pub(super) struct Waiting {
    nodes: Vec<usize>,
    names: usize,
}

impl Waiting {
    /// None yet.
    pub(super) const fn none() -> Self {
        Self { nodes: Vec::new(), names: 0 }
    }
}

impl Engine<'_> {
    /// All of a directory is known.
    pub(super) fn complete(&mut self, node: usize) -> Result<(), IntakeError> {
        let Some(later) = &mut self.later else { return self.build_up(node) };
        later.nodes.push(node);
        later.names += self.nodes.get(node).slots.len();
        if later.names > WAITING_NAMES { self.build_waiting() } else { Ok(()) }
    }

    /// Builds what waits; what is complete from now on does not wait any more.
    pub(in crate::intake) fn build_waiting(&mut self) -> Result<(), IntakeError> {
        let waiting = self.later.take().map_or_else(Vec::new, |later| later.nodes);
        waiting.into_iter().try_for_each(|node| self.build_up(node))
    }

    /// A complete directory becomes pages, its record is kept, and the directory above learns of it;
    /// that one may be complete then, too.
    fn build_up(&mut self, first: usize) -> Result<(), IntakeError> {
        let mut next = Some(first);
        while let Some(number) = next {
            let Some(mut state) = self.nodes.remove(number) else { break };
            let tree = if state.failed { None } else { self.tree_of(&mut state)? };
            if let Some(no) = state.number {
                self.first_look.dirs[no as usize].tree = tree;
            }
            next = self.tell_above(state, tree)?;
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
        let unchanged = state.unchanged && state.renewed.is_empty();
        let same = state.record.as_ref().filter(|r| unchanged && r.children == children);
        let tree = match same {
            Some(record) => return Ok(record.tree),
            None if state.unchanged => self.replace(state)?,
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

    /// A directory that stays but for some files and the trees below it: its old entries, with those
    /// in their places.
    fn replace(&mut self, state: &mut DirState) -> Result<Option<ChunkId>, IntakeError> {
        let mut merge = Merge::new(std::mem::take(&mut state.slots), &state.renewed);
        let worker = &mut self.hands[0].worker;
        let mut builder = DirBuilder::default();
        if let Some(old) = state.record.as_ref().and_then(|r| r.tree) {
            let push = &mut |entry: Entry| -> Result<(), IntakeError> {
                merge.with(entry, &mut |entry| Ok(builder.push(entry, worker)?))
            };
            self.looker.reader.entries(&old, push)?;
        }
        merge.rest(&mut |entry| Ok::<(), IntakeError>(builder.push(entry, worker)?))?;
        let tree = builder.finish(worker)?;
        self.count_renewed(state, merge);
        Ok(tree)
    }

    /// Gives a complete directory to the one above; its number where that is complete, too.
    fn tell_above(
        &mut self,
        mut state: DirState,
        tree: Option<ChunkId>,
    ) -> Result<Option<usize>, IntakeError> {
        let fresh = state.meta.take();
        let node = Node::Dir { tree, partial: false };
        let Some((above, slot)) = state.parent else {
            let entry = fresh.map(|meta| Entry { name: Vec::new(), meta, node });
            if let Some(root) = state.root {
                self.roots[root] = entry;
            }
            return Ok(None);
        };
        let name = self.nodes.get(above).slots[slot].name.clone();
        if state.failed || state.meta_doubted {
            self.doubt_below(above, &name, &state);
        }
        let parent = self.nodes.get_mut(above);
        let known = match std::mem::replace(&mut parent.slots[slot].state, SlotState::Gone) {
            SlotState::Waiting(known) => known,
            _ => None,
        };
        parent.slots[slot].state = match fresh.or(known.map(|meta| *meta)) {
            Some(meta) => SlotState::Done(Box::new(Entry { name, meta, node })),
            None => SlotState::Tree(tree),
        };
        parent.pending -= 1;
        Ok((parent.pending == 0).then_some(above))
    }
}
