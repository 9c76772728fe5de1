//! Directories whose entries are not complete yet.

use std::sync::Arc;

use super::{Engine, IntakeError};
use crate::base::id::ChunkId;
use crate::format::segment::ChunkKey;
use crate::format::tree::{Entry, Meta};
use crate::host::fs::{Attributes, Stat};
use crate::intake::digest::{self, Digest};
use crate::intake::file::{self, FileError, Remarks, Surroundings};
use crate::intake::first::DirNo;
use crate::intake::mounted::Mounted;
use crate::intake::names::Renewed;
use crate::intake::scan::Target;
use crate::store::accelerator::DirRecord;
use crate::store::reader::ReadError;

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
    /// Its own metadata, where that is not known from the directory above ...
    pub(super) meta: Option<Meta>,
    /// ... and whether something of it could not be read.
    pub(super) meta_doubted: bool,
    /// Only some of its files are looked at.
    pub(super) by_names: bool,
    /// What of its files was looked at, where that was not all.
    pub(super) renewed: Vec<Renewed>,
    pub(super) listing: Digest,
    pub(super) entries: Vec<Digest>,
    pub(super) unchanged: bool,
    pub(super) failed: bool,
    /// Digests that must not be kept.
    doubted: Vec<Digest>,
    /// Its place among the roots, where it is one.
    pub(super) root: Option<usize>,
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
    pub(super) fn believable(&mut self) -> Vec<Digest> {
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
            meta: None,
            meta_doubted: false,
            by_names: false,
            renewed: Vec::new(),
            listing: digest::NONE,
            entries: Vec::new(),
            unchanged: false,
            failed: false,
            doubted: Vec::new(),
            root: None,
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
    /// A sub-directory was not kept as it is, or not with all its attributes: the next run must not
    /// take its entry over.
    pub(super) fn doubt_below(&mut self, above: usize, name: &[u8], state: &DirState) {
        let Some(stat) = &state.target.stat else { return };
        let namer = self.looker.reader.repository().namer();
        let parent = self.nodes.get_mut(above);
        let digest = digest::entry(namer, &parent.volume.volume.identity, name, stat);
        parent.doubt(&digest);
        self.mark_odd(above);
    }

    /// Notes a directory's own metadata, where that is not known from the directory above.
    pub(super) fn note_meta(
        &mut self,
        node: usize,
        attributes: Option<Attributes>,
    ) -> Result<(), IntakeError> {
        let state = self.nodes.get(node);
        let (Some(stat), false) = (state.stat.or(state.target.stat), state.target.meta_known)
        else {
            return Ok(());
        };
        let path = state.target.trail.path();
        let volume = Arc::clone(&state.volume);
        let around =
            Surroundings { volume: &volume.volume.identity, class: self.looker.plan.class(&path) };
        let hand = &mut self.hands[0];
        let mut remarks = Remarks::default();
        let made = file::meta(
            &stat,
            attributes.unwrap_or_default(),
            around,
            &mut hand.worker,
            &mut hand.streamer,
            &mut remarks,
        );
        let state = self.nodes.get_mut(node);
        state.meta_doubted = !remarks.problems.is_empty();
        for problem in remarks.problems {
            self.seen.problems.push((path.clone(), problem));
        }
        match made {
            Ok(meta) => state.meta = Some(meta),
            Err(FileError::Write(error)) => return Err(error.into()),
            Err(error) => {
                return Err(IntakeError::Read(ReadError::Repository(
                    crate::store::repository::RepositoryError::Damaged {
                        object: super::with_source(&error),
                        source: crate::format::DecodeError::Invalid { what: "attributes" },
                    },
                )));
            }
        }
        Ok(())
    }
}
