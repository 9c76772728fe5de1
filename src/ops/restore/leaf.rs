//! What is no directory: files with their chunks, links, special files, and the companions of
//! SQLite databases.

use std::io;
use std::sync::Arc;

use super::attributes::{Before, On};
use super::batch::{FileJob, LinkJob, Walked};
use super::frame::State;
use super::place::DirNode;
use super::run::add;
use super::walk::Walker;
use super::write::Failure;
use super::{Action, RestoreError};
use crate::base::limits;
use crate::format::DecodeError;
use crate::format::content::{ChunkRef, Content};
use crate::format::pack::ChunkKind;
use crate::format::tree::{
    Entry, Layout, Meta, Node, Stretch, StretchMap, data_len, decode_stretches,
};
use crate::host::fs::{InodeKind, SourceDir, Stat, TargetDir};
use crate::store::cut::SQLITE_MAGIC;
use crate::store::reader::ReadError;

/// What SQLite keeps beside a database.
const COMPANIONS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// What ended the reading of a content's list.
enum Ended {
    Read(ReadError),
    Restore(RestoreError),
    Enough,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

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
        let Some(frame) = self.stack.last() else { return Ok(()) };
        if let Node::File { content, layout, .. } = &entry.node
            && frame.state == State::Existing
        {
            self.clear_companions(&entry.name, content, layout)?;
        }
        if let Some(group) = entry.meta.link {
            let place = || (Arc::clone(&node), entry.name.clone());
            if let Some(first) = self.groups.get(&group) {
                let link = LinkJob {
                    node: Arc::clone(&node),
                    name: entry.name,
                    first: first.clone(),
                    staging: self.staging_where_needed(),
                    replaces: there.is_some(),
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
        match self.stretches(&layout, size, &content) {
            Ok(stretches) => job.stretches = stretches,
            Err(error) => return self.run.damaged([job.path()], error),
        }
        job.replaces = there.is_some();
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
        self.chunks(&content)
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

    fn stretches(
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
                let bytes = self.run.input.reader.content(map, limits::EXTENT_MAP_MAX)?;
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

    /// Plans the chunks of the newest job; a long file goes through several batches.
    fn chunks(&mut self, content: &Content) -> Result<(), RestoreError> {
        let (mut offset, mut walked) = (0, Walked::default());
        let reader = self.run.input.reader;
        let ended = reader.data_chunks(content, &mut |chunk: ChunkRef| -> Result<(), Ended> {
            if self.batch.is_full() {
                self.flush_within_file().map_err(Ended::Restore)?;
            }
            match self.batch.jobs.last() {
                Some(job) if !job.has_failed() => {
                    self.batch.push(chunk, &mut offset, &mut walked);
                    Ok(())
                }
                _ => Err(Ended::Enough),
            }
        });
        match ended {
            Ok(()) | Err(Ended::Enough) => Ok(()),
            Err(Ended::Restore(error)) => Err(error),
            Err(Ended::Read(error)) => {
                let job = self.batch.jobs.last().filter(|job| job.fail());
                let path = job.map(FileJob::path);
                self.run.damaged(path, error)
            }
        }
    }

    fn flush_within_file(&mut self) -> Result<(), RestoreError> {
        self.run.check()?;
        if let Some(job) = self.batch.jobs.last_mut() {
            job.last = false;
        }
        self.run.do_batch(&mut self.batch)?;
        if let Some(job) = self.batch.jobs.last_mut() {
            job.last = true;
        }
        Ok(())
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
            let same = run.dirs.open(node).is_ok_and(|dir| is_same(&dir, entry, stat))
                && (entry.meta.link.is_some() || stat.nlink == 1)
                && self.may_stay(&entry.meta, stat);
            if same {
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
        if there.is_some() && staging.is_none() {
            self.displace(node, None, &entry.name, Action::Replace)?;
        }
        let made = match &staging {
            None => run
                .dirs
                .open(node)
                .map_err(Failure::from)
                .and_then(|dir| self.make_special(&dir, &entry.name, entry, &path)),
            Some(staging) => {
                let temp = staging.free_name();
                staging
                    .ensure(&run.dirs)
                    .and_then(|()| run.dirs.open(staging.node()))
                    .map_err(Failure::from)
                    .and_then(|dir| self.make_special(&dir, &temp, entry, &path))
                    .and_then(|()| run.swap(staging, &temp, node, &entry.name))
            }
        };
        match made {
            Ok(()) => run.count_file(0, 0),
            Err(Failure::Os(e)) => run.trouble(path(), "cannot be restored", e)?,
            Err(Failure::Read(e)) => run.damaged([path()], e)?,
            Err(Failure::Restore(e)) => return Err(e),
        }
        Ok(())
    }

    fn make_special(
        &self,
        dir: &TargetDir,
        name: &[u8],
        entry: &Entry,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<(), Failure> {
        let mode = 0o600;
        match &entry.node {
            Node::Symlink { target } => dir.symlink(target, name)?,
            Node::Fifo => dir.mknod(name, InodeKind::Fifo, mode, (0, 0))?,
            Node::Socket => dir.socket(name)?,
            Node::CharDevice { rdev } => dir.mknod(name, InodeKind::CharDevice, mode, *rdev)?,
            Node::BlockDevice { rdev } => dir.mknod(name, InodeKind::BlockDevice, mode, *rdev)?,
            Node::File { .. } | Node::Dir { .. } => return Ok(()),
        }
        let stat = dir.stat(name)?;
        let link = matches!(entry.node, Node::Symlink { .. });
        let before = Before { stat: &stat, attributes: None, link, hold_locks: false };
        self.run.apply(On::Named(dir, name), &entry.meta, &before, path)?;
        Ok(())
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
