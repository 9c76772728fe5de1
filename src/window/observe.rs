//! What can be seen of a node's processes, behind a trait: this machine, other nodes and simulated
//! ones answer the same questions.

use std::io;
use std::path::Path;

use crate::host::locks::{Locks, LocksError, read_locks};
use crate::host::process::{Device, InodeSet, ScanResult, inode_of, scan};

mod other;

pub use other::OtherNode;

/// How the clock of a node stands to this machine's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockOffset {
    /// Milliseconds that it is ahead.
    pub ahead_ms: i64,
    /// Half the time that the question took: the truth is no farther away.
    pub error_ms: u64,
}

/// The trees that a window is about.
#[derive(Clone, Copy)]
pub struct Trees<'a> {
    /// Their inodes.
    pub set: &'a dyn InodeSet,
    /// The inodes of their top directories.
    pub roots: &'a [(Device, u64)],
    /// Their paths, for people.
    pub paths: &'a [Vec<u8>],
    /// Processes of the observer's node that may use them: cabk's own, or the services' before their
    /// stop.
    pub exclude: &'a [u32],
}

/// Looks at the processes and locks of one node.
pub trait Observer: Send + Sync {
    /// `local`, or the node's address.
    fn node(&self) -> String;

    /// The processes that use the trees; `None` where none of the trees is on that node.
    ///
    /// # Errors
    /// Where nothing can be told.
    fn scan(&self, trees: &Trees<'_>) -> io::Result<Option<ScanResult>>;

    /// All file locks.
    ///
    /// # Errors
    /// [`LocksError`].
    fn locks(&self) -> Result<Locks, LocksError>;

    /// Whether the process runs the program at this path; false where that cannot be told.
    fn runs_program(&self, pid: u32, program: &Path) -> bool;

    /// Has the node write what it still keeps of these trees to the file server that other nodes
    /// read them from. Of a file system of its own nothing need be written: nobody else reads it.
    ///
    /// # Errors
    /// Where that cannot be known to be done.
    fn write_back(&self, paths: &[Vec<u8>]) -> io::Result<()>;

    /// How its clock stands to this machine's; `None` where it is this machine.
    ///
    /// # Errors
    /// What kept it from being asked.
    fn clock_offset(&self) -> io::Result<Option<ClockOffset>>;
}

/// The machine that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl Observer for ThisMachine {
    fn node(&self) -> String {
        "local".to_owned()
    }

    fn scan(&self, trees: &Trees<'_>) -> io::Result<Option<ScanResult>> {
        scan(trees.set, trees.roots, trees.exclude).map(Some)
    }

    fn locks(&self) -> Result<Locks, LocksError> {
        read_locks()
    }

    /// By inode: the text of a link is another mount namespace's.
    fn runs_program(&self, pid: u32, program: &Path) -> bool {
        let runs = inode_of(Path::new(&format!("/proc/{pid}/exe")));
        matches!((runs, inode_of(program)), (Ok(a), Ok(b)) if a == b)
    }

    /// Whoever reads here reads what is kept here, too.
    fn write_back(&self, _: &[Vec<u8>]) -> io::Result<()> {
        Ok(())
    }

    fn clock_offset(&self) -> io::Result<Option<ClockOffset>> {
        Ok(None)
    }
}
