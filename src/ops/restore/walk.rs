//! The way through the snapshot's tree, directory by directory: directories are made, what is to be
//! written is planned in batches, and what the snapshot does not hold is taken out of the way.
//!
//! The walker keeps its own stack: trees may be deeper than a thread's stack is long.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::attributes::LOCKING_FLAGS;
use super::batch::{Batch, Finish};
use super::frame::{Frame, State, make_dir};
use super::place::DirNode;
use super::run::{Run, add};
use super::select::{Choice, Is};
use super::staging::{self, Staging};
use super::{Action, RestoreError};
use crate::base::limits;
use crate::format::tree::{Entry, Node};
use crate::host::fs::{InodeKind, SourceDir, Stat};
use crate::tree::cursor::DirCursor;

/// Walks, plans, and hands batches on.
pub(super) struct Walker<'r, 'a> {
    pub(super) run: &'r Run<'a>,
    pub(super) batch: Batch,
    pub(super) stack: Vec<Frame>,
    /// First names of hard-link groups.
    pub(super) groups: HashMap<u64, (Arc<DirNode>, Vec<u8>)>,
    /// Inodes that stay and belong to a group.
    pub(super) kept_inodes: HashMap<((u32, u32), u64), u64>,
    /// Where the walker is in the snapshot.
    pub(super) path: Vec<u8>,
    /// Whether what the snapshot does not hold goes.
    exact: bool,
    staging_name: Vec<u8>,
    staging_prefix: u64,
    /// Staging directories met, with the directory that ends after they are gone.
    holders: Vec<(Arc<Staging>, Option<Finish>)>,
    /// The end of the target itself.
    pub(super) root_finish: Option<Finish>,
}

impl<'r, 'a> Walker<'r, 'a> {
    pub(super) fn new(run: &'r Run<'a>, prefix: u64) -> Self {
        let input = run.input;
        let exact = match run.in_place {
            true => !input.keep_extra && (input.delete || run.select.is_whole()),
            false => input.delete,
        };
        Self {
            run,
            batch: Batch::default(),
            stack: Vec::new(),
            groups: HashMap::new(),
            kept_inodes: HashMap::new(),
            path: Vec::new(),
            exact,
            staging_name: staging::name_for(&input.snapshot.id()),
            staging_prefix: prefix,
            holders: Vec::new(),
            root_finish: None,
        }
    }

    /// Begins at an open directory.
    pub(super) fn start(
        &mut self,
        root: Arc<DirNode>,
        entry: Entry,
        cursor: Option<DirCursor>,
        state: State,
        own_meta: bool,
    ) -> Result<(), RestoreError> {
        let Node::Dir { tree, partial } = entry.node else {
            return Err(RestoreError::Usage("the root of a restore is a directory".into()));
        };
        let choice = self.run.select.choose(&self.path_or_root(), Is::Way, false);
        let mut frame = Frame {
            node: root,
            cursor: cursor.unwrap_or_else(|| DirCursor::new(tree)),
            tree,
            meta: own_meta.then_some(entry.meta),
            taken: choice == Choice::Take,
            partial: partial || !own_meta,
            state,
            staging: None,
            names: Vec::new(),
            dev: (0, 0),
            mount_root: false,
            path_len: self.path.len(),
        };
        if state == State::Existing {
            let opened = self.run.dirs.open(&frame.node).and_then(|dir| {
                frame.dev = dir.stat_self()?.dev;
                self.names(&frame.node)
            });
            frame.names =
                opened.map_err(|source| RestoreError::Io { path: frame.node.path(), source })?;
        }
        self.set_staging(&mut frame, None);
        self.stack.push(frame);
        Ok(())
    }

    fn path_or_root(&self) -> Vec<u8> {
        if self.path.is_empty() { b"/".to_vec() } else { self.path.clone() }
    }

    /// Walks to the end and does all that was planned.
    pub(super) fn walk(&mut self) -> Result<(), RestoreError> {
        while let Some(frame) = self.stack.last_mut() {
            self.run.check()?;
            match frame.cursor.next(self.run.input.reader) {
                Ok(Some(entry)) => self.entry(entry)?,
                Ok(None) => self.leave()?,
                Err(error) => {
                    let path = frame.node.path();
                    // Without its names nobody can tell what is too much in it.
                    frame.names.clear();
                    self.run.damaged([path], error)?;
                }
            }
            if self.batch.is_full() {
                self.run.do_batch(&mut self.batch)?;
            }
        }
        self.run.do_batch(&mut self.batch)?;
        self.run.finish_late()?;
        for (staging, finish) in std::mem::take(&mut self.holders) {
            if !self.run.input.dry_run {
                self.run.clear_staging(&staging)?;
            }
            if let Some(finish) = finish {
                self.run.finish_dir(&finish)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), RestoreError> {
        let path_len = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(&entry.name);
        let done = self.choose_entry(entry);
        // A directory that was entered keeps its path until it is left.
        if self.stack.last().is_none_or(|frame| frame.path_len <= path_len) {
            self.path.truncate(path_len);
        }
        done
    }

    fn choose_entry(&mut self, entry: Entry) -> Result<(), RestoreError> {
        let is_dir = matches!(entry.node, Node::Dir { .. });
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        let select = &self.run.select;
        let choice = match frame.taken && select.is_simple() {
            true => Choice::Take,
            false => select.choose(&self.path, Is::of(&entry.node), frame.taken),
        };
        match (choice, is_dir) {
            (Choice::Skip, _) | (Choice::Descend, false) => {
                frame.meets(&entry.name);
                Ok(())
            }
            (_, true) => self.enter(entry, choice),
            (Choice::Take, false) => self.leaf(entry),
        }
    }

    fn enter(&mut self, entry: Entry, choice: Choice) -> Result<(), RestoreError> {
        if self.stack.len() >= limits::DEPTH_MAX {
            self.run.problems.note(self.path.clone(), "directories are too deep");
            return Ok(());
        }
        let Node::Dir { tree, partial } = entry.node else { return Ok(()) };
        let Some(parent) = self.stack.last_mut() else { return Ok(()) };
        let there = parent.meets(&entry.name);
        let node = self.run.dirs.node(&parent.node, &entry.name);
        let (parent_node, parent_staging) = (Arc::clone(&parent.node), parent.staging.clone());
        let mut frame = Frame {
            node,
            cursor: DirCursor::new(tree),
            tree,
            meta: Some(entry.meta),
            taken: choice == Choice::Take,
            partial,
            state: State::Unmade,
            staging: None,
            names: Vec::new(),
            dev: parent.dev,
            mount_root: false,
            path_len: self.path.len(),
        };
        if there {
            let stat = match self.run.dirs.open(&parent_node).and_then(|d| d.stat(&entry.name)) {
                Ok(stat) => Some(stat),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return self.run.trouble(frame.node.path(), "cannot be looked at", e),
            };
            match stat {
                Some(stat) if stat.kind == InodeKind::Dir => {
                    let entered = self.take_over(&mut frame, &stat)?;
                    if !entered {
                        return Ok(());
                    }
                }
                Some(_) => {
                    if self.run.in_place && (partial || !frame.taken) {
                        let path = crate::base::path::printable(&frame.node.path());
                        let said = format!("{path} is a directory in the snapshot, and not here");
                        return Err(RestoreError::Refused(said));
                    }
                    self.displace(
                        &parent_node,
                        parent_staging.as_ref(),
                        &entry.name,
                        Action::Replace,
                    )?;
                }
                None => {}
            }
        }
        let parent = self.stack.len() - 1;
        self.set_staging(&mut frame, Some(parent));
        self.stack.push(frame);
        if choice == Choice::Take && !self.make_unmade()? {
            self.abandon();
        }
        Ok(())
    }

    /// Takes the top directory off without doing anything more in it.
    fn abandon(&mut self) {
        self.stack.pop();
        let len = self.stack.last().map_or(0, |frame| frame.path_len);
        self.path.truncate(len);
    }

    /// An existing directory: its names, and the way into it. False where it is to be left alone.
    fn take_over(&self, frame: &mut Frame, stat: &Stat) -> Result<bool, RestoreError> {
        let run = self.run;
        let left_out =
            |m: &&crate::format::manifest::MountRecord| !m.crossed && m.path.0 == self.path;
        if stat.mount_root && run.input.snapshot.body().mounts.iter().any(|m| left_out(&m)) {
            return Ok(false);
        }
        if run.select.keeps_inode(stat) {
            run.problems.note(frame.node.path(), "is left alone: cabk itself needs it");
            return Ok(false);
        }
        frame.state = State::Existing;
        frame.dev = stat.dev;
        frame.mount_root = stat.mount_root;
        let ours = !run.in_place || (frame.taken && !frame.partial);
        let open = || -> io::Result<Vec<(Vec<u8>, bool)>> {
            if ours && !run.input.dry_run {
                if !run.privileged && stat.mode & 0o700 != 0o700 {
                    let parent = frame.node.above().ok_or(io::ErrorKind::InvalidInput)?;
                    run.dirs.open(parent)?.chmod(frame.node.name(), stat.mode | 0o700)?;
                }
                let dir = run.dirs.open(&frame.node)?;
                let flags = dir.source().attributes_self()?.flags.unwrap_or(0);
                if flags & LOCKING_FLAGS != 0 {
                    dir.set_flags_self(flags & !LOCKING_FLAGS)?;
                }
            }
            self.names(&frame.node)
        };
        match open() {
            Ok(names) => {
                frame.names = names;
                Ok(true)
            }
            Err(e) => run.trouble(frame.node.path(), "cannot be entered", e).map(|()| false),
        }
    }

    fn names(&self, node: &DirNode) -> io::Result<Vec<(Vec<u8>, bool)>> {
        let dir = self.run.dirs.open(node)?;
        let mut names: Vec<_> = dir.names()?.into_iter().map(|n| (n.name, false)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// In place: where new files are made and replaced ones wait. One for each mount and each
    /// source, because only there a rename is possible.
    fn set_staging(&mut self, frame: &mut Frame, parent: Option<usize>) {
        if !self.run.in_place {
            return;
        }
        let above = parent.and_then(|at| self.stack.get(at));
        let shared =
            above.filter(|p| p.taken && !p.partial && p.dev == frame.dev && !frame.mount_root);
        frame.staging = match shared.and_then(|p| p.staging.clone()) {
            Some(staging) => Some(staging),
            None => {
                let dirs = &self.run.dirs;
                Some(Staging::new(dirs, &frame.node, &self.staging_name, self.staging_prefix))
            }
        };
    }

    /// Makes the directories of the stack that are not there. False where one cannot be made.
    pub(super) fn make_unmade(&mut self) -> Result<bool, RestoreError> {
        let from = self.stack.iter().rposition(|f| f.state != State::Unmade).map_or(0, |at| at + 1);
        for at in from..self.stack.len() {
            let guest =
                at.checked_sub(1).and_then(|p| self.stack.get(p)).is_some_and(Frame::hands_on);
            let run = self.run;
            let frame = &mut self.stack[at];
            frame.state = State::Fresh;
            add(&run.counts.dirs, 1);
            if run.input.dry_run {
                run.plan(Action::Create, frame.node.path(), 0);
                continue;
            }
            if let Err(e) = make_dir(run, frame, guest) {
                let path = frame.node.path();
                run.trouble(path, "cannot be made", e)?;
                return Ok(false);
            }
            if run.in_place
                && (frame.partial || !frame.taken)
                && let Some(meta) = frame.meta.clone()
            {
                let node = Arc::clone(&frame.node);
                run.finish_or_postpone(Finish { node, meta, fresh: true })?;
            }
        }
        Ok(true)
    }

    /// Ends the top directory: what is too much goes, attributes follow with the batch.
    fn leave(&mut self) -> Result<(), RestoreError> {
        let removes = self
            .stack
            .last()
            .is_some_and(|f| self.exact && f.taken && !f.partial && f.state == State::Existing);
        if removes {
            self.remove_extras()?;
        }
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let len = self.stack.last().map_or(0, |f| f.path_len);
        self.path.truncate(len);
        if frame.state == State::Unmade {
            return Ok(());
        }
        let fresh = frame.state == State::Fresh;
        let whole = frame.taken && !frame.partial;
        let finishes = (fresh || whole || !self.run.in_place) && !(self.run.input.dry_run && fresh);
        if frame.state == State::Existing {
            add(&self.run.counts.dirs, 1);
        }
        let finish = frame.meta.filter(|_| finishes).map(|meta| Finish {
            node: Arc::clone(&frame.node),
            meta,
            fresh,
        });
        let holds = frame.staging.as_ref().is_some_and(|s| Arc::ptr_eq(s.holder(), &frame.node));
        if let Some(staging) = frame.staging.filter(|_| holds) {
            let left = frame.names.binary_search_by(|(n, _)| n.cmp(&self.staging_name)).is_ok();
            if left && !self.run.input.dry_run {
                let path = staging.node().path();
                staging
                    .ensure(&self.run.dirs)
                    .map_err(|source| RestoreError::Io { path, source })?;
            }
            // Somebody else holds on to it where something is planned there.
            if staging.is_made() || Arc::strong_count(&staging) > 1 {
                self.holders.push((staging, finish));
            } else if frame.node.above().is_none() {
                self.root_finish = finish;
            } else {
                self.batch.finish.extend(finish);
            }
        } else if frame.node.above().is_none() {
            self.root_finish = finish;
        } else {
            self.batch.finish.extend(finish);
        }
        Ok(())
    }

    fn remove_extras(&mut self) -> Result<(), RestoreError> {
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        let names = std::mem::take(&mut frame.names);
        let (node, staging) = (Arc::clone(&frame.node), frame.staging.clone());
        for (name, known) in &names {
            let ours = *name == self.staging_name
                || (node.above().is_none() && name == super::marker::NAME);
            if *known || ours {
                continue;
            }
            self.run.check()?;
            let len = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            let kept = self.run.select.keeps_extra(&self.path, true);
            let below = !kept && self.holds_kept(&node, name)?;
            self.path.truncate(len);
            if below {
                self.run.problems.note(node.path_of(name), "is left: something in it is kept");
            } else if !kept {
                self.displace(&node, staging.as_ref(), name, Action::Remove)?;
            }
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.names = names;
        }
        Ok(())
    }

    /// Whether the name at hand is, or holds, something that is left alone.
    pub(super) fn holds_kept(&self, node: &DirNode, name: &[u8]) -> Result<bool, RestoreError> {
        let select = &self.run.select;
        if select.keeps_below(&self.path) {
            return Ok(true);
        }
        if !select.knows_inodes() {
            return Ok(false);
        }
        match self.run.dirs.open(node).and_then(|dir| dir.stat(name)) {
            Ok(stat) => Ok(select.keeps_inode(&stat) || select.keeps_below_inode(&stat)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // What cannot be looked at is not taken away either.
            Err(e) => self.run.trouble(node.path_of(name), "cannot be looked at", e).map(|()| true),
        }
    }

    /// Takes a name out of the way, or says that it would.
    pub(super) fn displace(
        &self,
        node: &Arc<DirNode>,
        staging: Option<&Arc<Staging>>,
        name: &[u8],
        why: Action,
    ) -> Result<(), RestoreError> {
        if why == Action::Remove {
            add(&self.run.counts.removed, 1);
        }
        if self.run.input.dry_run {
            if why == Action::Remove {
                self.run.plan(why, node.path_of(name), 0);
            }
            return Ok(());
        }
        self.run.out_of_the_way(staging, node, name)
    }
}
