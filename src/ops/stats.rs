//! `stats`: what a repository holds and what it takes.

use serde::Serialize;

use super::session::{Session, SessionError};
use crate::backend::Space;
use crate::format::manifest::RecordKind;
use crate::record::catalogue::Catalogue;

/// Figures of a repository. Those of records are of one site where one is named; those of storage
/// are always of the whole repository, because sites share chunks.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Stats {
    /// Bytes of all objects at rest.
    pub repo_bytes: u64,
    /// Bytes of all records as if each were kept in full.
    pub logical_bytes: u64,
    /// Bytes of all chunks, each counted once, before compression.
    pub unique_bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Packs.
    pub packs: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Captures.
    pub captures: u64,
    /// Windows of which the downtime is known.
    pub windows: u64,
    /// The newest downtime, milliseconds.
    pub last_downtime_ms: Option<u64>,
    /// The median downtime.
    pub median_downtime_ms: Option<u64>,
    /// The longest downtime.
    pub max_downtime_ms: Option<u64>,
}

/// Counts. The session's local index is up to date.
///
/// # Errors
/// [`SessionError`].
pub fn stats(
    session: &Session,
    catalogue: &Catalogue,
    site: Option<&str>,
) -> Result<Stats, SessionError> {
    let backend = session.repository.backend();
    let (chunks, unique_bytes) = session.accelerator.totals()?;
    let mut stats = Stats {
        repo_bytes: session.repository.stored_bytes()?,
        unique_bytes,
        chunks,
        packs: backend.list(Space::Packs)?.len() as u64,
        ..Stats::default()
    };
    let mut downtimes = Vec::new();
    for record in catalogue.records.iter().filter(|r| site.is_none_or(|s| r.body.site == s)) {
        match record.kind {
            RecordKind::Snapshot => stats.snapshots += 1,
            RecordKind::Capture => stats.captures += 1,
        }
        stats.logical_bytes = stats.logical_bytes.saturating_add(record.body.summary.bytes);
        downtimes.extend(record.body.window.as_ref().and_then(|w| w.downtime_ms));
    }
    stats.windows = downtimes.len() as u64;
    stats.last_downtime_ms = downtimes.last().copied();
    downtimes.sort_unstable();
    stats.median_downtime_ms = downtimes.get(downtimes.len() / 2).copied();
    stats.max_downtime_ms = downtimes.last().copied();
    Ok(stats)
}
