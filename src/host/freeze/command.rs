//! Sources that an operator's command froze: a snapshot of a volume, of a pool or of a storage array,
//! mounted somewhere.

use std::io;

use super::root::Root;
use super::still::{Stand, Tables};
use super::{Frozen, Unfrozen};
use crate::base::path::{components, from_bytes, join, printable};
use crate::host::fs::volume::{self, Mount};
use crate::host::fs::{LinuxFs, SourceDir, SourceFs, Stat, Volume};

/// Sources and where they will be seen frozen.
pub struct MountedFreezer {
    sources: Vec<Source>,
    unfrozen: Vec<Unfrozen>,
    one_file_system: bool,
}

struct Source {
    path: Vec<u8>,
    frozen: Vec<u8>,
    volume: Volume,
}

impl MountedFreezer {
    /// Finds out which of these sources a command may freeze. `template` says where a frozen source is
    /// seen: `{path}` is the source, `{mount}` where its file system is mounted, `{below}` the way from
    /// there to the source, `{name}` the name of this freeze. One without any of the first three is
    /// what stands before the source's own path.
    ///
    /// # Errors
    /// What the operating system says of its table of mounts.
    pub fn plan(
        roots: &[Vec<u8>],
        one_file_system: bool,
        template: &[u8],
        name: &str,
    ) -> io::Result<Self> {
        let all = volume::mounts()?;
        let mut planned = Self { sources: Vec::new(), unfrozen: Vec::new(), one_file_system };
        for path in roots {
            let Some(root) = Root::open(path, &all) else { continue };
            if let Some(why) = root.obstacle(&all, one_file_system) {
                planned.unfrozen.push(Unfrozen { path: path.clone(), why });
                continue;
            }
            let volume = LinuxFs.volume(&root.dir)?;
            let frozen = fill(template, path, &root.mount.point, name);
            planned.sources.push(Source { path: path.clone(), frozen, volume });
        }
        Ok(planned)
    }

    /// The sources that may be frozen.
    #[must_use]
    pub fn roots(&self) -> Vec<Vec<u8>> {
        self.sources.iter().map(|source| source.path.clone()).collect()
    }

    /// Directories that will not be, and why.
    #[must_use]
    pub fn unfrozen(&self) -> &[Unfrozen] {
        &self.unfrozen
    }

    /// Writes back what is dirty, so that a snapshot has little to write.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sync(&self) -> io::Result<()> {
        self.sources.iter().try_for_each(|source| LinuxFs.sync(&LinuxFs::open(&source.path)?))
    }

    /// Opens what the command made. What is not there, or is something else than the source as it is
    /// now, is in the second result.
    ///
    /// # Errors
    /// What the operating system says of its table of mounts.
    pub fn freeze(&self) -> io::Result<(Frozen, Vec<Unfrozen>)> {
        let all = volume::mounts()?;
        let mut tables = Tables::default();
        let mut left = Vec::new();
        for source in &self.sources {
            match self.stand(source, &all, &mut tables) {
                Ok(()) => tables.note_above(&source.path),
                Err(error) => {
                    let frozen = printable(&source.frozen);
                    let why = format!("nothing was frozen at {frozen}: {error}");
                    left.push(Unfrozen { path: source.path.clone(), why });
                }
            }
        }
        let count = self.sources.len() - left.len();
        Ok((Frozen { fs: tables.finish(), count }, left))
    }

    fn stand(&self, source: &Source, all: &[Mount], tables: &mut Tables) -> io::Result<()> {
        let root = Root::open(&source.path, all).ok_or(io::ErrorKind::NotFound)?;
        let live = root.dir.stat_self()?;
        // A link would lead wherever it leads when it is read.
        let path = std::fs::canonicalize(from_bytes(&source.frozen))?;
        let dir = LinuxFs::open(crate::base::path::bytes(&path))?;
        let found = dir.stat_self()?;
        if found.dev == live.dev {
            return Err(io::Error::other("that is the source itself, or lies beside it"));
        }
        if !same(&live, &found) {
            let why =
                "that is no snapshot of the source as it is now: another inode, or other times";
            return Err(io::Error::other(why));
        }
        let mount = root.is_mount.then_some(root.mount.id);
        tables.devices.insert(found.dev, (live.dev, source.volume.clone()));
        tables.roots.insert(source.path.clone(), Stand { dir, mount });
        root.leave(all, self.one_file_system, tables)
    }
}

/// Whether a frozen directory is what a source is: a copy has inodes of its own, an old snapshot other
/// times.
fn same(live: &Stat, found: &Stat) -> bool {
    let of = |s: &Stat| (s.kind, s.ino, s.mode, s.uid, s.gid, s.mtime, s.ctime);
    of(live) == of(found)
}

fn fill(template: &[u8], path: &[u8], mount: &[u8], name: &str) -> Vec<u8> {
    let depth = components(mount).count();
    let below = components(path).skip(depth).collect::<Vec<_>>().join(&b'/');
    let words: [(&[u8], &[u8]); 4] = [
        (b"{path}", path),
        (b"{mount}", mount),
        (b"{below}", &below),
        (b"{name}", name.as_bytes()),
    ];
    let mut out = Vec::new();
    let (mut rest, mut placed) = (template, false);
    'next: while let Some(&first) = rest.first() {
        for (word, value) in words {
            if let Some(tail) = rest.strip_prefix(word) {
                out.extend_from_slice(value);
                placed |= word != b"{name}";
                rest = tail;
                continue 'next;
            }
        }
        out.push(first);
        rest = &rest[1..];
    }
    if placed { out } else { join(&out, &components(path).collect::<Vec<_>>().join(&b'/')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_source_is_looked_for_where_the_template_says() {
        let fill = |template: &str| {
            let filled = fill(template.as_bytes(), b"/srv/connect/data", b"/srv", "cabk-7");
            String::from_utf8(filled).unwrap()
        };
        assert_eq!(fill("/mnt/frozen"), "/mnt/frozen/srv/connect/data");
        assert_eq!(fill("/mnt/{name}"), "/mnt/cabk-7/srv/connect/data");
        assert_eq!(fill("/mnt/x/{below}"), "/mnt/x/connect/data");
        let zfs = "/srv/.zfs/snapshot/cabk-7/connect/data";
        assert_eq!(fill("{mount}/.zfs/snapshot/{name}/{below}"), zfs);
        assert_eq!(fill("/a{path}/{odd"), "/a/srv/connect/data/{odd");
    }

    #[test]
    fn a_copy_is_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source");
        std::fs::create_dir(&path).unwrap();
        let roots = [crate::base::path::bytes(&path).to_vec()];
        let template = crate::base::path::bytes(dir.path());
        let planned = MountedFreezer::plan(&roots, false, template, "cabk-1").unwrap();
        assert_eq!(planned.roots(), roots);
        let (frozen, left) = planned.freeze().unwrap();
        assert!(frozen.count == 0 && left[0].why.contains("nothing was frozen"), "{left:?}");
        let copy = dir.path().join(path.strip_prefix("/").unwrap());
        std::fs::create_dir_all(copy).unwrap();
        let (frozen, left) = planned.freeze().unwrap();
        assert!(frozen.count == 0 && left[0].why.contains("the source itself"), "{left:?}");
    }
}
