//! Cutting a stream into chunks and keeping them.

use std::collections::BTreeSet;
use std::io;

use super::manners::Manners;
use super::scan::time_is_over;
use crate::base::id::{ChunkId, ContentHash};
use crate::format::acl::{self, Who};
use crate::format::content::{ChunkRef, Content};
use crate::format::pack::{ChunkKind, Class};
use crate::host::signal::Interrupt;
use crate::store::cut::{Cutting, cutting_for};
use crate::store::lists::ContentBuilder;
use crate::store::writer::{Worker, WriteError};

/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// What went wrong with a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The source.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The way to rest.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What a stream became.
pub(super) struct Stored {
    /// Its chunks.
    pub(super) content: Content,
    /// Keyed hash of all its bytes.
    pub(super) hash: ContentHash,
}

/// Cuts streams; keeps its buffer from file to file.
pub(super) struct Streamer<'a> {
    buffer: Vec<u8>,
    over: &'a (dyn Fn() -> bool + Sync),
    manners: Option<&'a Manners>,
    interrupt: &'a Interrupt,
    /// Users that ACLs name.
    pub(super) users: BTreeSet<u32>,
    /// Groups that ACLs name.
    pub(super) groups: BTreeSet<u32>,
}

impl<'a> Streamer<'a> {
    /// A streamer that reads on only while the time is not over and nobody asked for the end: a
    /// single file may take longer than a service may be stopped.
    pub(super) fn new(
        over: &'a (dyn Fn() -> bool + Sync),
        manners: Option<&'a Manners>,
        interrupt: &'a Interrupt,
    ) -> Self {
        let (users, groups) = Default::default();
        Self { buffer: Vec::new(), over, manners, interrupt, users, groups }
    }

    fn may_go_on(&self) -> Result<(), StreamError> {
        if self.interrupt.is_set() {
            return Err(StreamError::Read(io::ErrorKind::Interrupted.into()));
        }
        if (self.over)() { Err(StreamError::Read(time_is_over())) } else { Ok(()) }
    }

    /// Reads behind what the buffer holds, as manners are.
    fn read_some(
        &mut self,
        end: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let free = &mut self.buffer[end..];
        let Some(manners) = self.manners else { return read(free) };
        manners.give_way(self.interrupt);
        let n = read(manners.fitting(free))?;
        manners.have_read(n, self.interrupt);
        Ok(n)
    }

    /// Remembers whom the ACLs among these attributes name: they are owners like others.
    pub(super) fn acls(&mut self, xattrs: &[(Vec<u8>, Vec<u8>)]) {
        let acls = xattrs.iter().filter(|(name, _)| acl::is_acl(name));
        for who in acls.flat_map(|(_, value)| acl::named(value)) {
            match who {
                Who::User(uid) => self.users.insert(uid),
                Who::Group(gid) => self.groups.insert(gid),
            };
        }
    }

    /// Keeps all bytes that `read` gives (0 at the end; any number before). `size` is what is
    /// expected; more or less is kept as it comes. Pages of a database go to a class of their own
    /// unless they are secret anyway.
    pub(super) fn store(
        &mut self,
        worker: &mut Worker<'_>,
        mut class: Class,
        size: u64,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<Stored, StreamError> {
        let longest = worker.repository().cutter().max();
        let want = usize::try_from(size.saturating_add(1)).unwrap_or(BUFFER).clamp(64, BUFFER);
        if self.buffer.len() < want.max(2 * longest.min(want)) {
            self.buffer.resize(want, 0);
        }
        let (mut start, mut end, mut done) = (0, 0, false);
        let mut cutting = None;
        let mut builder = ContentBuilder::default();
        let mut hasher: Option<blake3::Hasher> = None;
        loop {
            while !done && end - start < longest {
                if end == self.buffer.len() {
                    if start > 0 {
                        self.buffer.copy_within(start..end, 0);
                        (start, end) = (0, end - start);
                    } else {
                        self.buffer.resize((self.buffer.len() * 2).max(BUFFER), 0);
                    }
                }
                self.may_go_on()?;
                match self.read_some(end, read).map_err(StreamError::Read)? {
                    0 => done = true,
                    n => end += n,
                }
            }
            let rest = &self.buffer[start..end];
            if rest.is_empty() {
                break;
            }
            let how = *cutting.get_or_insert_with(|| cutting_for(rest, size));
            if matches!(how, Cutting::Fixed(_)) && class == Class::Data {
                class = Class::Database;
            }
            let len = match how {
                Cutting::ByContent => worker.repository().cutter().cut(rest),
                Cutting::Fixed(page) => page.min(rest.len()),
            };
            let chunk = &rest[..len];
            if hasher.is_none() && done && len == rest.len() {
                return single(worker, class, chunk);
            }
            hasher
                .get_or_insert_with(|| worker.repository().namer().content_hasher())
                .update(chunk);
            let (id, _) = worker.put(class, ChunkKind::Data, chunk)?;
            start += len;
            builder.push(ChunkRef { id, len: len as u64 }, &mut list_writer(worker))?;
        }
        let content = builder.finish(&mut list_writer(worker))?;
        let hash = match hasher {
            Some(hasher) => ContentHash::from_array(*hasher.finalize().as_bytes()),
            None => worker.repository().namer().empty(),
        };
        Ok(Stored { content, hash })
    }
}

fn single(worker: &mut Worker<'_>, class: Class, chunk: &[u8]) -> Result<Stored, StreamError> {
    let (id, _) = worker.put(class, ChunkKind::Data, chunk)?;
    let content = Content { level: 0, refs: vec![ChunkRef { id, len: chunk.len() as u64 }] };
    Ok(Stored { content, hash: ContentHash::from_array(*id.as_bytes()) })
}

fn list_writer<'a, 'w>(
    worker: &'a mut Worker<'w>,
) -> impl FnMut(&[u8]) -> Result<ChunkId, WriteError> + use<'a, 'w> {
    move |bytes| worker.put(Class::Tree, ChunkKind::List, bytes).map(|(id, _)| id)
}
