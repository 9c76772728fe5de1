//! Looking at a few files of a directory that did not change itself: its other names are as they were.

use std::sync::Arc;

use super::digest::{self, Digest};
use super::dirty::OneName;
use super::mounted::Mounted;
use super::scan::{Looker, Target, data_bytes};
use crate::base::id::ChunkId;
use crate::format::segment::ChunkKey;
use crate::host::fs::{InodeKind, SourceDir, Stat};
use crate::store::accelerator::DirRecord;

/// What is to be looked at, and what the directory was.
pub(super) struct Wanted {
    /// The files.
    pub(super) names: Vec<OneName>,
    /// What the directory's content became.
    pub(super) tree: Option<ChunkId>,
    /// Digest of all its names and inodes.
    pub(super) exact: Digest,
}

/// A file that may have changed.
pub(super) struct Renewed {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// Eight bytes of the digest that it was noted with.
    pub(super) was: u64,
    pub(super) digest: Digest,
}

impl Renewed {
    /// Bytes of its data.
    pub(super) fn bytes(&self) -> u64 {
        if self.stat.kind == InodeKind::File { self.stat.size } else { 0 }
    }
}

/// A directory of which a few files were looked at.
pub(super) struct NamesLook {
    pub(super) stat: Stat,
    pub(super) volume: Arc<Mounted>,
    pub(super) key: ChunkKey,
    /// The record of before.
    pub(super) record: DirRecord,
    /// In order of names.
    pub(super) renewed: Vec<Renewed>,
    /// As in a look at all: digest of all names and inodes, that digest if it may be kept, and the
    /// digests that may.
    pub(super) exact: Digest,
    pub(super) believable: Digest,
    pub(super) entries: Vec<Digest>,
}

impl Looker<'_> {
    /// Looks at some files of a directory. `None` where that is not enough: then all of it has to be
    /// looked at.
    pub(super) fn look_names(&self, target: &Target, wanted: &Wanted) -> Option<NamesLook> {
        let (dir, stat, volume) = self.open(target).ok()?;
        if !Arc::ptr_eq(&volume, &target.volume) {
            return None;
        }
        let namer = self.reader.repository().namer();
        let identity = &volume.volume.identity;
        let key = digest::dir_key(namer, identity, stat.ino);
        let record = self.reader.accelerator().dir(&key).ok()??;
        let as_seen = (record.tree, record.listing) == (wanted.tree, wanted.exact);
        if !as_seen || !self.believed.contains(&record.generation) {
            return None;
        }
        let mut renewed = Vec::with_capacity(wanted.names.len());
        let mut entries = record.entries.clone();
        for (name, was) in found(&*dir, &wanted.names)? {
            let now = dir.stat(&name).ok()?;
            let counted = now.kind != InodeKind::File || data_bytes(&now) == now.size;
            if now.kind == InodeKind::Dir || now.nlink != 1 || now.dev != stat.dev || !counted {
                return None;
            }
            take_out(&mut entries, was)?;
            let digest = digest::entry(namer, identity, &name, &now);
            renewed.push(Renewed { name, stat: now, was, digest });
        }
        renewed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut all = entries.clone();
        all.extend(renewed.iter().map(|one| one.digest));
        all.sort_unstable();
        let exact = digest::listing(namer, &all);
        let changes = renewed.iter().map(|one| one.stat.ctime).chain([stat.ctime]);
        let settled_before = volume.settled_before(changes);
        let settled = |one: &&Renewed| digest::is_settled(&one.stat, settled_before);
        entries.extend(renewed.iter().filter(settled).map(|one| one.digest));
        entries.sort_unstable();
        let believable = if entries.len() == all.len() { exact } else { digest::NONE };
        Some(NamesLook { stat, volume, key, record, renewed, exact, believable, entries })
    }
}

/// The names of some inodes, each of which has one in a directory.
fn found(dir: &dyn SourceDir, wanted: &[OneName]) -> Option<Vec<(Vec<u8>, u64)>> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    let mut found = Vec::with_capacity(wanted.len());
    for raw in dir.names().ok()? {
        if let Ok(at) = wanted.binary_search_by_key(&raw.ino, |one| one.0) {
            found.push((raw.name, wanted.remove(at).1));
        }
    }
    wanted.is_empty().then_some(found)
}

/// Takes the digest out that begins with these bytes, where there is one and only one.
fn take_out(sorted: &mut Vec<Digest>, short: u64) -> Option<()> {
    let prefix = short.to_le_bytes();
    let from = sorted.partition_point(|digest| digest[..8] < prefix[..]);
    let fits = sorted[from..].iter().take_while(|digest| digest[..8] == prefix).count();
    if fits != 1 {
        return None;
    }
    sorted.remove(from);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_taken_out_where_it_is_the_only_one_of_its_kind() {
        let digest = |first: u8, last: u8| {
            let mut digest = [first; 16];
            digest[15] = last;
            digest
        };
        let mut all = vec![digest(1, 1), digest(2, 1), digest(2, 2), digest(3, 9)];
        let short = |first: u8| u64::from_le_bytes([first; 8]);
        assert!(take_out(&mut all, short(2)).is_none(), "two begin like that");
        assert!(take_out(&mut all, short(7)).is_none());
        assert!(take_out(&mut all, short(3)).is_some());
        assert_eq!(all, [digest(1, 1), digest(2, 1), digest(2, 2)]);
    }
}
