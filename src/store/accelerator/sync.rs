//! Making the accelerator's set of segments equal to the listed one.

use std::collections::HashSet;

use super::filling::Filling;
use super::placing::PLACED_MAX;
use super::{Accelerator, AcceleratorError, tables};
use crate::backend::{BackendError, ObjectName, Space};
use crate::base::id::SegmentId;
use crate::base::limits;
use crate::format::DecodeError;
use crate::format::control::Control;
use crate::format::header::ObjectKind;
use crate::format::segment::Segment;
use crate::store::repository::{Repository, RepositoryError, unpack_body};

/// What making the sets equal came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncReport {
    /// Segments added.
    pub added: usize,
    /// Whether all was built anew, because a segment that it knew is gone.
    pub rebuilt: bool,
    /// Segments that cannot be read: their packs are not known to this run.
    pub damaged: Vec<(ObjectName, String)>,
}

impl Accelerator {
    /// Makes the accelerator's segments equal to those listed, in one transaction. An index that
    /// turns out to be damaged on the way is built anew.
    ///
    /// # Errors
    /// redb's, or the storage's where it cannot list or read: nothing has changed then.
    pub fn sync(&self, repository: &Repository) -> Result<SyncReport, AcceleratorError> {
        self.sync_within(repository, PLACED_MAX)
    }

    /// As [`Self::sync`], with at most `bound` chunks in memory where there is a directory.
    pub(super) fn sync_within(
        &self,
        repository: &Repository,
        bound: usize,
    ) -> Result<SyncReport, AcceleratorError> {
        match self.sync_once(repository, bound) {
            Err(AcceleratorError::Damaged { .. }) => {
                self.start_anew()?;
                let report = self.sync_once(repository, bound)?;
                Ok(SyncReport { rebuilt: true, ..report })
            }
            other => other,
        }
    }

    fn sync_once(
        &self,
        repository: &Repository,
        bound: usize,
    ) -> Result<SyncReport, AcceleratorError> {
        self.flush_chunks()?;
        let listed = repository
            .backend()
            .list(Space::Index)
            .map_err(|e| Box::new(RepositoryError::from(e)))?;
        let listed: Vec<(SegmentId, u64)> = listed
            .iter()
            .filter_map(|(name, len)| Some((SegmentId::parse(name.name()).ok()?, *len)))
            .collect();
        let mut known = self.guarded(|| tables::segments(&*self.db()?, &self.path))?;
        let listed_set: HashSet<SegmentId> = listed.iter().map(|(id, _)| *id).collect();
        let anew = !known.is_subset(&listed_set);
        let mut report = SyncReport { rebuilt: anew, ..SyncReport::default() };
        if anew {
            // First, so that no end in between leaves records believed whose chunks are not known.
            self.disbelieve()?;
            known.clear();
        }
        let missing: Vec<(SegmentId, u64)> =
            listed.into_iter().filter(|(id, _)| !known.contains(id)).collect();
        if missing.is_empty() && !anew {
            return Ok(report);
        }
        let bytes = missing.iter().map(|(_, len)| *len).sum();
        let mut filling = Filling::begin(self, bytes, anew, bound);
        for (id, _) in missing {
            match read_segment(repository, &id) {
                Ok(segment) => {
                    filling.add(&id, &segment)?;
                    report.added += 1;
                }
                // Somebody else merged or cleared it away since the listing.
                Err(RepositoryError::Backend(BackendError::NotFound(_))) => {}
                // What it names may be whole: that is no damage, and nothing is to be done about it.
                Err(error @ RepositoryError::Newer { .. }) => return Err(Box::new(error).into()),
                Err(error) => report.damaged.push((ObjectName::segment(&id), error.to_string())),
            }
        }
        filling.finish()?;
        if !report.damaged.is_empty() {
            self.disbelieve()?;
        }
        Ok(report)
    }
}

/// Reads and opens an index segment.
///
/// # Errors
/// The storage's, damage, forgery, or a newer version.
pub fn read_segment(repository: &Repository, id: &SegmentId) -> Result<Segment, RepositoryError> {
    let name = ObjectName::segment(id);
    let bytes = repository.backend().get(&name, limits::SEGMENT_MAX)?;
    let wrong = |source| RepositoryError::decoding(&name, source);
    if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
        return Err(wrong(DecodeError::Checksum { what: ObjectKind::Segment.words() }));
    }
    let control = Control::decode(&bytes, ObjectKind::Segment).map_err(wrong)?;
    let key = repository.object_key(&control.header, &control.clear()).map_err(wrong)?;
    let mut body = control.sealed;
    key.open(0, &mut body)
        .map_err(|source| RepositoryError::Forged { object: name.to_string(), source })?;
    Segment::decode(&unpack_body(&body).map_err(wrong)?).map_err(wrong)
}

/// The bytes of a new index segment, and its id.
///
/// # Errors
/// [`RepositoryError::Key`] without random bytes.
pub fn seal_segment(
    repository: &Repository,
    segment: &Segment,
) -> Result<(SegmentId, Vec<u8>), RepositoryError> {
    let header = repository.new_header(ObjectKind::Segment)?;
    let lost = |source| RepositoryError::Damaged { object: "a new segment".into(), source };
    let mut control = Control { header, repo: *repository.id(), slot: None, sealed: Vec::new() };
    // Keys and lengths do not compress: the body goes as it is.
    let mut sealed = vec![0];
    sealed.extend_from_slice(&segment.encode());
    repository
        .object_key(&control.header, &control.clear())
        .map_err(lost)?
        .seal(0, &mut sealed)
        .map_err(|source| RepositoryError::Forged { object: "a new segment".into(), source })?;
    control.sealed = sealed;
    let bytes = control.encode();
    Ok((SegmentId::from_array(*blake3::hash(&bytes).as_bytes()), bytes))
}
