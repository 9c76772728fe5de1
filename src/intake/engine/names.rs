//! Directories of which only some files are looked at.

use super::Engine;
use super::jobs::Job;
use super::node::{DirState, Slot, SlotState};
use crate::base::path::join;
use crate::format::tree::{Entry, Node};
use crate::intake::digest;
use crate::intake::dirty::Fate;
use crate::intake::first::Group;
use crate::intake::names::{NamesLook, Renewed, Wanted};
use crate::intake::scan::short;

/// Old entries with new ones in their places, in order of names.
pub(super) struct Merge<'r> {
    slots: std::iter::Peekable<std::vec::IntoIter<Slot>>,
    renewed: &'r [Renewed],
    owners: Vec<(u32, u32)>,
    /// Bytes of the files that were looked at, before.
    was: u64,
}

impl<'r> Merge<'r> {
    /// Of a directory's slots, which are in order of names.
    pub(super) fn new(slots: Vec<Slot>, renewed: &'r [Renewed]) -> Self {
        Self { slots: slots.into_iter().peekable(), renewed, owners: Vec::new(), was: 0 }
    }

    /// An old entry, and what comes before it.
    pub(super) fn with<E>(
        &mut self,
        mut entry: Entry,
        push: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(slot) = self.slots.next_if(|slot| slot.name < entry.name) {
            self.put(slot, push)?;
        }
        let Some(slot) = self.slots.next_if(|slot| slot.name == entry.name) else {
            return self.push(entry, push);
        };
        match (slot.state, &mut entry.node) {
            (SlotState::Tree(new), Node::Dir { tree, .. }) => {
                *tree = new;
                self.push(entry, push)
            }
            (state, node) => {
                if let Node::File { size, .. } = node {
                    self.was += *size;
                }
                self.put(Slot { name: slot.name, state }, push)
            }
        }
    }

    /// What comes after the last old entry.
    pub(super) fn rest<E>(
        &mut self,
        push: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(slot) = self.slots.next() {
            self.put(slot, push)?;
        }
        Ok(())
    }

    fn put<E>(
        &mut self,
        slot: Slot,
        push: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        match slot.state {
            SlotState::Done(entry) => self.push(*entry, push),
            _ => Ok(()),
        }
    }

    fn push<E>(
        &mut self,
        entry: Entry,
        push: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let owner = (entry.meta.uid, entry.meta.gid);
        if !self.renewed.is_empty() && self.owners.last() != Some(&owner) {
            self.owners.push(owner);
        }
        push(entry)
    }
}

impl Engine<'_> {
    /// What is to be looked at of a directory of which only some files are.
    pub(super) fn wanted(&self, node: usize) -> Option<Wanted> {
        let state = self.nodes.get(node);
        let no = state.known.filter(|_| state.by_names)?;
        let fates = &self.before.as_ref()?.fates;
        let seen =
            self.first_look.dirs.get(no as usize).filter(|_| fates.get(no) == Fate::Names)?;
        Some(Wanted { names: fates.names(no).to_vec(), tree: seen.tree, exact: seen.exact })
    }

    /// Some files of a directory were looked at: they are read next, and what is below it.
    pub(super) fn take_names(
        &mut self,
        node: usize,
        look: NamesLook,
        below: &mut Vec<usize>,
    ) -> Vec<usize> {
        let mut passed = Vec::new();
        let Some(no) = self.nodes.get(node).known else { return passed };
        self.stays(node, no, &look.renewed, (&mut passed, below));
        let device = look.stat.dev;
        for one in &look.renewed {
            let now = short(&one.digest);
            self.first_look.note_again(no, device, one.stat.ino, one.was, now);
        }
        let dir = &mut self.first_look.dirs[no as usize];
        dir.exact = look.exact;
        dir.odd |= look.believable == digest::NONE;
        let state = self.nodes.get_mut(node);
        let path = state.target.trail.path();
        for (slot, name) in state.slots.iter().enumerate() {
            let renewed = look.renewed.binary_search_by(|one| one.name.cmp(&name.name));
            if let Ok(at) = renewed {
                let stat = look.renewed[at].stat;
                let file = join(&path, &name.name);
                self.job_bytes += stat.size.min(super::WINDOW_BYTES);
                self.jobs.push(Job::new(node, slot, stat, file, true, self.sort));
            }
        }
        state.stat = Some(look.stat);
        state.volume = look.volume;
        state.key = look.key;
        state.record = Some(look.record);
        state.listing = look.believable;
        state.entries = look.entries;
        state.renewed = look.renewed;
        passed
    }

    /// A directory counts with what its files are now.
    pub(super) fn count_renewed(&mut self, state: &DirState, merge: Merge<'_>) {
        let (Some(no), Some(stat), false) = (state.number, state.stat, state.renewed.is_empty())
        else {
            return;
        };
        let now: u64 = state.renewed.iter().map(Renewed::bytes).sum();
        let mut owners = merge.owners;
        owners.push((stat.uid, stat.gid));
        let dir = &self.first_look.dirs[no as usize];
        let bytes = (dir.bytes + now).saturating_sub(merge.was);
        let counted = self.first_look.groups[dir.group as usize].counted.clone();
        let group = self.first_look.group(Group { owners, counted });
        let dir = &mut self.first_look.dirs[no as usize];
        (dir.bytes, dir.group) = (bytes, group);
    }
}
