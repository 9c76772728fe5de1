//! What an engine does with what an earlier read of the same run saw: directories that cannot have
//! changed keep their trees, and only what leads to others is built again.

use super::node::{Slot, SlotState};
use super::{Engine, IntakeError};
use crate::base::path::is_within;
use crate::format::tree::{Entry, Node};
use crate::host::fs::{InodeKind, Stat};
use crate::intake::digest;
use crate::intake::dirty::{Fate, Fates, Kids};
use crate::intake::first::{DirNo, DirSeen, FirstLook, Group, NOBODY};
use crate::intake::names::Renewed;
use crate::intake::scan::{Look, Target, short};
use crate::store::accelerator::DirRecord;

/// An earlier read, and what becomes of its directories.
pub(in crate::intake) struct Before {
    kids: Kids,
    pub(super) fates: Fates,
    reached: Vec<Reached>,
    /// Directories that stay with all below them.
    kept: Vec<DirNo>,
    /// Names that the first look begins with.
    names: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Not,
    Looked,
    Kept,
}

impl Before {
    pub(in crate::intake) fn new(look: &FirstLook, kids: Kids, fates: Fates) -> Self {
        let reached = vec![Reached::Not; look.dirs.len()];
        Self { kids, fates, reached, kept: Vec::new(), names: look.names_before() }
    }
}

/// What is known of a sub-directory.
pub(super) type KnownKid = Option<(DirNo, Fate)>;

impl Engine<'_> {
    /// The number under which a root was seen before.
    pub(super) fn known_root(&self, path: &[u8]) -> Option<DirNo> {
        self.before.as_ref()?;
        let mut roots = self.first_look.live().filter(|(_, dir)| dir.parent == NOBODY);
        roots.find(|(_, dir)| *dir.name == *path).map(|(no, _)| no)
    }

    /// What becomes of each name of a directory that was looked at; nothing is known of what is new,
    /// was moved in, or changed without an event. To be asked before the look is noted.
    pub(super) fn known_below(&self, node: usize, look: &Look) -> Vec<KnownKid> {
        let (Some(before), Some(no)) = (&self.before, self.nodes.get(node).known) else {
            return Vec::new();
        };
        let above = &self.first_look.dirs[no as usize];
        if (above.dev, above.ino) != (look.listing.stat.dev, look.listing.stat.ino) {
            return Vec::new();
        }
        let namer = self.looker.reader.repository().namer();
        let volume = &look.listing.volume.volume.identity;
        let kid_of = |name: &[u8], stat: &Stat| {
            let kid = before.kids.named(&self.first_look, no, name)?;
            let seen = &self.first_look.dirs[kid as usize];
            let fate = before.fates.get(kid);
            let digest = digest::entry(namer, volume, name, stat);
            let then = (no, short(&digest));
            let same = self.first_look.names_of(stat.dev, stat.ino).any(|known| known == then);
            let known =
                (seen.dev, seen.ino) == (stat.dev, stat.ino) && (same || fate == Fate::Look);
            known.then_some((kid, fate))
        };
        let each = look.listing.seen.iter().map(|seen| {
            let is_dir = seen.stat.kind == InodeKind::Dir;
            if is_dir { kid_of(&seen.name, &seen.stat) } else { None }
        });
        each.collect()
    }

    /// A sub-directory stays as it is: its tree.
    pub(super) fn keep(&mut self, kid: DirNo) -> Option<crate::base::id::ChunkId> {
        if let Some(before) = &mut self.before {
            before.kept.push(kid);
        }
        self.first_look.dirs[kid as usize].tree
    }

    /// The state of a name whose directory stays as it is.
    pub(super) fn kept_slot(&mut self, kid: DirNo, known: Option<Box<Entry>>) -> SlotState {
        let tree = self.keep(kid);
        match known {
            Some(mut entry) => {
                entry.node = Node::Dir { tree, partial: false };
                SlotState::Done(entry)
            }
            None => SlotState::Tree(tree),
        }
    }

    /// Goes through directories that did not change themselves to what is below them, without
    /// opening any. What cannot be passed is looked at.
    pub(super) fn pass(&mut self, first: usize, below: &mut Vec<usize>) -> Result<(), IntakeError> {
        let mut waiting = vec![first];
        while let Some(node) = waiting.pop() {
            let record = self.record_to_pass(node)?;
            let (Some(no), Some(record)) = (self.nodes.get(node).known, record) else {
                below.push(node);
                continue;
            };
            let state = self.nodes.get_mut(node);
            state.listing = record.listing;
            state.entries = record.entries.clone();
            state.record = Some(record);
            self.stays(node, no, &[], (&mut waiting, below));
        }
        Ok(())
    }

    /// A directory stays but for some of its files and what is below it: its slots. Where more is to
    /// be passed or opened, it is added to the two lists.
    pub(super) fn stays(
        &mut self,
        node: usize,
        no: DirNo,
        files: &[Renewed],
        (passed, below): (&mut Vec<usize>, &mut Vec<usize>),
    ) {
        let Some(before) = &mut self.before else { return };
        let target = self.nodes.get(node).target.clone();
        let mut files = files.iter().map(|file| file.name.as_slice()).peekable();
        let mut slots: Vec<Slot> = Vec::new();
        let file = |name: &[u8]| Slot { name: name.to_vec(), state: SlotState::Waiting(None) };
        for &kid in before.kids.below(no) {
            let seen = &self.first_look.dirs[kid as usize];
            while let Some(name) = files.next_if(|name| **name < *seen.name) {
                slots.push(file(name));
            }
            let fate = before.fates.get(kid);
            let state = if fate == Fate::Clean {
                before.kept.push(kid);
                SlotState::Tree(seen.tree)
            } else {
                let child = self.nodes.add(Some((node, slots.len())), below_of(&target, seen));
                let state = self.nodes.get_mut(child);
                (state.known, state.by_names) = (Some(kid), fate == Fate::Names);
                if fate == Fate::Above {
                    passed.push(child)
                } else {
                    below.push(child)
                }
                SlotState::Waiting(None)
            };
            slots.push(Slot { name: seen.name.to_vec(), state });
        }
        slots.extend(files.map(file));
        before.reached[no as usize] = Reached::Kept;
        let state = self.nodes.get_mut(node);
        state.number = Some(no);
        state.unchanged = true;
        let waits = |slot: &&Slot| matches!(slot.state, SlotState::Waiting(_));
        state.pending = slots.iter().filter(waits).count();
        state.slots = slots;
    }

    /// The record of a directory that can be passed, whose key is noted.
    fn record_to_pass(&mut self, node: usize) -> Result<Option<DirRecord>, IntakeError> {
        let state = self.nodes.get(node);
        let Some(no) = state.known else { return Ok(None) };
        let seen = &self.first_look.dirs[no as usize];
        let namer = self.looker.reader.repository().namer();
        let key = digest::dir_key(namer, &state.volume.volume.identity, seen.ino);
        let record = self.looker.reader.accelerator().dir(&key)?;
        let holds = |r: &DirRecord| {
            self.looker.believed.contains(&r.generation)
                && (r.tree, r.listing) == (seen.tree, seen.exact)
        };
        let record = record.filter(holds);
        self.nodes.get_mut(node).key = key;
        Ok(record)
    }

    /// Notes a directory in the first look.
    pub(super) fn note_in_first_look(&mut self, node: usize, look: &Look, crossed: bool) {
        let state = self.nodes.get(node);
        let listing = &look.listing;
        let known = state.known.filter(|no| {
            let was = &self.first_look.dirs[*no as usize];
            (was.dev, was.ino) == (listing.stat.dev, listing.stat.ino)
        });
        let path = &state.target.trail.path();
        let (parent, name) = match state.parent {
            Some((above, slot)) => {
                let above = self.nodes.get(above);
                (above.number.unwrap_or(NOBODY), above.slots[slot].name.as_slice())
            }
            None => (NOBODY, path.as_slice()),
        };
        let sources = self.looker.plan.counted.iter().enumerate();
        let counted: Vec<usize> =
            sources.filter(|(_, source)| is_within(path, source)).map(|(at, _)| at).collect();
        for at in &counted {
            self.seen.counted.resize(self.looker.plan.counted.len(), 0);
            self.seen.counted[*at] += listing.bytes;
        }
        let odd = crossed
            || look.linked
            || look.believable == digest::NONE
            || !(listing.problems.is_empty()
                && listing.mounts.is_empty()
                && listing.left_out.is_empty());
        let seen = DirSeen {
            dev: listing.stat.dev,
            ino: listing.stat.ino,
            parent,
            name: name.into(),
            tree: None,
            exact: listing.exact,
            names: look.noted.len() as u32,
            superblock: listing.volume.volume.superblock,
            group: self.first_look.group(Group { owners: look.owners.clone(), counted }),
            files: listing.files,
            bytes: listing.bytes,
            odd,
            sparse: listing.sparse,
            gone: false,
        };
        let no = self.first_look.put(known, seen, &look.noted);
        if let (Some(before), Some(known)) = (&mut self.before, known) {
            before.reached[known as usize] = Reached::Looked;
        }
        let state = self.nodes.get_mut(node);
        (state.known, state.number) = (known, Some(no));
    }

    /// Something of a directory must be seen each time.
    pub(super) fn mark_odd(&mut self, node: usize) {
        if let Some(no) = self.nodes.get(node).number {
            self.first_look.dirs[no as usize].odd = true;
        }
    }

    /// The bytes of a directory's files are not what the look at it counted.
    pub(super) fn mark_uncounted(&mut self, node: usize) {
        if let Some(no) = self.nodes.get(node).number {
            self.first_look.dirs[no as usize].sparse = true;
        }
    }

    /// All that is to be looked at was: names can be looked up from now on.
    pub(in crate::intake) fn finish_first_look(&mut self) {
        let Some(Before { kids, reached, kept, names, .. }) = &mut self.before else {
            return self.first_look.finish(0, &|_| false);
        };
        while let Some(no) = kept.pop() {
            reached[no as usize] = Reached::Kept;
            kept.extend_from_slice(kids.below(no));
        }
        for (dir, reached) in self.first_look.dirs.iter_mut().zip(&*reached) {
            dir.gone |= *reached == Reached::Not;
        }
        let stays = |no: DirNo| reached.get(no as usize) == Some(&Reached::Kept);
        self.first_look.finish(*names, &stays);
    }

    /// What was kept counts as seen; to be asked once all trees are built.
    pub(super) fn count_kept(&mut self) {
        let Some(Before { reached, .. }) = self.before.take() else { return };
        let mut groups = vec![false; self.first_look.groups.len()];
        let all = self.first_look.dirs.iter().zip(&reached);
        for (dir, _) in all.filter(|(_, reached)| **reached == Reached::Kept) {
            groups[dir.group as usize] = true;
            self.seen.dirs += 1;
            self.seen.files += dir.files;
            self.seen.bytes += dir.bytes;
            for at in &self.first_look.groups[dir.group as usize].counted {
                self.seen.counted.resize(self.looker.plan.counted.len(), 0);
                self.seen.counted[*at] += dir.bytes;
            }
        }
        for (group, _) in self.first_look.groups.iter().zip(groups).filter(|(_, used)| *used) {
            for (uid, gid) in &group.owners {
                self.seen.users.insert(*uid);
                self.seen.groups.insert(*gid);
            }
        }
    }
}

/// The target for a sub-directory of one that was passed.
fn below_of(target: &Target, seen: &DirSeen) -> Target {
    Target {
        anchor: std::sync::Arc::clone(&target.anchor),
        anchor_depth: target.anchor_depth,
        trail: target.trail.below(&seen.name),
        volume: std::sync::Arc::clone(&target.volume),
        stat: None,
        inode: Some((seen.dev, seen.ino)),
        meta_known: true,
    }
}
