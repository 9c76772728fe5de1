//! Looking at one directory: its names and inodes, and what the scan cache knows of them. Runs in
//! parallel, one directory a task; nothing is written here.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::digest::{self, Digest};
use super::file::contents;
use super::first::Noted;
use super::manners::Manners;
use super::mounted::{Mounted, is_kept_open, mounted};
use super::plan::ReadPlan;
pub(super) use super::target::{Anchor, Base, Target};
use crate::base::limits;
use crate::base::path::join;
use crate::base::time::Timestamp;
use crate::format::segment::{ChunkKey, chunk_key};
use crate::format::tree::Entry;
use crate::host::fs::{Attributes, InodeKind, RawName, SourceDir, SourceFs, Stat, Volume};
use crate::host::process::Device;
use crate::store::accelerator::{DirRecord, Generation};
use crate::store::reader::{ReadError, Reader};
use crate::store::writer::Writer;

/// What looking needs.
pub(super) struct Looker<'a> {
    pub(super) fs: &'a dyn SourceFs,
    pub(super) plan: &'a ReadPlan,
    pub(super) reader: &'a Reader,
    pub(super) writer: &'a Writer,
    /// Generations whose records are believed without looking their chunks up.
    pub(super) believed: &'a HashSet<Generation>,
    /// The moment before which content is on disk, for mounts that are met on the way.
    pub(super) synced: Timestamp,
    /// Whether the time for reading is over.
    pub(super) over: &'a (dyn Fn() -> bool + Sync),
    /// How it gives way to others.
    pub(super) manners: Option<&'a Manners>,
    /// Anchors that are open: directories kept for those below them, so that each is one name away.
    pub(super) anchors: Arc<AtomicUsize>,
    /// How many there may be; beyond that a way of several names leads from one of them.
    pub(super) anchors_max: usize,
    /// Write back what is dirty on mounts that are met on the way.
    pub(super) syncs: bool,
    /// Names of one directory are looked at by several threads: each answer comes from far away.
    pub(super) far: bool,
    /// Inodes that the kernel told of: they are read again whatever their times say, for a store
    /// through a mapping moves none on tmpfs.
    pub(super) touched: Option<&'a HashSet<(Device, u64)>>,
}

/// One name of a directory.
pub(super) struct Seen {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// The entry of the last run, where it still holds.
    pub(super) known: Option<Box<Entry>>,
    /// Whether its metadata is that of the last run (directories).
    pub(super) meta_known: bool,
    /// Whether the last run had an entry of this name, of whatever inode.
    pub(super) had: bool,
}

/// A directory's names and inodes.
pub(super) struct Listing {
    pub(super) stat: Stat,
    pub(super) volume: Arc<Mounted>,
    /// Digest of all names and inodes, young ones included: what a second look compares with.
    pub(super) exact: Digest,
    /// Digests of all names and inodes, in order of names.
    pub(super) all: Vec<Digest>,
    /// In order of names.
    pub(super) seen: Vec<Seen>,
    /// Files, special ones included, and bytes of regular ones.
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// A file has other bytes than its size says.
    pub(super) sparse: bool,
    pub(super) problems: Vec<(Vec<u8>, String)>,
    pub(super) mounts: Vec<(Vec<u8>, String, bool)>,
    pub(super) left_out: Vec<Vec<u8>>,
    /// Files that were removed while some client of the server has them open.
    pub(super) still_open: Vec<Vec<u8>>,
}

/// What was seen of a directory, and what was known of it.
pub(super) struct Look {
    pub(super) listing: Listing,
    pub(super) base: Base,
    pub(super) key: ChunkKey,
    pub(super) record: Option<DirRecord>,
    /// Own attributes, where its metadata is not known.
    pub(super) attributes: Option<Attributes>,
    /// The digest of the listing, [`digest::NONE`] where a name is too young: what is kept.
    pub(super) believable: Digest,
    /// Digests of names and inodes that may be believed, sorted: what is kept.
    pub(super) entries: Vec<Digest>,
    /// The listing is that of the record, which is believed: no file is to be read, and only
    /// sub-directories are left in it.
    pub(super) unchanged: bool,
    /// What is noted of each name.
    pub(super) noted: Vec<Noted>,
    /// One of its inodes has names elsewhere, too.
    pub(super) linked: bool,
    pub(super) owners: Vec<(u32, u32)>,
}

/// An open directory, its inode and its mount.
type Opened = (Box<dyn SourceDir>, Stat, Arc<Mounted>);

/// Why a directory could not be looked at.
pub(super) enum LookError {
    /// The source: a problem of this directory.
    Source(&'static str, io::Error),
    /// The kernel's own file systems, and others with `--one-file-system`, are left out.
    LeftOut(Volume),
    /// Another directory lies there now.
    Replaced,
    /// The repository: the run ends.
    Fatal(ReadError),
}

impl Looker<'_> {
    /// Opens a directory and finds its mount.
    pub(super) fn open(&self, target: &Target) -> Result<Opened, LookError> {
        let cannot = |what| move |e| LookError::Source(what, e);
        if (self.over)() {
            return Err(LookError::Source("was not looked at", time_is_over()));
        }
        if target.trail.depth() > limits::DEPTH_MAX {
            let deep = io::Error::new(io::ErrorKind::FileTooLarge, "it lies too deep");
            return Err(LookError::Source("was not looked at", deep));
        }
        let dir = target.open().map_err(cannot("cannot be opened"))?;
        let stat = dir.stat_self().map_err(cannot("cannot be looked at"))?;
        if target.inode.is_some_and(|inode| inode != (stat.dev, stat.ino)) {
            return Err(LookError::Replaced);
        }
        if stat.dev == target.volume.dev {
            return Ok((dir, stat, Arc::clone(&target.volume)));
        }
        let mut mounted = mounted(self.fs, &*dir, &stat, self.synced)
            .map_err(cannot("its file system cannot be found out"))?;
        if self.syncs && !mounted.volume.pseudo && self.fs.sync(&*dir).is_err() {
            // A store through a mapping that was dirty before moves no time: nothing is believed.
            mounted.believe_nothing();
        }
        let other = mounted.volume.identity != target.volume.volume.identity;
        if mounted.volume.pseudo || (self.plan.one_file_system && other) {
            return Err(LookError::LeftOut(mounted.volume));
        }
        Ok((dir, stat, Arc::new(mounted)))
    }

    /// Looks at a directory.
    pub(super) fn look(&self, target: &Target) -> Result<Look, LookError> {
        let (dir, listing) = self.list(target)?;
        let attributes = match target.meta_known {
            true => None,
            false => {
                let cannot = |e| LookError::Source("its attributes cannot be read", e);
                Some(dir.attributes_self().map_err(cannot)?)
            }
        };
        let base = self.base(target, dir);
        let mut look = self.known_of(listing, base, attributes)?;
        if let Some(record) = &look.record {
            for (seen, digest) in look.listing.seen.iter_mut().zip(&look.listing.all) {
                // The record's digests are sorted; an unchanged listing has no other.
                let known = look.unchanged || record.entries.binary_search(digest).is_ok();
                seen.meta_known = known && !self.is_touched(&seen.stat);
            }
        }
        if look.unchanged {
            look.listing.seen.retain(|s| s.stat.kind == InodeKind::Dir);
        } else if let Some(record) = look.record.take() {
            let believed = self.believed.contains(&record.generation);
            self.take_known(&mut look.listing.seen, &record, believed)?;
            look.record = Some(record);
        }
        Ok(look)
    }

    /// Whether the kernel told of a file.
    fn is_touched(&self, stat: &Stat) -> bool {
        stat.kind == InodeKind::File
            && self.touched.is_some_and(|touched| touched.contains(&(stat.dev, stat.ino)))
    }

    /// From where the directories below a target are opened.
    pub(super) fn base(&self, target: &Target, dir: Box<dyn SourceDir>) -> Base {
        if self.anchors.load(Ordering::Relaxed) < self.anchors_max {
            let depth = target.trail.depth();
            return Base { anchor: Arc::new(Anchor::new(dir, &self.anchors)), depth };
        }
        Base { anchor: Arc::clone(&target.anchor), depth: target.anchor_depth }
    }

    /// What the scan cache knows of a listing.
    fn known_of(
        &self,
        listing: Listing,
        base: Base,
        attributes: Option<Attributes>,
    ) -> Result<Look, LookError> {
        let namer = self.reader.repository().namer();
        let key = digest::dir_key(namer, &listing.volume.volume.identity, listing.stat.ino);
        let record = self.reader.accelerator().dir(&key).map_err(|e| LookError::Fatal(e.into()))?;
        let changes = listing.seen.iter().map(|seen| seen.stat.ctime).chain([listing.stat.ctime]);
        let settled = listing.volume.settled_before(changes);
        let each = listing.seen.iter().zip(&listing.all);
        let mut entries: Vec<Digest> = each
            .filter(|(seen, _)| digest::is_settled(&seen.stat, settled))
            .map(|(_, digest)| *digest)
            .collect();
        let all_old = entries.len() == listing.all.len();
        let believable = if all_old { listing.exact } else { digest::NONE };
        entries.sort_unstable();
        let same = |r: &DirRecord| {
            believable != digest::NONE
                && r.listing == believable
                && self.believed.contains(&r.generation)
        };
        let mut owners = vec![(listing.stat.uid, listing.stat.gid)];
        for seen in &listing.seen {
            let owner = (seen.stat.uid, seen.stat.gid);
            if owners.last() != Some(&owner) {
                owners.push(owner);
            }
        }
        Ok(Look {
            unchanged: record.as_ref().is_some_and(same)
                && !listing.seen.iter().any(|seen| self.is_touched(&seen.stat)),
            noted: noted(&listing),
            linked: listing.seen.iter().any(is_linked),
            listing,
            base,
            key,
            record,
            attributes,
            believable,
            entries,
            owners,
        })
    }

    /// A directory with its names, inodes and digests.
    pub(super) fn list(&self, target: &Target) -> Result<(Box<dyn SourceDir>, Listing), LookError> {
        let (dir, stat, volume) = self.open(target)?;
        let mut names = dir.names().map_err(|e| LookError::Source("cannot be listed", e))?;
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut listing = Listing {
            stat,
            volume,
            exact: digest::NONE,
            all: Vec::with_capacity(names.len()),
            seen: Vec::with_capacity(names.len()),
            files: 0,
            bytes: 0,
            sparse: false,
            problems: Vec::new(),
            mounts: Vec::new(),
            left_out: Vec::new(),
            still_open: Vec::new(),
        };
        let path = target.trail.path();
        let ask = self.plan.may_leave_out_in(&path);
        for twice in names.windows(2).filter(|two| two[0].name == two[1].name) {
            let said = "the file system lists this name twice".to_owned();
            listing.problems.push((join(&path, &twice[0].name), said));
        }
        names.dedup_by(|a, b| a.name == b.name);
        let mut far = self.stat_all(&*dir, &names).into_iter();
        for raw in names {
            if raw.name.len() > limits::NAME_MAX {
                far.next();
                let said = format!(
                    "its name has {} bytes, and {} can be kept",
                    raw.name.len(),
                    limits::NAME_MAX
                );
                listing.problems.push((join(&path, &raw.name), said));
                continue;
            }
            let stat = match far.next() {
                Some(stat) => stat,
                None => dir.stat(&raw.name),
            };
            match stat {
                Ok(stat) if listing.volume.is_stale(&raw, &stat) => {
                    let said = "leads to what lay there before: the kernel keeps the name, which \
                                another machine has replaced";
                    listing.problems.push((join(&path, &raw.name), said.to_owned()));
                }
                Ok(stat) => self.note(&mut listing, target, raw.name, stat, ask),
                Err(e) => {
                    let path = join(&path, &raw.name);
                    let gone = e.kind() == io::ErrorKind::NotFound;
                    let what = if gone { "vanished" } else { "cannot be looked at" };
                    listing.problems.push((path, format!("{what}: {e}")));
                }
            }
        }
        let namer = self.reader.repository().namer();
        let mut sorted = listing.all.clone();
        sorted.sort_unstable();
        listing.exact = digest::listing(namer, &sorted);
        Ok((dir, listing))
    }

    /// Looks at all names of a directory at once, where each answer comes from far away; else at none.
    fn stat_all(&self, dir: &dyn SourceDir, names: &[RawName]) -> Vec<io::Result<Stat>> {
        if !self.far {
            return Vec::new();
        }
        names.par_iter().map(|raw| dir.stat(&raw.name)).collect()
    }

    fn note(&self, listing: &mut Listing, target: &Target, name: Vec<u8>, stat: Stat, ask: bool) {
        let is_dir = stat.kind == InodeKind::Dir;
        if ask {
            let path = target.trail.path_of(&name);
            if self.plan.leaves_out(&path, is_dir) {
                if self.plan.left_out.contains(&path) {
                    listing.left_out.push(path);
                }
                return;
            }
        }
        if !is_dir {
            listing.files += 1;
            let bytes = data_bytes(&stat);
            listing.bytes += if stat.kind == InodeKind::File { bytes } else { 0 };
            listing.sparse |= bytes != stat.size;
        }
        if !listing.volume.volume.local && is_kept_open(&name) {
            listing.still_open.push(target.trail.path_of(&name));
        }
        // Files of an overlay may have other devices than its directories.
        let same_mount = stat.mount_id != 0 && stat.mount_id == listing.stat.mount_id;
        if !is_dir && stat.dev != listing.stat.dev && !same_mount {
            let path = target.trail.path_of(&name);
            listing.mounts.push((path, "a file's own mount".into(), true));
        }
        let namer = self.reader.repository().namer();
        listing.all.push(digest::entry(namer, &listing.volume.volume.identity, &name, &stat));
        listing.seen.push(Seen { name, stat, known: None, meta_known: false, had: false });
    }

    /// Takes over entries of the last run's directory whose inodes are as they were.
    fn take_known(
        &self,
        all: &mut [Seen],
        record: &DirRecord,
        believed: bool,
    ) -> Result<(), LookError> {
        let Some(tree) = record.tree else { return Ok(()) };
        // Both are in order of names.
        let mut at = 0;
        let read = self.reader.entries(&tree, &mut |entry: Entry| -> Result<(), ReadError> {
            at += all[at..].iter().take_while(|seen| seen.name < entry.name).count();
            if let Some(seen) = all.get_mut(at).filter(|seen| seen.name == entry.name) {
                seen.had = true;
                seen.known = seen.meta_known.then(|| Box::new(entry));
            }
            Ok(())
        });
        let lost = match read {
            Ok(()) => false,
            // The record is of a run that was never committed, or the repository lost it: read again.
            Err(ReadError::Accelerator(e)) => return Err(LookError::Fatal(e.into())),
            Err(_) => true,
        };
        for seen in all {
            if lost {
                (seen.had, seen.known) = (false, None);
            }
            if let Some(entry) = &seen.known
                && !believed
                && !self.is_whole(entry).map_err(LookError::Fatal)?
            {
                seen.known = None;
            }
            seen.meta_known = seen.known.is_some();
        }
        Ok(())
    }

    /// Whether the repository has all chunks of an entry's own content.
    fn is_whole(&self, entry: &Entry) -> Result<bool, ReadError> {
        let mut whole = true;
        for content in contents(entry) {
            let walked = self.reader.walk_content(content, &mut |_, chunk| {
                whole &= self.reader.accelerator().find(&chunk_key(&chunk.id))?.is_some()
                    || self.writer.has(&chunk.id).unwrap_or(false);
                Ok::<(), ReadError>(())
            });
            match walked {
                Ok(()) => {}
                Err(ReadError::Accelerator(e)) => return Err(e.into()),
                Err(_) => return Ok(false),
            }
        }
        Ok(whole)
    }
}

/// What is said of all that was not reached within `max_downtime`.
pub(super) fn time_is_over() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the time that the service may be stopped is over")
}

fn is_linked(seen: &Seen) -> bool {
    seen.stat.nlink > 1 && seen.stat.kind != InodeKind::Dir
}

fn noted(listing: &Listing) -> Vec<Noted> {
    let each = listing.seen.iter().zip(&listing.all);
    each.map(|(seen, digest)| (seen.stat.dev, seen.stat.ino, short(digest))).collect()
}

/// Bytes of a file's data, as far as its inode tells.
pub(super) fn data_bytes(stat: &Stat) -> u64 {
    let holes = stat.size > 1 << 20 && stat.allocated < stat.size;
    if holes { stat.allocated } else { stat.size }
}

/// Eight bytes of a digest: enough to say which name of a directory changed.
pub(super) fn short(digest: &Digest) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(out)
}
