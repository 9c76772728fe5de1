//! The engine of a read: directories are looked at by all threads, depth first, and taken in by one
//! in the order in which they were asked for; files that must be read are gathered into windows,
//! sorted and read by all threads; a directory whose entries are complete becomes pages and is let
//! go. At no time is more held than a window and the directories on the way to it.

mod build;
mod jobs;
mod known;
mod names;
mod node;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, mpsc};

use super::digest::{self, Digest};
use super::dirty::Fate;
use super::file::FileError;
use super::first::FirstLook;
use super::manners::Manners;
use super::names::{NamesLook, Wanted};
use super::scan::{Look, LookError, Looker, Target};
use super::seen::Seen;
use super::stream::Streamer;
use super::threads::Threads;
use crate::base::path::join;
use crate::base::progress::Progress;
use crate::format::tree::{Entry, Node};
use crate::host::fs::InodeKind;
use crate::host::signal::Interrupt;
use crate::store::accelerator::{AcceleratorError, Generation};
use crate::store::reader::ReadError;
use crate::store::writer::{Worker, WriteError};
use build::Waiting;
use jobs::Job;
pub(super) use known::Before;
use node::{Nodes, Slot, SlotState};

/// Directories that one thread looks at in a row.
const BATCH: usize = 32;
/// Batches on their way for each thread, so that none waits while results are taken in.
const BATCHES_AHEAD: usize = 4;
/// A window of files is read when it has this many bytes ...
const WINDOW_BYTES: u64 = 256 << 20;
/// ... or this many files.
const WINDOW_FILES: usize = 32 << 10;

/// Why a read ended early. A file or directory that cannot be read is no such reason: it is a
/// problem of the result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// The way to rest.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The way back, of trees of the last run.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The local index.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// A signal.
    #[error("interrupted")]
    Interrupted,
    /// The machine gives no threads.
    #[error("no threads to read with")]
    Threads(#[source] rayon::ThreadPoolBuildError),
}

/// The engine.
pub(super) struct Engine<'a> {
    pub(super) looker: Arc<Looker<'a>>,
    pub(super) generation: Generation,
    pub(super) interrupt: &'a Interrupt,
    pub(super) progress: &'a dyn Progress,
    /// Sort windows for solid blocks (first snapshots).
    pub(super) sort: bool,
    pool: Arc<rayon::ThreadPool>,
    pub(super) hands: Vec<Hand<'a>>,
    /// Threads that read.
    readers: usize,
    pub(super) first_look: FirstLook,
    pub(super) before: Option<Before>,
    pub(super) seen: Seen,
    pub(super) links: Mutex<HashMap<InodeId, Entry>>,
    nodes: Nodes,
    stack: Vec<usize>,
    jobs: Vec<Job>,
    job_bytes: u64,
    /// Entries of the roots, as far as they are built.
    roots: Vec<Option<Entry>>,
    root: Option<usize>,
    /// Complete directories that wait to be built; none where they do not wait.
    later: Option<Waiting>,
}

/// What was looked at of a directory.
enum Looked {
    All(Box<Result<Look, LookError>>),
    Names(Box<NamesLook>),
}

/// A directory that is to be looked at, or only some of its files.
type Asked = (Target, Option<Wanted>);

fn look_at(looker: &Looker<'_>, (target, wanted): &Asked) -> Looked {
    match wanted.as_ref().and_then(|wanted| looker.look_names(target, wanted)) {
        Some(names) => Looked::Names(Box::new(names)),
        None => Looked::All(Box::new(looker.look(target))),
    }
}

/// An inode within one run: device and number.
type InodeId = ((u32, u32), u64);

/// What one reading thread works with.
pub(super) struct Hand<'w> {
    pub(super) worker: Worker<'w>,
    pub(super) streamer: Streamer<'w>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        looker: Looker<'a>,
        generation: Generation,
        interrupt: &'a Interrupt,
        progress: &'a dyn Progress,
        sort: bool,
        threads: Threads,
    ) -> Result<Self, IntakeError> {
        let mut pool = rayon::ThreadPoolBuilder::new().num_threads(threads.look);
        // A pool of its own, so that nothing has to be given back for the window.
        if looker.manners.is_some_and(Manners::is_idle) {
            pool = pool.start_handler(|_| Manners::idle_thread());
        }
        let pool = pool.build().map_err(IntakeError::Threads)?;
        let first_look = FirstLook::begun(looker.synced);
        let hand = |_| {
            let worker = looker.writer.worker()?;
            let streamer = Streamer::new(looker.over, looker.manners, interrupt);
            Ok::<_, WriteError>(Hand { worker, streamer })
        };
        let hands = (0..threads.read).map(hand).collect::<Result<_, _>>()?;
        Ok(Self {
            looker: Arc::new(looker),
            generation,
            interrupt,
            progress,
            sort,
            pool: Arc::new(pool),
            hands,
            readers: threads.read,
            first_look,
            before: None,
            seen: Seen::default(),
            links: Mutex::default(),
            nodes: Nodes::default(),
            stack: Vec::new(),
            jobs: Vec::new(),
            job_bytes: 0,
            roots: Vec::new(),
            root: None,
            later: None,
        })
    }

    /// Complete directories wait from now on, until [`Self::build_waiting`].
    pub(super) fn build_later(&mut self) {
        self.later = Some(Waiting::none());
    }

    /// Reads a directory and all below it. Its place among the roots, for [`Self::root_entry`].
    pub(super) fn read_root(&mut self, target: Target) -> Result<usize, IntakeError> {
        let known = self.known_root(&target.trail.path());
        let root = self.nodes.add(None, target);
        let place = self.roots.len();
        self.roots.push(None);
        let state = self.nodes.get_mut(root);
        (state.known, state.root) = (known, Some(place));
        self.root = Some(root);
        self.stack.push(root);
        let (looker, pool) = (Arc::clone(&self.looker), Arc::clone(&self.pool));
        let looker = &*looker;
        let interrupt = self.interrupt;
        let ahead = BATCHES_AHEAD * pool.current_num_threads();
        pool.in_place_scope(|scope| {
            let mut under_way = VecDeque::new();
            loop {
                if self.interrupt.is_set() {
                    return Err(IntakeError::Interrupted);
                }
                while under_way.len() < ahead && !self.stack.is_empty() {
                    let (nodes, targets) = self.next_batch();
                    let (send, looks) = mpsc::sync_channel(1);
                    scope.spawn(move |_| {
                        if let Some(manners) = looker.manners {
                            manners.give_way(interrupt);
                        }
                        let looks: Vec<_> =
                            targets.iter().map(|one| look_at(looker, one)).collect();
                        // Nobody waits where the read has failed meanwhile.
                        let _ = send.send(looks);
                    });
                    under_way.push_back((nodes, looks));
                }
                let Some((nodes, looks)) = under_way.pop_front() else { return Ok(()) };
                // A look that panicked sends nothing: the scope goes on with its panic.
                let Ok(looks) = looks.recv() else { return Err(IntakeError::Interrupted) };
                self.take_all(nodes, looks)?;
            }
        })?;
        self.run_window()?;
        Ok(place)
    }

    /// The entry of a root; `None` where it could not be looked at, or is not built yet.
    pub(super) fn root_entry(&mut self, place: usize) -> Option<Entry> {
        self.roots.get_mut(place)?.take()
    }

    /// The next directories, from the top of the stack.
    fn next_batch(&mut self) -> (Vec<usize>, Vec<Asked>) {
        // One by one where each is waited for: a batch would make one thread wait for all of them.
        let batch = if self.looker.far { 1 } else { BATCH };
        let from = self.stack.len().saturating_sub(batch);
        let nodes: Vec<usize> = self.stack.drain(from..).rev().collect();
        let asked = |node: &usize| (self.nodes.get(*node).target.clone(), self.wanted(*node));
        let targets = nodes.iter().map(asked).collect();
        (nodes, targets)
    }

    fn take_all(&mut self, nodes: Vec<usize>, looks: Vec<Looked>) -> Result<(), IntakeError> {
        let mut below = Vec::new();
        for (node, look) in nodes.into_iter().zip(looks) {
            match look {
                Looked::All(look) => match *look {
                    Ok(look) => self.take_in(node, look, &mut below)?,
                    Err(error) => self.give_up(node, error)?,
                },
                Looked::Names(look) => {
                    for child in self.take_names(node, *look, &mut below) {
                        self.pass(child, &mut below)?;
                    }
                }
            }
            if self.job_bytes >= WINDOW_BYTES || self.jobs.len() >= WINDOW_FILES {
                self.run_window()?;
            }
        }
        // The first name is looked at first: it must lie on top.
        self.stack.extend(below.into_iter().rev());
        Ok(())
    }

    /// A directory was looked at: its sub-directories and files come next.
    fn take_in(
        &mut self,
        node: usize,
        look: Look,
        below: &mut Vec<usize>,
    ) -> Result<(), IntakeError> {
        let known = self.known_below(node, &look);
        self.note(node, &look);
        let volume = Arc::clone(&look.listing.volume);
        let state = self.nodes.get_mut(node);
        let trail = state.target.trail.clone();
        let above = trail.path();
        state.stat = Some(look.listing.stat);
        state.volume = look.listing.volume;
        state.key = look.key;
        state.record = look.record;
        state.listing = look.believable;
        state.entries = look.entries;
        state.unchanged = look.unchanged;
        self.note_meta(node, look.attributes)?;
        let mut slots = Vec::with_capacity(look.listing.seen.len());
        let mut pending = 0;
        let mut passed = Vec::new();
        for (slot, mut seen) in look.listing.seen.into_iter().enumerate() {
            let is_dir = seen.stat.kind == InodeKind::Dir;
            let kid = known.get(slot).copied().flatten();
            let has_meta = look.unchanged || seen.known.is_some();
            let state = match (seen.known.take(), kid) {
                (Some(entry), _) if !is_dir => SlotState::Done(entry),
                (entry, Some((kid, Fate::Clean))) if has_meta => self.kept_slot(kid, entry),
                (known, kid) => {
                    pending += 1;
                    if is_dir {
                        let child = look.base.below(&seen, trail.below(&seen.name), &volume);
                        let child = self.nodes.add(Some((node, slot)), child);
                        let fate = kid.map(|(_, fate)| fate).filter(|_| has_meta);
                        let state = self.nodes.get_mut(child);
                        state.known = kid.map(|(kid, _)| kid);
                        state.by_names = fate == Some(Fate::Names);
                        if fate == Some(Fate::Above) {
                            passed.push(child)
                        } else {
                            below.push(child)
                        }
                    } else {
                        let path = join(&above, &seen.name);
                        self.job_bytes += seen.stat.size.min(WINDOW_BYTES);
                        self.jobs.push(Job::new(node, slot, seen.stat, path, seen.had, self.sort));
                    }
                    SlotState::Waiting(known.map(|e| Box::new(e.meta)))
                }
            };
            slots.push(Slot { name: seen.name, state });
        }
        let state = self.nodes.get_mut(node);
        state.slots = slots;
        state.pending = pending;
        for child in passed {
            self.pass(child, below)?;
        }
        if pending == 0 { self.complete(node) } else { Ok(()) }
    }

    fn note(&mut self, node: usize, look: &Look) {
        let listing = &look.listing;
        self.seen.dirs += 1;
        self.seen.files += listing.files;
        self.seen.bytes += listing.bytes;
        self.seen.problems.extend_from_slice(&listing.problems);
        self.seen.mounts.extend_from_slice(&listing.mounts);
        self.seen.left_out.extend_from_slice(&listing.left_out);
        self.seen.still_open.extend_from_slice(&listing.still_open);
        for (uid, gid) in &look.owners {
            self.seen.users.insert(*uid);
            self.seen.groups.insert(*gid);
        }
        let target = &self.nodes.get(node).target;
        let crossed = target.stat.is_some_and(|s| s.mount_root)
            || !Arc::ptr_eq(&target.volume, &listing.volume);
        if crossed && self.root != Some(node) {
            let fs_type = listing.volume.volume.fs_type.clone();
            self.seen.mounts.push((target.trail.path(), fs_type, true));
        }
        self.note_in_first_look(node, look, crossed);
    }

    /// A directory could not be looked at: its entry stays, without content, and the problem is told.
    fn give_up(&mut self, node: usize, error: LookError) -> Result<(), IntakeError> {
        let path = self.nodes.get(node).target.trail.path();
        match error {
            LookError::Fatal(error) => return Err(error.into()),
            LookError::LeftOut(volume) => self.seen.mounts.push((path, volume.fs_type, false)),
            LookError::Source(what, error) => {
                self.seen.problems.push((path, format!("{what}: {error}")));
            }
            LookError::Replaced => {
                let said = "turned into something else while it was looked at";
                self.seen.problems.push((path, said.into()));
            }
        }
        let state = self.nodes.get_mut(node);
        state.failed = true;
        let Some((above, _)) = state.parent else {
            self.nodes.remove(node);
            return Ok(());
        };
        self.mark_odd(above);
        self.note_meta(node, None)?;
        self.complete(node)
    }

    /// Reads the files of the window and completes directories.
    fn run_window(&mut self) -> Result<(), IntakeError> {
        self.job_bytes = 0;
        let jobs = std::mem::take(&mut self.jobs);
        if jobs.is_empty() {
            return Ok(());
        }
        for done in self.read_jobs(jobs)?.into_iter().flatten() {
            let path = done.path;
            self.seen.databases.extend(done.database.then(|| path.clone()));
            // A problem is told by each run, so what has one is read by each.
            let doubtful = done.remarks.changed || !done.remarks.problems.is_empty();
            for problem in done.remarks.problems {
                self.seen.problems.push((path.clone(), problem));
            }
            if done.remarks.changed {
                let said = "changed while it was read, each time that was tried";
                self.seen.problems.push((path.clone(), said.into()));
            }
            let state = match done.result {
                Ok(entry) => {
                    let size =
                        if let Node::File { size, .. } = entry.node { size } else { done.size };
                    if size != done.size {
                        self.mark_uncounted(done.node);
                    }
                    let counter = if done.had {
                        &mut self.seen.files_changed
                    } else {
                        &mut self.seen.files_new
                    };
                    *counter += 1;
                    self.seen.bytes_read += done.bytes;
                    SlotState::Done(entry)
                }
                Err(FileError::Write(error)) => return Err(error.into()),
                Err(error) => {
                    let said = with_source(&error);
                    self.seen.problems.push((path, said));
                    SlotState::Gone
                }
            };
            let node = self.nodes.get_mut(done.node);
            if doubtful || matches!(state, SlotState::Gone) {
                node.doubt(&done.digest);
                self.mark_odd(done.node);
            }
            let node = self.nodes.get_mut(done.node);
            node.slots[done.slot].state = state;
            node.pending -= 1;
            if node.pending == 0 {
                self.complete(done.node)?;
            }
        }
        Ok(())
    }

    /// The digest under which a name was kept, to be taken back where it could not be read.
    pub(super) fn digest_of(&self, node: usize, name: &[u8], job: &Job) -> Digest {
        let namer = self.looker.reader.repository().namer();
        digest::entry(namer, &self.nodes.get(node).volume.volume.identity, name, &job.stat)
    }

    /// Builds what waits, and closes the workers' blocks: all that was read is on its way to rest.
    /// The first look is finished.
    pub(super) fn finish(mut self) -> Result<(Seen, FirstLook), IntakeError> {
        self.build_waiting()?;
        self.count_kept();
        for hand in self.hands {
            self.seen.users.extend(hand.streamer.users);
            self.seen.groups.extend(hand.streamer.groups);
            hand.worker.finish()?;
        }
        self.looker.reader.accelerator().flush_dirs()?;
        Ok((self.seen, self.first_look))
    }
}

/// An error with its cause, for a problem's text.
pub(super) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
