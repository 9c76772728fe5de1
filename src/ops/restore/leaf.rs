//! What is no directory: files with their chunks, links, special files, and the companions of
//! SQLite databases.

use std::io;
use std::sync::Arc;

use super::batch::{FileJob, LinkJob};
use super::chunks::Ended;
use super::frame::{Frame, State};
use super::place::DirNode;
use super::run::add;
use super::walk::Walker;
use super::write::Failure;
use super::{Action, RestoreError};
use crate::format::content::{ChunkRef, Content};
use crate::format::pack::ChunkKind;
use crate::format::tree::{Entry, Layout, Meta, Node, StretchMap};
use crate::host::fs::{InodeKind, SourceDir, Stat, TargetDir};
use crate::store::cut::SQLITE_MAGIC;

/// What SQLite keeps beside a database.
const COMPANIONS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

impl Walker<'_, '_> {
    /// Restores what is no directory, in the top directory.
    pub(super) fn leaf(&mut self, entry: Entry) -> Result<(), RestoreError> {
        if !self.make_unmade()? {
            return Ok(());
        }
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        let node = Arc::clone(&frame.node);
        let mut there = None;
        if frame.meets(&entry.name) {
            there = match self.run.dirs.open(&node).and_then(|dir| dir.stat(&entry.name)) {
                Ok(stat) => Some(stat),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => {
                    return self.run.trouble(node.path_of(&entry.name), "cannot be looked at", e);
                }
            };
        }
        if there.is_some_and(|stat| stat.kind == InodeKind::Dir)
            && self.holds_kept(&node, &entry.name)?
        {
            self.run.problems.note(node.path_of(&entry.name), "is left: something in it is kept");
            return Ok(());
        }
        let Some(state) = self.stack.last().map(|frame| frame.state) else { return Ok(()) };
        if state == State::Existing && !self.after_its_database(&node, &entry.name)? {
            return Ok(());
        }
        if let Node::File { content, layout, .. } = &entry.node
            && state == State::Existing
        {
            self.clear_companions(&entry.name, content, layout)?;
        }
        if let Some(group) = entry.meta.link {
            let place = || (Arc::clone(&node), entry.name.clone());
            if let Some(first) = self.groups.get(&group) {
                let link = LinkJob {
                    node: Arc::clone(&node),
                    entry: Box::new(entry),
                    first: first.clone(),
                    staging: self.staging_where_needed(),
                    replaces: there.is_some(),
                    guest: self.stack.last().is_none_or(Frame::hands_on),
                };
                self.batch.links.push(link);
                return Ok(());
            }
            self.groups.insert(group, place());
        }
        match entry.node {
            Node::File { .. } => self.file(entry, node, there),
            _ => self.special(&entry, &node, there.as_ref()),
        }
    }

    /// In place, new files go into an existing directory by a rename.
    fn staging_where_needed(&self) -> Option<Arc<super::staging::Staging>> {
        let frame = self.stack.last().filter(|f| f.state == State::Existing)?;
        frame.staging.clone()
    }

    fn file(
        &mut self,
        entry: Entry,
        node: Arc<DirNode>,
        there: Option<Stat>,
    ) -> Result<(), RestoreError> {
        let Node::File { size, content, hash, layout } = entry.node else { return Ok(()) };
        let mut job = FileJob::new(node, entry.name, entry.meta, size, hash);
        match self.run.stretches(&layout, size, &content) {
            Ok(stretches) => job.stretches = stretches,
            Err(error) => return self.run.damaged([job.path()], error),
        }
        job.replaces = there.is_some();
        job.guest = self.stack.last().is_none_or(Frame::hands_on);
        let staging = self.staging_where_needed();
        let staged = staging.is_some();
        job.staged = staging.map(|staging| {
            let name = staging.free_name();
            (staging, name)
        });
        if let Some(stat) = there {
            let same = stat.kind == InodeKind::File && stat.size == size;
            if same && self.may_stay(&job.meta, &stat) {
                job.there = Some(Box::new(stat));
            } else if !staged {
                self.displace(&job.node, None, &job.name, Action::Replace)?;
            }
        }
        if content.level > 0 && job.there.is_some() {
            // Long lists are not read for nothing.
            self.run.compare(&job)?;
            job.there = None;
            if job.is_over() {
                return Ok(());
            }
        }
        self.batch.jobs.push(job);
        self.run.chunks(&mut self.batch, &content)
    }

    /// Whether an inode with several names can be the one that the snapshot means.
    fn may_stay(&mut self, meta: &Meta, stat: &Stat) -> bool {
        match meta.link {
            Some(group) if self.run.in_place && stat.nlink > 1 => {
                *self.kept_inodes.entry((stat.dev, stat.ino)).or_insert(group) == group
            }
            _ => true,
        }
    }

    fn special(
        &mut self,
        entry: &Entry,
        node: &Arc<DirNode>,
        there: Option<&Stat>,
    ) -> Result<(), RestoreError> {
        let run = self.run;
        let path = || node.path_of(&entry.name);
        if let Some(stat) = there {
            let dir = run.dirs.open(node).ok().filter(|dir| is_same(dir, entry, stat));
            let same =
                (entry.meta.link.is_some() || stat.nlink == 1) && self.may_stay(&entry.meta, stat);
            // In place it is made anew where an attribute differs: by its name alone nobody can
            // hold on to it.
            let anew = |dir: &TargetDir| run.differs(dir, entry, stat).unwrap_or(true);
            let in_place = run.in_place && !run.input.dry_run;
            if let Some(dir) = dir.filter(|dir| same && !(in_place && anew(dir))) {
                drop(dir);
                if in_place {
                    add(&run.counts.equal, 1);
                    run.count_file(0, 0);
                    return Ok(());
                }
                add(&run.counts.equal, 1);
                run.count_file(0, 0);
                return run.mend(node, &entry.name, stat, &entry.meta, path);
            }
        }
        if run.input.dry_run {
            run.plan(if there.is_some() { Action::Replace } else { Action::Create }, path(), 0);
            return Ok(());
        }
        let staging = self.staging_where_needed();
        let guest = self.stack.last().is_none_or(Frame::hands_on);
        if there.is_some() && staging.is_none() {
            self.displace(node, None, &entry.name, Action::Replace)?;
        }
        let made = run.put_special(entry, node, staging.as_ref(), guest);
        match made {
            Ok(()) => run.count_file(0, 0),
            Err(Failure::Os(e)) => run.trouble(path(), "cannot be restored", e)?,
            Err(Failure::Read(e)) => run.damaged([path()], e)?,
            Err(Failure::Restore(e)) => return Err(e),
        }
        Ok(())
    }

    /// In place, what SQLite keeps beside a database comes only when the database is there: an end
    /// in between must not leave the snapshot's log beside an older one, which SQLite would play
    /// into it. False where the database could not be restored.
    fn after_its_database(
        &mut self,
        node: &Arc<DirNode>,
        name: &[u8],
    ) -> Result<bool, RestoreError> {
        let base = COMPANIONS.iter().find_map(|suffix| name.strip_suffix(*suffix));
        let Some(base) = base.filter(|_| self.run.in_place && !self.run.input.dry_run) else {
            return Ok(true);
        };
        let batch = &self.batch;
        let is_base = |at: &Arc<DirNode>, name: &[u8]| Arc::ptr_eq(at, node) && name == base;
        if batch.jobs.iter().any(|job| is_base(&job.node, &job.name))
            || batch.links.iter().any(|link| is_base(&link.node, &link.entry.name))
        {
            self.run.do_batch(&mut self.batch)?;
        }
        if self.batch.failed.iter().any(|(at, name)| is_base(at, name)) {
            let said = "is left out: the database that it belongs to could not be restored";
            self.run.problems.note(node.path_of(name), said);
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes away what an older database left beside the place of this one: SQLite would play an old
    /// log into the restored database, and no check of its own would notice. Companions that the
    /// snapshot holds too go first where they differ, so that none ever stands beside a database
    /// that it does not belong to.
    fn clear_companions(
        &mut self,
        name: &[u8],
        content: &Content,
        layout: &Layout,
    ) -> Result<(), RestoreError> {
        let mut is_sqlite = None;
        for suffix in COMPANIONS {
            let companion = [name, suffix].concat();
            let Some(frame) = self.stack.last() else { return Ok(()) };
            if !frame.has(&companion) {
                continue;
            }
            if is_sqlite.is_none() {
                is_sqlite = Some(self.is_sqlite(content, layout)?);
            }
            if is_sqlite != Some(true) {
                return Ok(());
            }
            let node = Arc::clone(&frame.node);
            let held = match &frame.tree {
                Some(tree) => self.run.input.reader.lookup(tree, &companion),
                None => Ok(None),
            };
            let held = match held {
                Ok(held) => held.filter(|_| self.is_chosen(&companion)),
                Err(error) => return self.run.damaged([node.path_of(&companion)], error),
            };
            if let Some(Entry { meta, node: Node::File { size, .. }, .. }) = &held
                && let Ok(stat) = self.run.dirs.open(&node).and_then(|dir| dir.stat(&companion))
                && (stat.kind, stat.size, stat.mtime) == (InodeKind::File, *size, meta.mtime)
            {
                continue;
            }
            let why = if held.is_some() { Action::Replace } else { Action::Remove };
            let staging = self.stack.last().and_then(|frame| frame.staging.clone());
            self.displace(&node, staging.as_ref(), &companion, why)?;
            if let Some(frame) =
                self.stack.last_mut().filter(|_| !self.run.input.dry_run || why == Action::Remove)
            {
                frame.lose(&companion);
            }
        }
        Ok(())
    }

    /// Whether a name beside the one at hand is restored.
    fn is_chosen(&self, name: &[u8]) -> bool {
        let Some(slash) = self.path.iter().rposition(|&b| b == b'/') else { return true };
        let path = [&self.path[..=slash], name].concat();
        let taken = self.stack.last().is_some_and(|frame| frame.is_taken());
        self.run.select.choose(&path, super::select::Is::Leaf, taken) == super::select::Choice::Take
    }

    fn is_sqlite(&self, content: &Content, layout: &Layout) -> Result<bool, RestoreError> {
        if let Layout::Sparse { map: StretchMap::Inline(list), .. } = layout
            && list.iter().find(|s| !s.unwritten).is_none_or(|s| s.offset != 0)
        {
            return Ok(false);
        }
        let reader = self.run.input.reader;
        let mut first = None;
        let ended = reader.data_chunks(content, &mut |chunk: ChunkRef| -> Result<(), Ended> {
            first = Some(reader.chunk(ChunkKind::Data, &chunk.id)?);
            Err(Ended::Enough)
        });
        match ended {
            Ok(()) | Err(Ended::Enough) => {
                Ok(first.is_some_and(|bytes: Vec<u8>| bytes.starts_with(SQLITE_MAGIC)))
            }
            Err(Ended::Restore(error)) => Err(error),
            // The file itself will be found damaged; what lies beside it is then left.
            Err(Ended::Read(error)) if super::error::is_damage(&error) => Ok(false),
            Err(Ended::Read(error)) => Err(RestoreError::Read(Box::new(error))),
        }
    }
}

/// Whether what is there is what the snapshot holds, attributes aside.
fn is_same(dir: &TargetDir, entry: &Entry, there: &Stat) -> bool {
    match &entry.node {
        Node::Symlink { target } => {
            there.kind == InodeKind::Symlink
                && dir.source().read_link(&entry.name).is_ok_and(|found| found == *target)
        }
        Node::Fifo => there.kind == InodeKind::Fifo,
        Node::Socket => there.kind == InodeKind::Socket,
        Node::CharDevice { rdev } => there.kind == InodeKind::CharDevice && there.rdev == *rdev,
        Node::BlockDevice { rdev } => there.kind == InodeKind::BlockDevice && there.rdev == *rdev,
        Node::File { .. } | Node::Dir { .. } => false,
    }
}
