//! A batch of files: bounded in files and chunks, written block by block, each block read once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use super::RestoreError;
use super::place::DirNode;
use super::run::Run;
use super::staging::Staging;
use crate::base::id::{ChunkId, ContentHash};
use crate::format::content::ChunkRef;
use crate::format::tree::{Entry, Meta, Stretch};
use crate::host::fs::Stat;
use crate::store::accelerator::Location;

/// Files of a batch at most.
const BATCH_FILES: usize = 64 << 10;
/// Chunks of a batch at most.
const BATCH_USES: usize = 192 << 10;
/// Directories that wait for their end at most.
const BATCH_DIRS: usize = 32 << 10;

const WAITING: u8 = 0;
const DONE: u8 = 1;
const FAILED: u8 = 2;

/// A file to be written.
pub(super) struct FileJob {
    /// The directory in which it ends.
    pub(super) node: Arc<DirNode>,
    /// Its name there.
    pub(super) name: Vec<u8>,
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) hash: ContentHash,
    /// Which parts are data; `None` for all.
    pub(super) stretches: Option<Box<[Stretch]>>,
    /// Made here under another name and then renamed, because something may stand in its place.
    pub(super) staged: Option<(Arc<Staging>, Vec<u8>)>,
    /// Something of the same size that stands in its place and may be equal.
    pub(super) there: Option<Box<Stat>>,
    /// Whether anything stands in its place.
    pub(super) replaces: bool,
    /// Whether its directory was there before this run, and may hand attributes on.
    pub(super) guest: bool,
    /// Chunks of this batch.
    pub(super) uses: u32,
    /// Chunks of this batch that are still to be written.
    pub(super) left: AtomicU32,
    /// Whether the batch holds the file's end.
    pub(super) last: bool,
    made: AtomicBool,
    state: AtomicU8,
}

impl FileJob {
    pub(super) fn new(
        node: Arc<DirNode>,
        name: Vec<u8>,
        meta: Meta,
        size: u64,
        hash: ContentHash,
    ) -> Self {
        Self {
            node,
            name,
            meta,
            size,
            hash,
            stretches: None,
            staged: None,
            there: None,
            replaces: false,
            guest: false,
            uses: 0,
            left: AtomicU32::new(0),
            last: true,
            made: AtomicBool::new(false),
            state: AtomicU8::new(WAITING),
        }
    }

    /// Where the bytes go: directory and name.
    pub(super) fn place(&self) -> (&DirNode, &[u8]) {
        match &self.staged {
            Some((staging, name)) => (staging.node(), name),
            None => (&self.node, &self.name),
        }
    }

    /// The path in the target.
    pub(super) fn path(&self) -> Vec<u8> {
        self.node.path_of(&self.name)
    }

    /// Whether this run made the file.
    pub(super) fn is_made(&self) -> bool {
        self.made.load(Ordering::Acquire)
    }

    /// Whether nothing more is to be written.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), DONE | FAILED)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FAILED
    }

    pub(super) fn set_made(&self) {
        self.made.store(true, Ordering::Release);
    }

    pub(super) fn set_done(&self) {
        self.state.store(DONE, Ordering::Release);
    }

    /// True for the first who says so.
    pub(super) fn fail(&self) -> bool {
        self.state.swap(FAILED, Ordering::AcqRel) != FAILED
    }

    /// Whether locking flags wait because the inode may get more names.
    pub(super) fn is_linked(&self) -> bool {
        self.meta.link.is_some()
    }
}

/// A part of a chunk and where in a file it goes.
#[derive(Clone, Copy)]
pub(super) struct Use {
    pub(super) id: ChunkId,
    /// Where the chunk lies; set by [`Run::locate`].
    pub(super) at: Location,
    /// The file's number in the batch.
    pub(super) file: u32,
    /// First byte within the chunk.
    pub(super) from: u32,
    /// Bytes.
    pub(super) len: u32,
    /// The chunk's whole length, as the content says.
    pub(super) chunk_len: u32,
    /// First byte within the file.
    pub(super) offset: u64,
}

impl Use {
    /// The order in which blocks are read, and files written out of each.
    fn order(&self) -> (u32, u16, u32, u32, u64) {
        (self.at.pack, self.at.block, self.at.offset, self.file, self.offset)
    }
}

/// A further name of an inode.
pub(super) struct LinkJob {
    pub(super) node: Arc<DirNode>,
    /// All of it, for where no link can be made.
    pub(super) entry: Box<Entry>,
    /// The first name of the inode.
    pub(super) first: (Arc<DirNode>, Vec<u8>),
    pub(super) staging: Option<Arc<Staging>>,
    pub(super) replaces: bool,
    /// Whether the directory was there before this run.
    pub(super) guest: bool,
}

/// A directory whose content is complete once the batch is.
pub(super) struct Finish {
    pub(super) node: Arc<DirNode>,
    pub(super) meta: Meta,
    /// Whether it was made by this run, and has no attributes of its own.
    pub(super) fresh: bool,
}

/// What is planned and not yet done.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) jobs: Vec<FileJob>,
    pub(super) uses: Vec<Use>,
    pub(super) links: Vec<LinkJob>,
    pub(super) finish: Vec<Finish>,
    /// Files of the batch before that could not be restored in place.
    pub(super) failed: Vec<(Arc<DirNode>, Vec<u8>)>,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        #[cfg(test)]
        if let Some(limit) = LIMIT.get() {
            return self.uses.len() >= limit;
        }
        self.jobs.len() + self.links.len() >= BATCH_FILES
            || self.uses.len() >= BATCH_USES
            || self.finish.len() >= BATCH_DIRS
    }

    /// Appends a chunk of the newest job; `content_offset` counts its data bytes, `stretch` is where
    /// the search for the stretch begins.
    pub(super) fn push(&mut self, chunk: ChunkRef, content_offset: &mut u64, stretch: &mut Walked) {
        let Some(file) = self.jobs.len().checked_sub(1) else { return };
        let job = &mut self.jobs[file];
        let mut from = 0u64;
        while from < chunk.len {
            let (offset, room) = stretch.place(job.stretches.as_deref(), *content_offset);
            let len = room.min(chunk.len - from);
            if len == 0 {
                break;
            }
            self.uses.push(Use {
                id: chunk.id,
                at: Location { pack: 0, block: 0, body_offset: 0, body_len: 0, offset: 0, len: 0 },
                file: file as u32,
                from: from as u32,
                len: len as u32,
                chunk_len: chunk.len as u32,
                offset,
            });
            job.uses += 1;
            *job.left.get_mut() += 1;
            from += len;
            *content_offset += len;
        }
    }
}

/// How far a file's stretches are used up.
#[derive(Default)]
pub(super) struct Walked {
    at: usize,
    /// Data bytes in front of stretch `at`.
    before: u64,
}

impl Walked {
    /// Where the data byte with this number stands in the file, and how many follow it there.
    fn place(&mut self, stretches: Option<&[Stretch]>, content_offset: u64) -> (u64, u64) {
        let Some(stretches) = stretches else { return (content_offset, u64::MAX) };
        while let Some(stretch) = stretches.get(self.at) {
            let data = if stretch.unwritten { 0 } else { stretch.len };
            if content_offset < self.before + data {
                let inside = content_offset - self.before;
                return (stretch.offset + inside, data - inside);
            }
            self.before += data;
            self.at += 1;
        }
        (0, 0)
    }
}

impl Run<'_> {
    /// Does what is planned: compares, writes, links, and ends directories. A file whose end is not
    /// in the batch stays in it.
    pub(super) fn do_batch(&self, batch: &mut Batch) -> Result<(), RestoreError> {
        let jobs = &batch.jobs;
        if jobs.iter().any(|job| job.there.is_some()) {
            self.in_parallel(jobs.len(), &|at| self.compare(&jobs[at]))?;
        }
        if self.input.dry_run {
            self.plan_batch(batch);
        } else {
            batch.uses.retain(|u| !jobs[u.file as usize].is_over());
            let written = self.locate(jobs, &mut batch.uses).and_then(|()| {
                // What was not found has no place, and must not pass for what lies at the first.
                batch.uses.retain(|u| !jobs[u.file as usize].is_over());
                batch.uses.sort_unstable_by_key(Use::order);
                self.write(jobs, &mut batch.uses)
            });
            let cleared = self.clear_failed(&batch.jobs);
            written.and(cleared)?;
            if self.in_place {
                let failed = batch.jobs.iter().filter(|job| job.has_failed());
                batch.failed =
                    failed.map(|job| (Arc::clone(&job.node), job.name.clone())).collect();
            }
            self.make_links(&batch.links)?;
        }
        for finish in batch.finish.drain(..) {
            self.check()?;
            self.finish_or_postpone(finish)?;
        }
        batch.uses.clear();
        batch.links.clear();
        let unfinished = batch.jobs.pop().filter(|job| !job.last);
        batch.jobs.clear();
        if let Some(mut job) = unfinished {
            job.uses = 0;
            job.left = AtomicU32::new(0);
            job.there = None;
            batch.jobs.push(job);
        }
        Ok(())
    }

    fn plan_batch(&self, batch: &Batch) {
        use super::Action::{Create, Replace};
        for job in batch.jobs.iter().filter(|job| job.last && !job.is_over()) {
            self.plan(if job.replaces { Replace } else { Create }, job.path(), job.size);
        }
        for link in &batch.links {
            let action = if link.replaces { Replace } else { Create };
            self.plan(action, link.node.path_of(&link.entry.name), 0);
        }
    }

    /// Finds where each chunk lies.
    fn locate(&self, jobs: &[FileJob], uses: &mut [Use]) -> Result<(), RestoreError> {
        const SLICE: usize = 2048;
        uses.sort_unstable_by_key(|u| u.id);
        let slices: Vec<_> = uses.chunks_mut(SLICE).map(std::sync::Mutex::new).collect();
        self.in_parallel(slices.len(), &|at| {
            let mut slice = super::run::lock(&slices[at]);
            let mut known: Option<(ChunkId, Location)> = None;
            for one in slice.iter_mut() {
                if let Some((id, at)) = known
                    && id == one.id
                {
                    one.at = at;
                    continue;
                }
                match self.input.reader.locate(&one.id) {
                    Ok(at) => {
                        known = Some((one.id, at));
                        one.at = at;
                    }
                    Err(error) => {
                        let job = &jobs[one.file as usize];
                        let path = job.fail().then(|| job.path());
                        self.damaged(path, error)?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Removes what was begun and cannot be ended: no wrong bytes stay behind.
    fn clear_failed(&self, jobs: &[FileJob]) -> Result<(), RestoreError> {
        for job in jobs.iter().filter(|job| job.has_failed() && job.is_made()) {
            let (node, name) = job.place();
            match self.dirs.open(node).and_then(|dir| dir.unlink(name)) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => self.trouble(job.path(), "removing a file that is incomplete", e)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
thread_local! {
    static LIMIT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// Runs with batches of so few chunks.
#[cfg(test)]
pub(super) fn tests_limit(chunks: usize, run: impl FnOnce()) {
    LIMIT.set(Some(chunks));
    run();
    LIMIT.set(None);
}
