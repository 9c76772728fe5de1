//! What can be seen of a node's processes, behind a trait: other nodes and simulated ones answer
//! the same questions.

use std::io;
use std::path::Path;

use crate::host::locks::{Locks, LocksError, read_locks};
use crate::host::process::{Device, InodeSet, ScanResult, inode_of, scan};

/// The trees that a window is about.
#[derive(Clone, Copy)]
pub struct Trees<'a> {
    /// Their inodes.
    pub set: &'a dyn InodeSet,
    /// The inodes of their top directories.
    pub roots: &'a [(Device, u64)],
    /// Their paths, for people.
    pub paths: &'a [Vec<u8>],
    /// Processes of cabk's own that may use them.
    pub exclude: &'a [u32],
}

/// Looks at the processes and locks of one node.
pub trait Observer: Send + Sync {
    /// `local`, or the node's address.
    fn node(&self) -> String;

    /// The processes that use the trees.
    ///
    /// # Errors
    /// Where nothing can be told.
    fn scan(&self, trees: &Trees<'_>) -> io::Result<ScanResult>;

    /// All file locks.
    ///
    /// # Errors
    /// [`LocksError`].
    fn locks(&self) -> Result<Locks, LocksError>;

    /// Whether the process runs the program at this path; false where that cannot be told.
    fn runs_program(&self, pid: u32, program: &Path) -> bool;
}

/// The machine that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl Observer for ThisMachine {
    fn node(&self) -> String {
        "local".to_owned()
    }

    fn scan(&self, trees: &Trees<'_>) -> io::Result<ScanResult> {
        scan(trees.set, trees.roots, trees.exclude)
    }

    fn locks(&self) -> Result<Locks, LocksError> {
        read_locks()
    }

    /// By inode: the text of a link is another mount namespace's.
    fn runs_program(&self, pid: u32, program: &Path) -> bool {
        let runs = inode_of(Path::new(&format!("/proc/{pid}/exe")));
        matches!((runs, inode_of(program)), (Ok(a), Ok(b)) if a == b)
    }
}
