//! Reading the files of a window, by all threads.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Engine, Hand, IntakeError};
use crate::format::tree::{Entry, Node};
use crate::host::fs::{InodeKind, SourceDir, Stat};
use crate::intake::digest::Digest;
use crate::intake::file::{self, FileError, Remarks, Surroundings};
use crate::intake::manners::Manners;
use crate::intake::scan::time_is_over;
use crate::store::writer::WriteError;

/// Files of a run of neighbours that one thread reads.
const RUN_FILES: usize = 512;
/// Runs of each thread, where there are few files: none waits for the last one.
const RUNS_EACH: usize = 8;
/// Bytes of such a run.
const RUN_BYTES: u64 = 16 << 20;
/// Hard-linked inodes whose content is remembered, so that they are read once.
const LINKS_MAX: usize = 100_000;

/// A file to be read.
pub(in crate::intake) struct Job {
    pub(super) node: usize,
    pub(super) slot: usize,
    pub(super) stat: Stat,
    path: Vec<u8>,
    had: bool,
    key: Vec<u8>,
}

/// A file that was read, or not.
pub(super) struct Done {
    pub(super) node: usize,
    pub(super) slot: usize,
    pub(super) path: Vec<u8>,
    pub(super) had: bool,
    pub(super) bytes: u64,
    /// Its size when its directory was looked at.
    pub(super) size: u64,
    pub(super) database: bool,
    pub(super) digest: Digest,
    pub(super) result: Result<Box<Entry>, FileError>,
    pub(super) remarks: Remarks,
}

impl Job {
    pub(super) fn new(
        node: usize,
        slot: usize,
        stat: Stat,
        path: Vec<u8>,
        had: bool,
        sort: bool,
    ) -> Self {
        let key = if sort { sort_key(&path) } else { Vec::new() };
        Self { node, slot, stat, path, had, key }
    }

    fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or(&self.path)
    }
}

/// The order of files on a first snapshot: versions of one file next to each other. Two numbers one
/// below the other are an application and its bundle; the bundle counts last.
fn sort_key(path: &[u8]) -> Vec<u8> {
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let pair = parts.windows(2).position(|w| is_number(w[0]) && is_number(w[1]));
    let Some(at) = pair.filter(|at| at + 2 < parts.len()) else { return path.to_vec() };
    let mut key = parts[..=at].join(&b'/');
    key.push(b'/');
    key.extend(parts[at + 2..].join(&b'/'));
    key.push(0);
    key.extend_from_slice(parts[at + 1]);
    key
}

impl Engine<'_> {
    /// Reads a window's files; what came of them, a list for each thread.
    pub(super) fn read_jobs(&mut self, mut jobs: Vec<Job>) -> Result<Vec<Vec<Done>>, IntakeError> {
        if self.sort {
            jobs.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let mut hands = std::mem::take(&mut self.hands);
        let files = (jobs.len() / hands.len().max(1) / RUNS_EACH).clamp(1, RUN_FILES);
        let runs = runs(&jobs, if self.sort { RUN_FILES } else { files });
        let next = AtomicUsize::new(0);
        let this = &*self;
        let read: Vec<Result<Vec<Done>, WriteError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = hands
                .iter_mut()
                .map(|hand| {
                    let (runs, jobs, next) = (&runs, &jobs, &next);
                    scope.spawn(move || this.read_runs(hand, jobs, runs, next))
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        self.hands = hands;
        if self.interrupt.is_set() {
            return Err(IntakeError::Interrupted);
        }
        let mut all = Vec::with_capacity(read.len());
        let mut failure = None;
        for part in read {
            match part {
                Ok(done) => all.push(done),
                Err(WriteError::GivenUp) => failure = failure.or(Some(WriteError::GivenUp)),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(all),
        }
    }

    /// One thread's share: runs of neighbours, as long as there are any.
    fn read_runs(
        &self,
        hand: &mut Hand<'_>,
        jobs: &[Job],
        runs: &[std::ops::Range<usize>],
        next: &AtomicUsize,
    ) -> Result<Vec<Done>, WriteError> {
        let mut dirs: HashMap<usize, Box<dyn SourceDir>> = HashMap::new();
        let mut all = Vec::new();
        if self.looker.manners.is_some_and(Manners::is_idle) {
            Manners::idle_thread();
        }
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            for job in &jobs[run.clone()] {
                if self.interrupt.is_set() {
                    return Ok(all);
                }
                let done = self.read_one(hand, &mut dirs, job);
                let done = match done.result {
                    Err(FileError::Write(error)) => return Err(error),
                    _ => done,
                };
                self.progress.advance(1, done.bytes);
                all.push(done);
            }
        }
        Ok(all)
    }

    fn read_one(
        &self,
        hand: &mut Hand<'_>,
        dirs: &mut HashMap<usize, Box<dyn SourceDir>>,
        job: &Job,
    ) -> Done {
        let mut remarks = Remarks::default();
        let result = self.entry_of(hand, dirs, job, &mut remarks);
        let bytes = match &result {
            Ok(entry) => match &entry.node {
                Node::File { content, .. } => content.len(),
                _ => 0,
            },
            Err(_) => 0,
        };
        let database = job.path.ends_with(b".db") || job.path.ends_with(b".sqlite");
        Done {
            node: job.node,
            slot: job.slot,
            path: job.path.clone(),
            had: job.had,
            bytes,
            size: job.stat.size,
            database: database && job.stat.kind == InodeKind::File,
            digest: self.digest_of(job.node, job.name(), job),
            // On the heap, because it moves twice, and tens of thousands wait side by side.
            result: result.map(Box::new),
            remarks,
        }
    }

    fn entry_of(
        &self,
        hand: &mut Hand<'_>,
        dirs: &mut HashMap<usize, Box<dyn SourceDir>>,
        job: &Job,
        remarks: &mut Remarks,
    ) -> Result<Entry, FileError> {
        if (self.looker.over)() {
            return Err(FileError::Source { action: "was not read", source: time_is_over() });
        }
        let state = self.nodes.get(job.node);
        let linked = job.stat.nlink > 1;
        let inode = (job.stat.dev, job.stat.ino);
        if linked {
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = links.get(&inode) {
                return Ok(Entry { name: job.name().to_vec(), ..entry.clone() });
            }
        }
        if !dirs.contains_key(&job.node) {
            if dirs.len() > self.looker.anchors_max / self.readers.max(1) {
                dirs.clear();
            }
            dirs.insert(job.node, self.open_again(job.node)?);
        }
        let dir = &*dirs[&job.node];
        let around = Surroundings {
            volume: &state.volume.volume.identity,
            class: self.looker.plan.class(&job.path),
        };
        let (worker, streamer) = (&mut hand.worker, &mut hand.streamer);
        let entry = match job.stat.kind {
            InodeKind::File => {
                file::regular(dir, job.name(), &job.stat, around, worker, streamer, remarks)?
            }
            _ => file::special(dir, job.name(), &job.stat, around, worker, streamer, remarks)?,
        };
        if linked && !remarks.changed && remarks.problems.is_empty() {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            if links.len() < LINKS_MAX {
                links.insert(inode, entry.clone());
            }
        }
        Ok(entry)
    }

    fn open_again(&self, node: usize) -> Result<Box<dyn SourceDir>, FileError> {
        let state = self.nodes.get(node);
        let cannot =
            |source| FileError::Source { action: "its directory cannot be opened", source };
        let dir = state.target.open().map_err(cannot)?;
        let now = dir.stat_self().map_err(cannot)?;
        match &state.stat {
            Some(then) if (then.dev, then.ino) == (now.dev, now.ino) => Ok(dir),
            _ => Err(FileError::Replaced),
        }
    }
}

/// Neighbours that one thread reads, so that what is alike comes into one block.
fn runs(jobs: &[Job], files: usize) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let (mut from, mut bytes) = (0, 0u64);
    for (at, job) in jobs.iter().enumerate() {
        if at - from >= files || (bytes > 0 && bytes + job.stat.size > RUN_BYTES) {
            out.push(from..at);
            (from, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(job.stat.size);
    }
    if from < jobs.len() {
        out.push(from..jobs.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_file_are_neighbours() {
        let mut paths = [
            "/d/apps/1/10/z.js",
            "/d/apps/1/11/a.js",
            "/d/apps/1/10/a.js",
            "/d/apps/1/11/z.js",
            "/d/db/connect.db",
            "/d/apps/1/9/a.js",
        ];
        paths.sort_by_key(|p| sort_key(p.as_bytes()));
        assert_eq!(
            paths,
            [
                "/d/apps/1/10/a.js",
                "/d/apps/1/11/a.js",
                "/d/apps/1/9/a.js",
                "/d/apps/1/10/z.js",
                "/d/apps/1/11/z.js",
                "/d/db/connect.db",
            ]
        );
    }
}
