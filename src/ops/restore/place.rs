//! Directories of the target: a chain of names for each, and a few of them open.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::chain::Chain;
use crate::host::fs::TargetDir;

/// Directories that are kept open.
const OPEN_DIRS: usize = 96;

/// A directory of the target, known by its names, with its number in [`Dirs`]; of the root the name
/// is the path that people are shown.
pub(super) type DirNode = Chain<u64>;

/// The directory that was given by the operator; `shown` is its path for people.
pub(super) fn top(shown: &[u8]) -> Arc<DirNode> {
    Chain::root(shown, 0)
}

/// The few that are open, the least recently used given up first.
#[derive(Default)]
struct Open {
    dirs: HashMap<u64, (Arc<TargetDir>, u64)>,
    tick: u64,
}

/// All directories of one restore.
pub(super) struct Dirs {
    root: Arc<TargetDir>,
    next: AtomicU64,
    open: Mutex<Open>,
}

impl Dirs {
    /// Below an open directory.
    pub(super) fn new(root: TargetDir) -> Self {
        Self { root: Arc::new(root), next: AtomicU64::new(1), open: Mutex::default() }
    }

    /// The node of a name in a directory; nothing is opened.
    pub(super) fn node(&self, parent: &Arc<DirNode>, name: &[u8]) -> Arc<DirNode> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        parent.below(name, id)
    }

    /// The open directory of a node, through no symbolic link.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn open(&self, node: &DirNode) -> io::Result<Arc<TargetDir>> {
        let mut names = Vec::new();
        let mut at = node;
        let from = loop {
            if let Some(open) = self.cached(*at.own()) {
                break open;
            }
            let Some(parent) = at.above() else { break Arc::clone(&self.root) };
            names.push(at.name());
            at = parent;
        };
        if names.is_empty() {
            return Ok(from);
        }
        names.reverse();
        let opened = Arc::new(from.open_deep(&names)?);
        self.keep(*node.own(), &opened);
        Ok(opened)
    }

    fn cached(&self, id: u64) -> Option<Arc<TargetDir>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.tick += 1;
        let tick = open.tick;
        let (dir, used) = open.dirs.get_mut(&id)?;
        *used = tick;
        Some(Arc::clone(dir))
    }

    fn keep(&self, id: u64, dir: &Arc<TargetDir>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.dirs.len() >= OPEN_DIRS {
            let oldest = open.dirs.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                open.dirs.remove(&oldest);
            }
        }
        let tick = open.tick;
        open.dirs.insert(id, (Arc::clone(dir), tick));
    }

    /// Gives up the open directory of a node: it is finished, renamed or gone.
    pub(super) fn close(&self, node: &DirNode) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).dirs.remove(node.own());
    }
}
