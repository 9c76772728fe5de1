//! What one read saw, beside the tree.

use std::collections::BTreeSet;

/// What one read saw, beside the tree.
#[derive(Default)]
pub struct Seen {
    /// Files, special ones included.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of files' data.
    pub bytes: u64,
    /// Files read whose names the last run did not have.
    pub files_new: u64,
    /// Files read again.
    pub files_changed: u64,
    /// Bytes of the plan's counted directories, in their order.
    pub counted: Vec<u64>,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Path and what was wrong with it.
    pub problems: Vec<(Vec<u8>, String)>,
    /// Path, file system type, and whether it was crossed.
    pub mounts: Vec<(Vec<u8>, String, bool)>,
    /// Paths left out because they hold the repository.
    pub left_out: Vec<Vec<u8>>,
    /// Files on network file systems that were removed and are still open on some client.
    pub still_open: Vec<Vec<u8>>,
    /// Owners: users, groups.
    pub users: BTreeSet<u32>,
    /// Groups.
    pub groups: BTreeSet<u32>,
    /// Directories of SQLite databases met: paths of the database files.
    pub databases: Vec<Vec<u8>>,
}

impl Seen {
    /// Adds what was seen of other roots of the same plan.
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.bytes += other.bytes;
        self.files_new += other.files_new;
        self.files_changed += other.files_changed;
        self.bytes_read += other.bytes_read;
        self.counted.resize(self.counted.len().max(other.counted.len()), 0);
        self.counted.iter_mut().zip(&other.counted).for_each(|(sum, more)| *sum += more);
        self.problems.extend(other.problems);
        self.still_open.extend(other.still_open);
        self.mounts.extend(other.mounts);
        self.left_out.extend(other.left_out);
        self.users.extend(other.users);
        self.groups.extend(other.groups);
        self.databases.extend(other.databases);
    }
}
