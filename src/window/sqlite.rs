//! SQLite groups as the evidence sees them: who locks a file of them, and what a stop left in them.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags};

use super::observe::Observer;
use crate::base::path::{join, printable};
use crate::format::manifest::{Evidence, How};
use crate::host::locks::superblock_device;
use crate::host::process::Device;

/// The endings of a group's files; the first is the database itself.
const ENDINGS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Locks that are named in a detail.
const NAMED: usize = 5;

/// One file of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteFile {
    /// Empty for the database, else `-wal`, `-shm` or `-journal`.
    pub ending: String,
    /// Device of the superblock, as locks name it.
    pub device: Device,
    /// The inode.
    pub ino: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A database with the files beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteGroup {
    /// Path of the database.
    pub path: Vec<u8>,
    /// Its files that are there.
    pub files: Vec<SqliteFile>,
}

impl SqliteGroup {
    /// Looks at a database and the files beside it without opening them for reading: closing a
    /// file would drop this process's locks on it.
    ///
    /// `name` is below `dir`; `path` is for people.
    ///
    /// # Errors
    /// What the operating system says; a companion that is not there is no error.
    pub fn look(dir: impl AsFd, name: &[u8], path: &[u8]) -> io::Result<Self> {
        let mut files = Vec::new();
        for ending in ENDINGS {
            let mut full = name.to_vec();
            full.extend_from_slice(ending.as_bytes());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&dir, &full[..], flags, Mode::empty()) {
                Ok(file) => file,
                Err(rustix::io::Errno::NOENT) if !ending.is_empty() => continue,
                Err(e) => return Err(e.into()),
            };
            let stat = rustix::fs::fstat(&file)?;
            // A directory or a link of this name is none of SQLite's.
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                continue;
            }
            let device = superblock_device(file.as_fd())?;
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            files.push(SqliteFile { ending: ending.into(), device, ino: stat.st_ino, bytes });
        }
        Ok(Self { path: path.to_vec(), files })
    }

    /// [`SqliteGroup::look`] for a name in a directory whose path is known.
    ///
    /// # Errors
    /// As there.
    pub fn look_in(dir: impl AsFd, dir_path: &[u8], name: &[u8]) -> io::Result<Self> {
        Self::look(dir, name, &join(dir_path, name))
    }

    /// What a reader of the group should know; empty where it was closed in order.
    fn left(&self) -> String {
        let mut parts = Vec::new();
        for file in self.files.iter().filter(|file| file.bytes > 0) {
            match file.ending.as_str() {
                "-wal" => parts.push(format!("a WAL of {} bytes", file.bytes)),
                "-journal" => parts.push(format!("a rollback journal of {} bytes", file.bytes)),
                _ => {}
            }
        }
        if parts.is_empty() { String::new() } else { format!("; there is {}", parts.join(" and ")) }
    }
}

/// `sqlite-settled`, one for each group. `blind` says why locks of others may be out of sight.
pub(super) fn settled(
    groups: &[SqliteGroup],
    observer: &dyn Observer,
    blind: Option<&str>,
    scope: &str,
    asserted: bool,
) -> Vec<Evidence> {
    if groups.is_empty() {
        return Vec::new();
    }
    let locks = observer.locks();
    let check = |group: &SqliteGroup| -> (bool, How, String) {
        let locks = match &locks {
            Ok(locks) => locks,
            Err(error) => return super::evidence::unseen(asserted, &super::chain(error)),
        };
        let mut holders = Vec::new();
        for lock in locks.held.iter().chain(&locks.waiting) {
            let of = |file: &&SqliteFile| (file.device, file.ino) == (lock.dev, lock.ino);
            if let Some(file) = group.files.iter().find(of) {
                let who = lock.pid.map_or("a process".into(), |pid| format!("process {pid}"));
                let what = if lock.write { "write" } else { "read" };
                let ending = if file.ending.is_empty() { "database" } else { &file.ending };
                holders.push(format!("{who} holds a {what} lock on the {ending}"));
            }
        }
        if !holders.is_empty() {
            let more = holders.len().saturating_sub(NAMED);
            holders.truncate(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return (false, How::Observed, holders.join(", ") + &more);
        }
        match blind {
            Some(why) => super::evidence::unseen(asserted, why),
            None => (true, How::Observed, "no process holds a lock".into()),
        }
    };
    let mut all = Vec::new();
    for group in groups {
        let (held, how, detail) = check(group);
        all.push(Evidence {
            check: "sqlite-settled".into(),
            subject: printable(&group.path),
            node: observer.node(),
            scope: scope.to_owned(),
            held,
            how,
            detail: detail + &group.left(),
            looked_at: Vec::new(),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FlockOperation};

    use super::*;
    use crate::base::path::bytes;
    use crate::window::observe::ThisMachine;

    #[test]
    fn a_real_lock_on_a_companion_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("my.db");
        std::fs::write(&db, "database").unwrap();
        std::fs::create_dir(dir.path().join("my.db-shm")).unwrap();
        let wal = std::fs::File::create(dir.path().join("my.db-wal")).unwrap();
        let group = SqliteGroup::look(CWD, bytes(&db), bytes(&db)).unwrap();
        let endings: Vec<&str> = group.files.iter().map(|file| &*file.ending).collect();
        assert_eq!(endings, ["", "-wal"], "a directory is none of its files");
        let groups = [group];
        let judge = |blind| settled(&groups, &ThisMachine, blind, "host", false).remove(0);
        assert_eq!((judge(None).held, &*judge(None).detail), (true, "no process holds a lock"));
        assert!(!judge(Some("it is dark")).held);
        rustix::fs::fcntl_lock(&wal, FlockOperation::LockExclusive).unwrap();
        let one = judge(None);
        let expected = format!("process {} holds a write lock on the -wal", std::process::id());
        assert_eq!((one.held, one.detail), (false, expected));
        let gone = SqliteGroup::look_in(CWD, b"/nowhere", b"no.db");
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
