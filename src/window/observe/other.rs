//! Another node, looked at through its connection.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{ClockOffset, Observer, Trees};
use crate::base::path::{from_bytes, printable};
use crate::base::time::Timestamp;
use crate::host::locks::{Locks, LocksError, parse_locks};
use crate::host::node::scan::{Held, Listing, RootThere, details, list};
use crate::host::node::{Node, Rights, Sharing};
use crate::host::process::{Device, ProcessUse, ScanResult, ScanScope, inode_of};

/// Time for a small question.
const QUESTION: Duration = Duration::from_secs(30);

/// Bytes of an answer: the locks of a busy machine.
const ANSWER_MAX: usize = 4 << 20;

/// Types of file systems that one machine has for itself, in the words of `stat -f`. All others
/// count as shared: their trees must be the same ones on each node.
const OWN_TYPES: [&str; 19] = [
    "ext2/ext3",
    "xfs",
    "btrfs",
    "tmpfs",
    "ramfs",
    "overlayfs",
    "zfs",
    "f2fs",
    "jfs",
    "reiserfs",
    "bcachefs",
    "squashfs",
    "erofs",
    "isofs",
    "msdos",
    "exfat",
    "ntfs",
    "udf",
    "nilfs",
];

/// Time for writing back what a node still keeps.
const WRITING_BACK: Duration = Duration::from_secs(60);

/// Writes back. The shell's own `sync` has no bound; `timeout` gives it one where it is there.
const WRITE_BACK: &str = include_str!("write_back.sh");

const SAME_PROGRAM: &str = r#"
runs=$(stat -L -c %d:%i -- "/proc/$1/exe" 2>/dev/null) &&
    named=$(stat -L -c %d:%i -- "$2" 2>/dev/null) && [ "$runs" = "$named" ] && echo same
:
"#;

/// Another node.
///
/// A file system that nodes share has another device number on each and the same inode numbers, so
/// what processes have open there is compared by inode number with this machine's trees. A tree
/// that is another one there, on a disk of the node's own, is none of the window's.
pub struct OtherNode {
    node: Node,
}

impl OtherNode {
    /// The node.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    /// Devices there and what they are here, for the trees that are the same on both.
    fn same_devices(listing: &Listing, paths: &[Vec<u8>]) -> io::Result<Vec<(Device, Device)>> {
        let mut same = Vec::new();
        let mut shared = Vec::new();
        for root in &listing.roots {
            let path = from_bytes(&paths[root.index]);
            // What is not here any more cannot be the same.
            let Ok((dev, ino)) = inode_of(path) else { continue };
            let own = OWN_TYPES.contains(&root.file_system.as_str());
            if root.ino == ino && !(own && differs_in_age(root, path)) {
                same.push((root.dev, dev));
                shared.push(root.index);
            } else if !own {
                return Err(io::Error::other(format!(
                    "{} lies on a file system there ({}) that numbers its inodes otherwise than here",
                    printable(path.as_os_str().as_bytes()),
                    printable(root.file_system.as_bytes()),
                )));
            }
        }
        for mount in listing.mounts.iter().filter(|mount| shared.contains(&mount.index)) {
            if let Ok((dev, _)) = inode_of(from_bytes(&mount.path)) {
                same.push((mount.dev, dev));
            }
        }
        Ok(same)
    }

    fn ask(&self, rights: Rights, text: &str, arguments: &[&str]) -> io::Result<Vec<u8>> {
        let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
        self.send(rights, text, &arguments, QUESTION)
    }

    fn send(
        &self,
        rights: Rights,
        text: &str,
        arguments: &[OsString],
        limit: Duration,
    ) -> io::Result<Vec<u8>> {
        let done = self
            .node
            .script(rights, text, arguments, ANSWER_MAX, Sharing::Open, limit)
            .map_err(|error| io::Error::other(crate::window::chain(&error)))?;
        if !done.status.success() || done.stdout.is_cut() {
            let said = format!("a question ended with {}: {}", done.ending(), done.said());
            return Err(io::Error::other(said));
        }
        Ok(done.stdout.kept)
    }
}

/// Whether both ends know when the root was made, and it was not at the same time: machines that
/// were set up alike give equal numbers to different files.
fn differs_in_age(root: &RootThere, path: &Path) -> bool {
    let here = std::fs::metadata(path).and_then(|meta| meta.created()).ok();
    let here = here.and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
    here.is_some_and(|born| root.born != 0 && i64::try_from(born.as_secs()) != Ok(root.born))
}

impl Observer for OtherNode {
    fn node(&self) -> String {
        self.node.name()
    }

    fn scan(&self, trees: &Trees<'_>) -> io::Result<Option<ScanResult>> {
        let listing = list(&self.node, trees.paths)?;
        let same = Self::same_devices(&listing, trees.paths)?;
        if same.is_empty() {
            return Ok(None);
        }
        let here = |held: &Held| {
            let devices = same.iter().filter(|(there, _)| *there == held.dev).map(|(_, dev)| *dev);
            devices.into_iter().find(|&dev| {
                trees.roots.contains(&(dev, held.ino)) || trees.set.contains(dev, held.ino)
            })
        };
        let mine = |held: &&Held| !trees.exclude.contains(&held.pid);
        let (mut used, mut devices) = (Vec::new(), Vec::new());
        for held in listing.held.iter().filter(mine) {
            if let Some(dev) = here(held) {
                used.push(held.clone());
                devices.push(dev);
            }
        }
        let told = details(&self.node, &used)?;
        let mut uses: Vec<ProcessUse> = told
            .into_iter()
            .zip(&used)
            .zip(devices)
            .map(|((told, held), dev)| ProcessUse {
                pid: told.pid,
                command: told.command,
                uid: told.uid,
                what: told.what,
                dev,
                ino: held.ino,
                path: told.path,
            })
            .collect();
        uses.sort_by_key(|one| one.pid);
        let scope = ScanScope {
            pid_namespace_is_host: listing.whole_machine,
            processes_seen: listing.processes,
            // The connection takes most of it.
            took: Duration::ZERO,
            unreadable: listing.unreadable,
            untraced: 0,
        };
        Ok(Some(ScanResult { uses, scope }))
    }

    fn locks(&self) -> Result<Locks, LocksError> {
        let text = self.ask(Rights::Root, "cat /proc/locks\n", &[]).map_err(LocksError::Read)?;
        parse_locks(&String::from_utf8_lossy(&text))
    }

    fn runs_program(&self, pid: u32, program: &Path) -> bool {
        let Some(program) = program.to_str() else { return false };
        let answer = self.ask(Rights::Root, SAME_PROGRAM, &[&pid.to_string(), program]);
        answer.is_ok_and(|said| said.split(|&b| b == b'\n').any(|line| line == b"same"))
    }

    fn write_back(&self, paths: &[Vec<u8>]) -> io::Result<()> {
        let mut arguments = vec![OsString::from(WRITING_BACK.as_secs().to_string())];
        arguments.push(OWN_TYPES.join(" ").into());
        arguments.extend(paths.iter().map(|path| from_bytes(path).into()));
        let limit = WRITING_BACK + QUESTION;
        self.send(Rights::Root, WRITE_BACK, &arguments, limit).map(drop)
    }

    fn clock_offset(&self) -> io::Result<Option<ClockOffset>> {
        let clock = self.node.clock();
        // The first question may have to make the connection.
        self.ask(Rights::Own, ":\n", &[])?;
        let began = clock.monotonic();
        let before = millis(clock.now());
        let said = self.ask(Rights::Own, "echo \"time $(date +%s%N)\"\n", &[])?;
        let after = millis(clock.now());
        let took = clock.monotonic().saturating_sub(began).as_millis();
        let text = String::from_utf8_lossy(&said);
        let nanos = text.lines().find_map(|line| line.strip_prefix("time "));
        let there: i64 = nanos
            .and_then(|digits| digits.parse::<i64>().ok())
            .ok_or_else(|| io::Error::other("its time is not understood"))?;
        let middle = before.midpoint(after);
        Ok(Some(ClockOffset {
            ahead_ms: (there / 1_000_000).saturating_sub(middle),
            error_ms: u64::try_from(took.div_ceil(2)).unwrap_or(u64::MAX),
        }))
    }
}

fn millis(time: Timestamp) -> i64 {
    time.secs.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}

#[cfg(test)]
mod tests;
