//! Chunks out of blocks into files. A small file whose chunks all lie in one block is made, written
//! and given its attributes in one go; others stay open, a few at a time.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::RestoreError;
use super::attributes::{Before, LOCKING_FLAGS, NO_COW_FLAG, On};
use super::batch::{FileJob, Use};
use super::place::DirNode;
use super::run::{Late, Run, add, lock};
use crate::format::pack::ChunkKind;
use crate::format::tree::Meta;
use crate::host::fs::{SourceFile, TargetFile};
use crate::store::reader::ReadError;

/// Files that are kept open while their other blocks are still to come.
const OPEN_FILES: usize = 64;
/// Bytes that are read at once when a file is hashed.
pub(super) const READ_BUFFER: usize = 256 << 10;

/// Files that lie in several blocks, the least recently used closed first.
#[derive(Default)]
struct OpenFiles {
    held: Mutex<Held>,
}

/// Open files by their number, each with when it was last used.
#[derive(Default)]
struct Held {
    files: HashMap<u32, (Arc<TargetFile>, u64)>,
    tick: u64,
}

impl OpenFiles {
    /// The open file of a job; makes it first where that was not done.
    fn get(&self, run: &Run<'_>, file: u32, job: &FileJob) -> io::Result<Arc<TargetFile>> {
        let mut held = lock(&self.held);
        held.tick += 1;
        let tick = held.tick;
        if let Some((open, used)) = held.files.get_mut(&file) {
            *used = tick;
            return Ok(Arc::clone(open));
        }
        let (node, name) = job.place();
        let open = if job.is_made() {
            run.dirs.open(node)?.open_file_rw(name)?
        } else {
            run.make_file(job)?
        };
        if held.files.len() >= OPEN_FILES {
            let oldest =
                held.files.iter().min_by_key(|(_, (_, used))| *used).map(|(file, _)| *file);
            if let Some(oldest) = oldest {
                held.files.remove(&oldest);
            }
        }
        let open = Arc::new(open);
        held.files.insert(file, (Arc::clone(&open), tick));
        Ok(open)
    }

    fn close(&self, file: u32) {
        lock(&self.held).files.remove(&file);
    }
}

impl Run<'_> {
    /// Writes all uses, which are sorted by their places, and ends the files that need none.
    pub(super) fn write(&self, jobs: &[FileJob], uses: &mut [Use]) -> Result<(), RestoreError> {
        let empty: Vec<usize> = (0..jobs.len())
            .filter(|&at| jobs[at].last && jobs[at].uses == 0 && !jobs[at].is_over())
            .collect();
        let open = OpenFiles::default();
        self.in_parallel(empty.len(), &|at| {
            let job = &jobs[empty[at]];
            let done = self.in_one_go(job, |file| self.complete(job, file));
            self.job_result(job, done)
        })?;
        let mut blocks = Vec::new();
        let mut rest = uses;
        while let Some(first) = rest.first() {
            let place = first.at.place();
            let end = rest.partition_point(|u| u.at.place() == place);
            let (block, others) = rest.split_at_mut(end);
            blocks.push(Mutex::new(block));
            rest = others;
        }
        self.in_parallel(blocks.len(), &|at| self.write_block(jobs, &open, &mut lock(&blocks[at])))
    }

    fn in_one_go(
        &self,
        job: &FileJob,
        then: impl FnOnce(&TargetFile) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let file = if job.is_made() {
            let (node, name) = job.place();
            self.dirs.open(node)?.open_file_rw(name)?
        } else {
            self.make_file(job)?
        };
        then(&file)?;
        drop(file);
        self.put_in_place(job)
    }

    /// Makes the file of a job, where nothing may be.
    fn make_file(&self, job: &FileJob) -> io::Result<TargetFile> {
        let (node, name) = job.place();
        if let Some((staging, _)) = &job.staged {
            staging.ensure(&self.dirs)?;
        }
        let file = self.dirs.open(node)?.create_file(name)?;
        job.set_made();
        if let Some(flags) = job.meta.flags.filter(|f| f & NO_COW_FLAG != 0) {
            // Where the file system does not know it, setting all flags at the end says so.
            let _ = file.set_flags(flags & NO_COW_FLAG);
        }
        Ok(file)
    }

    fn write_block(
        &self,
        jobs: &[FileJob],
        open: &OpenFiles,
        uses: &mut [Use],
    ) -> Result<(), RestoreError> {
        let wanted = uses.iter().any(|u| !jobs[u.file as usize].is_over());
        let Some(first) = uses.first().filter(|_| wanted) else { return Ok(()) };
        let fail_all = |uses: &[Use], error: ReadError| {
            let files = uses.iter().map(|u| &jobs[u.file as usize]);
            let paths: Vec<_> = files.filter(|job| job.fail()).map(FileJob::path).collect();
            self.damaged(paths, error)
        };
        let block = match self.input.reader.read_block(&first.at) {
            Ok(block) => block,
            Err(error) => return fail_all(uses, error),
        };
        for same in uses.chunk_by(|a, b| (a.at.offset, a.id) == (b.at.offset, b.id)) {
            let one = &same[0];
            let bytes = self.input.reader.verified(ChunkKind::Data, &one.id, &one.at, &block);
            match bytes {
                Ok(bytes) if bytes.len() == one.chunk_len as usize => {}
                Ok(_) => {
                    let source = crate::format::DecodeError::Invalid { what: "chunk length" };
                    fail_all(same, ReadError::Decode { id: one.id, source })?;
                }
                Err(error) => fail_all(same, error)?,
            }
        }
        uses.sort_unstable_by_key(|u| (u.file, u.offset));
        for of_file in uses.chunk_by(|a, b| a.file == b.file) {
            let job = &jobs[of_file[0].file as usize];
            if !job.is_over() {
                self.check()?;
                let done = self.write_part(job, open, of_file, &block);
                self.job_result(job, done)?;
            }
        }
        Ok(())
    }

    fn write_part(
        &self,
        job: &FileJob,
        open: &OpenFiles,
        uses: &[Use],
        block: &[u8],
    ) -> Result<(), Failure> {
        let count = uses.len() as u32;
        if count == job.uses && job.last && !job.is_made() {
            return self.in_one_go(job, |file| {
                write_uses(self, file, uses, block)?;
                self.complete(job, file)
            });
        }
        let number = uses[0].file;
        let file = open.get(self, number, job)?;
        write_uses(self, &file, uses, block)?;
        if job.left.fetch_sub(count, Ordering::AcqRel) == count && job.last {
            self.complete(job, &file)?;
            open.close(number);
            drop(file);
            self.put_in_place(job)?;
        }
        Ok(())
    }

    /// A job's result: what concerns one file is a problem of that file.
    fn job_result(&self, job: &FileJob, done: Result<(), Failure>) -> Result<(), RestoreError> {
        match done {
            Ok(()) => Ok(()),
            Err(Failure::Restore(error)) => Err(error),
            Err(Failure::Os(error)) => {
                job.fail();
                self.trouble(job.path(), "cannot be restored", error)
            }
            Err(Failure::Read(error)) => {
                job.fail();
                self.damaged([job.path()], error)
            }
        }
    }

    /// Ends a file whose data is written: length, allocated stretches, check, attributes.
    fn complete(&self, job: &FileJob, file: &TargetFile) -> Result<(), Failure> {
        if let Some(stretches) = &job.stretches {
            file.set_len(job.size)?;
            for stretch in stretches.iter().filter(|s| s.unwritten) {
                if let Err(e) = file.allocate(stretch.offset, stretch.len, true) {
                    self.trouble(job.path(), "allocated space", e)?;
                    break;
                }
            }
        }
        if self.input.verify {
            self.verify(job, file)?;
        }
        let stat = file.stat()?;
        // What was there before this run may hand attributes on; a staging directory does not.
        let inherited = match job.guest && job.staged.is_none() {
            true => Some(file.source().attributes()?),
            false => None,
        };
        let before = Before {
            stat: &stat,
            attributes: inherited.as_ref(),
            link: false,
            hold_locks: job.is_linked() || job.staged.is_some(),
        };
        self.apply(On::File(file), &job.meta, &before, &|| job.path())?;
        Ok(())
    }

    /// Renames a finished file into its place, and counts it.
    fn put_in_place(&self, job: &FileJob) -> Result<(), Failure> {
        if let Some((staging, temp)) = &job.staged {
            self.swap(staging, temp, &job.node, &job.name)?;
        }
        if job.is_linked() || job.staged.is_some() {
            self.lock_later(&job.node, &job.name, &job.meta);
        }
        job.set_done();
        let bytes = data_bytes(job);
        add(&self.counts.bytes_written, bytes);
        self.count_file(job.size, bytes);
        Ok(())
    }

    /// Counts a file that is as it should be.
    pub(super) fn count_file(&self, size: u64, progress: u64) {
        add(&self.counts.files, 1);
        add(&self.counts.bytes, size);
        self.input.progress.advance(1, progress);
    }

    /// Notes locking flags for the end.
    pub(super) fn lock_later(&self, node: &Arc<DirNode>, name: &[u8], meta: &Meta) {
        let locks = meta.flags.filter(|f| f & LOCKING_FLAGS != 0 && !self.input.dry_run);
        if let Some(flags) = locks {
            let late = Late { node: Arc::clone(node), name: name.to_vec(), flags };
            lock(&self.late).push(late);
        }
    }

    /// Reads a file back and compares it with its hash.
    fn verify(&self, job: &FileJob, file: &TargetFile) -> Result<(), Failure> {
        if self.hash_data(file.source(), job)? == *job.hash.as_bytes() {
            add(&self.counts.verified, 1);
            return Ok(());
        }
        self.problems.note(job.path(), "reads back other bytes than were written");
        Ok(())
    }

    /// The hash of what stands where the snapshot's file has data.
    pub(super) fn hash_data(&self, file: &dyn SourceFile, job: &FileJob) -> io::Result<[u8; 32]> {
        let mut hasher = self.input.reader.repository().namer().content_hasher();
        let mut buffer = vec![0; READ_BUFFER.min(usize::try_from(job.size).unwrap_or(READ_BUFFER))];
        let mut hash = |stretch: Range<u64>| -> io::Result<()> {
            let mut at = stretch.start;
            while at < stretch.end {
                self.interrupted()?;
                let room = usize::try_from(stretch.end - at).unwrap_or(usize::MAX);
                let len = room.min(buffer.len());
                let got = file.read_at(&mut buffer[..len], at)?;
                hasher.update(&buffer[..got]);
                if got < len {
                    break;
                }
                at += got as u64;
            }
            Ok(())
        };
        match &job.stretches {
            None => hash(0..job.size)?,
            Some(list) => {
                for s in list.iter().filter(|s| !s.unwritten) {
                    hash(s.offset..s.offset + s.len)?;
                }
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Lets a long read end; the caller's own check tells why.
    fn interrupted(&self) -> io::Result<()> {
        match self.input.interrupt.is_set() {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }
}

/// Data bytes of a job's file.
fn data_bytes(job: &FileJob) -> u64 {
    job.stretches.as_deref().map_or(job.size, crate::format::tree::data_len)
}

/// Writes parts of one file that lie in one block, neighbours together.
fn write_uses(run: &Run<'_>, file: &TargetFile, uses: &[Use], block: &[u8]) -> Result<(), Failure> {
    let start = |u: &Use| u.at.offset as usize + u.from as usize;
    let mut at = 0;
    while let Some(first) = uses.get(at) {
        let (from, mut len) = (start(first), first.len as usize);
        at += 1;
        while let Some(next) = uses.get(at)
            && start(next) == from + len
            && next.offset == first.offset + len as u64
        {
            len += next.len as usize;
            at += 1;
        }
        // Verified above: the chunk lies within the block, and its part within the chunk.
        let Some(bytes) = block.get(from..from + len) else {
            return Err(Failure::Read(ReadError::Missing(first.id)));
        };
        run.check()?;
        file.write_at(bytes, first.offset)?;
    }
    Ok(())
}

/// Why one file could not be restored.
pub(super) enum Failure {
    /// The operating system.
    Os(io::Error),
    /// The repository.
    Read(ReadError),
    /// All is over.
    Restore(RestoreError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Os(error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}
