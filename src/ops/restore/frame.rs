//! One directory of the target on the walker's way.

use std::io;
use std::sync::Arc;

use super::attributes::CASEFOLD_FLAG;
use super::place::DirNode;
use super::run::Run;
use super::staging::Staging;
use crate::base::id::ChunkId;
use crate::format::tree::Meta;
use crate::tree::cursor::DirCursor;

/// How a directory of the target came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not there; made when something in it is.
    Unmade,
    /// Made by this run, empty at first.
    Fresh,
    /// Was there.
    Existing,
}

/// One directory on the way.
pub(super) struct Frame {
    pub(super) node: Arc<DirNode>,
    pub(super) cursor: DirCursor,
    pub(super) tree: Option<ChunkId>,
    /// What it gets at its end; `None` for an operator's own directory.
    pub(super) meta: Option<Meta>,
    /// Whether all below is restored.
    pub(super) taken: bool,
    /// Whether it only leads to sources.
    pub(super) partial: bool,
    pub(super) state: State,
    pub(super) staging: Option<Arc<Staging>>,
    /// Names that were there, sorted, and whether the snapshot has them too.
    pub(super) names: Vec<(Vec<u8>, bool)>,
    pub(super) dev: (u32, u32),
    /// Whether it is the root of a mount: nothing is renamed across it.
    pub(super) mount_root: bool,
    /// Bytes of the walker's path that lead here.
    pub(super) path_len: usize,
}

impl Frame {
    /// Whether the name was there, marked as known.
    pub(super) fn meets(&mut self, name: &[u8]) -> bool {
        match self.names.binary_search_by(|(n, _)| n.as_slice().cmp(name)) {
            Ok(at) => {
                self.names[at].1 = true;
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the name was there.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.names.binary_search_by(|(n, _)| n.as_slice().cmp(name)).is_ok()
    }

    /// Whether all in it is restored.
    pub(super) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Whether what is made in it may get attributes from it: an operator's own directory, and one
    /// that has its attributes already.
    pub(super) fn hands_on(&self) -> bool {
        self.state == State::Existing || self.node.above().is_none()
    }

    /// The name is not there any more.
    pub(super) fn lose(&mut self, name: &[u8]) {
        if let Ok(at) = self.names.binary_search_by(|(n, _)| n.as_slice().cmp(name)) {
            self.names.remove(at);
        }
    }
}

/// Makes a directory; a `guest` gets nothing from the directory above.
pub(super) fn make_dir(run: &Run<'_>, frame: &Frame, guest: bool) -> io::Result<()> {
    let parent = frame.node.above().ok_or(io::ErrorKind::InvalidInput)?;
    run.dirs.open(parent)?.make_dir(frame.node.name(), 0o700)?;
    let casefold = frame.meta.as_ref().and_then(|m| m.flags).unwrap_or(0) & CASEFOLD_FLAG;
    if guest || casefold != 0 {
        let dir = run.dirs.open(&frame.node)?;
        super::staging::strip(&dir)?;
        if casefold != 0 {
            // Where the file system does not know it, setting all flags at the end says so.
            let _ = dir.set_flags_self(casefold);
        }
    }
    if let Some(staging) = frame.staging.as_ref().filter(|_| frame.taken && !frame.partial) {
        // The sign that the restore has not ended.
        staging.ensure(&run.dirs)?;
    }
    Ok(())
}
