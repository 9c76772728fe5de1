//! Index segments and the packs that they name.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::control::{Looked, bytes, is_summed};
use super::ledger::chain;
use super::{Around, CheckError, DamageKind, Ledger};
use crate::backend::{ObjectName, Space};
use crate::base::id::{PackId, SegmentId, to_hex};
use crate::base::limits;
use crate::base::progress::Total;
use crate::format::DecodeError;
use crate::format::control::Control;
use crate::format::header::{Header, ObjectKind};
use crate::format::pack::{FOOTER_RECORD, Footer, TRAILER_LEN, Trailer};
use crate::format::segment::{Segment, SegmentPack};
use crate::store::accelerator::{Accelerator, Place};
use crate::store::repository::{Repository, RepositoryError, unpack_body};

/// Bytes of all segments up to which the check's own index is kept in memory.
const IN_MEMORY_MAX: u64 = 32 << 20;

/// A pack as the index tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownPack {
    /// Bytes at rest.
    pub len: u64,
    /// Digest of all that the index says of it.
    pub digest: [u8; 16],
}

/// The check's own index.
pub struct IndexView {
    /// Chunk lookup over all readable segments.
    pub accelerator: Arc<Accelerator>,
    /// All packs that readable segments name.
    pub packs: HashMap<PackId, KnownPack>,
    /// Packs that are listed and in no readable segment. No damage in itself: a killed run leaves
    /// such packs.
    pub unindexed: Vec<(PackId, u64)>,
    /// All listed packs.
    pub listed: u64,
    /// Held as long as the index is needed.
    _scratch: Option<tempfile::TempDir>,
}

/// What the index says of a pack, in few bytes.
pub(super) fn digest(pack: &SegmentPack) -> [u8; 16] {
    let alone = Segment { merges: Vec::new(), packs: vec![pack.clone()] };
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(&alone.encode()).as_bytes()[..16]);
    out
}

/// Reads all segments, then lists the packs and holds the two against each other. `scratch` is a
/// directory for the index of a large repository.
///
/// # Errors
/// [`CheckError`].
pub fn index(
    repository: &Repository,
    scratch: Option<&Path>,
    ledger: &mut Ledger,
    around: &Around<'_>,
) -> Result<IndexView, CheckError> {
    let segments = repository.backend().list(Space::Index)?;
    let total: u64 = segments.iter().map(|(_, len)| len).sum();
    around.progress.phase("index", Some(Total { files: None, bytes: Some(total) }));
    let (place, scratch) = place(scratch, total)?;
    let (accelerator, _) = Accelerator::open(&place, repository.id())?;
    let mut filling = accelerator.filling(total)?;
    let mut packs: HashMap<PackId, KnownPack> = HashMap::new();
    let mut readable = Vec::new();
    for (name, len) in &segments {
        around.go_on()?;
        let segment = match segment(repository, name)? {
            Looked::Whole(segment) => segment,
            Looked::Gone => continue,
            Looked::Wrong(why) => {
                ledger.add(name, DamageKind::SegmentDamaged, why);
                continue;
            }
        };
        for pack in &segment.packs {
            let known = KnownPack { len: pack.len, digest: digest(pack) };
            if packs.insert(pack.id, known).is_some_and(|other| other != known) {
                let why = format!("it and another segment disagree about packs/{}", pack.id);
                ledger.add(name, DamageKind::SegmentDamaged, why);
            }
        }
        if let Ok(id) = SegmentId::parse(name.name()) {
            filling.add(&id, &segment)?;
            readable.push((name.clone(), id));
        }
        around.progress.advance(0, *len);
    }
    filling.finish()?;
    let listed = repository.backend().list(Space::Packs)?;
    let (count, unindexed) = (listed.len() as u64, hold_against(&packs, &listed, ledger));
    if ledger.bad_packs() > 0 {
        prefer_good(repository, &accelerator, &readable, ledger)?;
    }
    let accelerator = Arc::new(accelerator);
    Ok(IndexView { accelerator, packs, unindexed, listed: count, _scratch: scratch })
}

fn place(
    scratch: Option<&Path>,
    total: u64,
) -> Result<(Place, Option<tempfile::TempDir>), CheckError> {
    if total <= IN_MEMORY_MAX {
        return Ok((Place::Memory, None));
    }
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("check-");
    let made = match scratch {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| builder.tempdir_in(dir)),
        None => builder.tempdir(),
    };
    let made = made.map_err(CheckError::Scratch)?;
    Ok((Place::Directory(made.path().to_owned()), Some(made)))
}

/// Missing packs and packs of another length are entered; listed ones that nobody names come back.
fn hold_against(
    packs: &HashMap<PackId, KnownPack>,
    listed: &[(ObjectName, u64)],
    ledger: &mut Ledger,
) -> Vec<(PackId, u64)> {
    let mut unindexed = Vec::new();
    let mut there = HashSet::with_capacity(listed.len());
    for (name, len) in listed {
        let Ok(id) = PackId::parse(name.name()) else { continue };
        there.insert(id);
        match packs.get(&id) {
            None => unindexed.push((id, *len)),
            Some(known) if known.len != *len => {
                let why = format!("it has {len} bytes, the index says {}", known.len);
                ledger.add_pack(id, DamageKind::PackDamaged, why);
            }
            Some(_) => {}
        }
    }
    let mut gone: Vec<&PackId> = packs.keys().filter(|id| !there.contains(*id)).collect();
    gone.sort_unstable();
    for id in gone {
        ledger.add_pack(*id, DamageKind::PackMissing, "it is gone".into());
    }
    unindexed
}

/// Where a chunk is in a bad pack and in a good one, the good one is to be found.
fn prefer_good(
    repository: &Repository,
    accelerator: &Accelerator,
    readable: &[(ObjectName, SegmentId)],
    ledger: &Ledger,
) -> Result<(), CheckError> {
    for (name, id) in readable {
        if let Looked::Whole(mut segment) = segment(repository, name)? {
            segment.packs.retain(|pack| ledger.pack(&pack.id).is_none());
            accelerator.add(id, &segment)?;
        }
    }
    Ok(())
}

fn segment(repository: &Repository, name: &ObjectName) -> Result<Looked<Segment>, CheckError> {
    let bytes = match bytes(repository, name, limits::SEGMENT_MAX)? {
        Looked::Whole(bytes) => bytes,
        Looked::Gone => return Ok(Looked::Gone),
        Looked::Wrong(why) => return Ok(Looked::Wrong(why)),
    };
    if to_hex(blake3::hash(&bytes).as_bytes()) != name.name() {
        return Ok(Looked::Wrong("its name is not the hash of its bytes".into()));
    }
    match open_segment(repository, name, &bytes) {
        Ok(segment) => Ok(Looked::Whole(segment)),
        Err(error @ RepositoryError::Newer { .. }) if is_summed(&bytes) => Err(error.into()),
        Err(error) => Ok(Looked::Wrong(chain(&error))),
    }
}

fn open_segment(
    repository: &Repository,
    name: &ObjectName,
    bytes: &[u8],
) -> Result<Segment, RepositoryError> {
    let wrong = |source| RepositoryError::decoding(name, source);
    let control = Control::decode(bytes, ObjectKind::Segment).map_err(wrong)?;
    if control.repo != *repository.id() {
        return Err(wrong(DecodeError::Invalid { what: "repository id" }));
    }
    let key = repository.object_key(&control.header, &control.clear()).map_err(wrong)?;
    let mut body = control.sealed;
    key.open(0, &mut body)
        .map_err(|source| RepositoryError::Forged { object: name.to_string(), source })?;
    Segment::decode(&unpack_body(&body).map_err(wrong)?).map_err(wrong)
}

impl IndexView {
    /// Takes the footers of packs that no segment names into the index, so that a lost segment is
    /// told as the packs that it named. Gives how many could be read.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn add_unindexed(
        &self,
        repository: &Repository,
        ledger: &mut Ledger,
        around: &Around<'_>,
    ) -> Result<usize, CheckError> {
        let mut added = 0;
        for (id, len) in &self.unindexed {
            around.go_on()?;
            let Some(entry) = entry_of(repository, *id, *len)? else { continue };
            let alone = Segment { merges: Vec::new(), packs: vec![entry] };
            // Only this check's own index learns of it: no segment has this name.
            self.accelerator.add(&SegmentId::from_array(*id.as_bytes()), &alone)?;
            ledger.add_pack(*id, DamageKind::PackUnindexed, "no index segment names it".into());
            added += 1;
        }
        Ok(added)
    }
}

/// What a pack's own footer says; `None` where it cannot be read.
fn entry_of(
    repository: &Repository,
    id: PackId,
    len: u64,
) -> Result<Option<SegmentPack>, CheckError> {
    let name = ObjectName::pack(&id);
    let range = |at: u64, bytes: usize| repository.backend().get_range(&name, at, bytes).ok();
    let read = || -> Option<SegmentPack> {
        let header = super::super::salvage::header_of(&range(0, 64)?).ok()?;
        let trailer =
            Trailer::decode(&range(len.checked_sub(TRAILER_LEN as u64)?, TRAILER_LEN)?).ok()?;
        let footer_len = trailer.footer_len as usize;
        let at = len.checked_sub(TRAILER_LEN as u64 + u64::from(trailer.footer_len))?;
        let mut footer = range(at, footer_len)?;
        let decoded = Header::decode(&header, ObjectKind::Pack).ok()?;
        repository.object_key(&decoded, &header).ok()?.open(FOOTER_RECORD, &mut footer).ok()?;
        Some(SegmentPack::from_footer(id, len, header, &Footer::decode(&footer).ok()?))
    };
    Ok(read())
}
