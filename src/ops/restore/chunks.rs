//! What a file consists of: its stretches of data, and the chunks that are planned for them.

use super::RestoreError;
use super::batch::{Batch, FileJob, Walked};
use super::run::Run;
use crate::base::limits;
use crate::format::DecodeError;
use crate::format::content::{ChunkRef, Content};
use crate::format::tree::{Layout, Stretch, StretchMap, data_len, decode_stretches};
use crate::store::reader::ReadError;

/// What ended the reading of a content's list.
pub(super) enum Ended {
    Read(ReadError),
    Restore(RestoreError),
    Enough,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Run<'_> {
    /// Which parts of a file are data; `None` for all.
    pub(super) fn stretches(
        &self,
        layout: &Layout,
        size: u64,
        content: &Content,
    ) -> Result<Option<Box<[Stretch]>>, ReadError> {
        match layout {
            Layout::Dense => Ok(None),
            Layout::Sparse { map: StretchMap::Inline(list), .. } => {
                Ok(Some(list.as_slice().into()))
            }
            Layout::Sparse { map: StretchMap::Content(map), .. } => {
                let bytes = self.input.reader.content(map, limits::EXTENT_MAP_MAX)?;
                let wrong = |source| match map.refs.first() {
                    Some(chunk) => ReadError::Decode { id: chunk.id, source },
                    None => ReadError::Missing(crate::base::id::ChunkId::from_array([0; 32])),
                };
                let list = decode_stretches(&bytes, size).map_err(wrong)?;
                if data_len(&list) != content.len() {
                    return Err(wrong(DecodeError::Invalid { what: "file layout" }));
                }
                Ok(Some(list.into()))
            }
        }
    }

    /// Plans the chunks of a batch's newest job; a long file goes through several batches.
    pub(super) fn chunks(&self, batch: &mut Batch, content: &Content) -> Result<(), RestoreError> {
        let (mut offset, mut walked) = (0, Walked::default());
        let reader = self.input.reader;
        let ended = reader.data_chunks(content, &mut |chunk: ChunkRef| -> Result<(), Ended> {
            if batch.is_full() {
                self.flush_within_file(batch).map_err(Ended::Restore)?;
            }
            match batch.jobs.last() {
                Some(job) if !job.has_failed() => {
                    batch.push(chunk, &mut offset, &mut walked);
                    Ok(())
                }
                _ => Err(Ended::Enough),
            }
        });
        match ended {
            Ok(()) | Err(Ended::Enough) => Ok(()),
            Err(Ended::Restore(error)) => Err(error),
            Err(Ended::Read(error)) => {
                let job = batch.jobs.last().filter(|job| job.fail());
                let path = job.map(FileJob::path);
                self.damaged(path, error)
            }
        }
    }

    fn flush_within_file(&self, batch: &mut Batch) -> Result<(), RestoreError> {
        self.check()?;
        if let Some(job) = batch.jobs.last_mut() {
            job.last = false;
        }
        self.do_batch(batch)?;
        if let Some(job) = batch.jobs.last_mut() {
            job.last = true;
        }
        Ok(())
    }
}
