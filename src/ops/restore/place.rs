//! Directories of the target: a chain of names for each, and a few of them open.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::path::join;
use crate::host::fs::TargetDir;

/// Directories that are kept open.
const OPEN_DIRS: usize = 96;

/// A directory of the target, known by its names and not by a path: trees may be deeper than the
/// longest path.
#[derive(Debug)]
pub(super) struct DirNode {
    id: u64,
    parent: Option<Arc<DirNode>>,
    name: Vec<u8>,
}

impl DirNode {
    /// The directory that was given by the operator; `shown` is its path for people.
    pub(super) fn root(shown: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { id: 0, parent: None, name: shown })
    }

    /// The directory above.
    pub(super) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// The directory's name in the one above.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The path for people; for the root what the operator gave.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(at.name.as_slice());
            at = parent;
        }
        let mut path = at.name.clone();
        for name in names.into_iter().rev() {
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }

    /// The path of a name in the directory, for people.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path(), name)
    }
}

impl Drop for DirNode {
    /// One after the other: a chain may be longer than a thread's stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.parent.take();
        }
    }
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
        Arc::new(DirNode { id, parent: Some(Arc::clone(parent)), name: name.to_vec() })
    }

    /// The open directory of a node, through no symbolic link.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn open(&self, node: &DirNode) -> io::Result<Arc<TargetDir>> {
        let mut names = Vec::new();
        let mut at = node;
        let from = loop {
            if let Some(open) = self.cached(at.id) {
                break open;
            }
            let Some(parent) = &at.parent else { break Arc::clone(&self.root) };
            names.push(at.name.as_slice());
            at = parent;
        };
        if names.is_empty() {
            return Ok(from);
        }
        names.reverse();
        let opened = Arc::new(from.open_deep(&names)?);
        self.keep(node.id, &opened);
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
        self.open.lock().unwrap_or_else(PoisonError::into_inner).dirs.remove(&node.id);
    }
}
