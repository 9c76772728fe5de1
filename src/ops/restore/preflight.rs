//! What is looked at before anything is changed in place.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::RestoreError;
use super::attributes::xattrs_of;
use super::error::is_damage;
use super::place::{self, DirNode};
use super::run::Run;
use super::select::{Choice, Is};
use crate::backend::{BackendError, ObjectName, Space};
use crate::base::path::printable;
use crate::format::acl::{self, Who};
use crate::format::content::Content;
use crate::format::tree::{Entry, Layout, Node, StretchMap, Xattrs};
use crate::host::fs::InodeKind;
use crate::store::reader::{ReadError, Reader};
use crate::store::repository::RepositoryError;
use crate::tree::cursor::DirCursor;

/// Refuses where a directory that leads to a source is something else here: a link, for one, that
/// would lead elsewhere.
pub(super) fn ways(run: &Run<'_>, root: &Entry) -> Result<(), RestoreError> {
    let Node::Dir { tree, partial: true } = &root.node else { return Ok(()) };
    let reader = run.input.reader;
    let top: Arc<DirNode> = place::top(b"/");
    let mut stack = vec![(DirCursor::new(*tree), top)];
    while let Some((cursor, node)) = stack.last_mut() {
        let next = match cursor.next(reader) {
            Ok(next) => next,
            // Named with all others by `whole`.
            Err(error) if is_damage(&error) => None,
            Err(error) => return Err(RestoreError::Read(Box::new(error))),
        };
        let Some(entry) = next else {
            stack.pop();
            continue;
        };
        let Node::Dir { tree, partial: true } = entry.node else { continue };
        let below = run.dirs.node(node, &entry.name);
        match run.dirs.open(node).and_then(|dir| dir.stat(&entry.name)) {
            Ok(stat) if stat.kind == InodeKind::Dir => {
                stack.push((DirCursor::new(tree), below));
            }
            Ok(_) => {
                let path = printable(&below.path());
                let said = format!("{path} is a directory in the snapshot, and not here");
                return Err(RestoreError::Refused(said));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(RestoreError::Io { path: below.path(), source }),
        }
    }
    Ok(())
}

/// Looks at all that would be restored, without its data: whether the repository has it, and whether
/// its owners exist here. What is damaged is named all at once, and nothing is changed then.
pub(super) fn whole(run: &Run<'_>, root: &Entry) -> Result<(), RestoreError> {
    let Node::Dir { tree, .. } = &root.node else { return Ok(()) };
    let reader = run.input.reader;
    let mut look = Look::new(run)?;
    let mut path = Vec::new();
    let taken = run.select.choose(b"/", Is::Way, false) == Choice::Take;
    let mut stack = vec![(DirCursor::new(*tree), 0, taken)];
    while let Some((cursor, len, taken)) = stack.last_mut() {
        run.check()?;
        path.truncate(*len);
        let entry = match cursor.next(reader) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                stack.pop();
                continue;
            }
            Err(error) => {
                let at = if path.is_empty() { b"/".to_vec() } else { path.clone() };
                run.note_damage([at], error)?;
                stack.pop();
                continue;
            }
        };
        path.push(b'/');
        path.extend_from_slice(&entry.name);
        let choice = run.select.choose(&path, Is::of(&entry.node), *taken);
        let is_dir = matches!(entry.node, Node::Dir { .. });
        if choice == Choice::Skip || (choice == Choice::Descend && !is_dir) {
            continue;
        }
        if let Err(error) = look.at(&entry) {
            run.note_damage([path.clone()], error)?;
        }
        if let Node::Dir { tree, .. } = entry.node {
            stack.push((DirCursor::new(tree), path.len(), choice == Choice::Take));
        }
    }
    if run.is_damaged() {
        let mut report = run.report(None);
        report.notes.push("nothing was changed by this run".into());
        return run.end_of_damage(report);
    }
    run.owners.require(&look.uids, &look.gids)
}

/// What is known on the way.
struct Look<'r> {
    reader: &'r Reader,
    uids: HashSet<u32>,
    gids: HashSet<u32>,
    /// The packs that the storage lists.
    listed: HashSet<ObjectName>,
    /// Whether a pack is one of them, by its number in the index.
    packs: HashMap<u32, bool>,
}

impl<'r> Look<'r> {
    fn new(run: &Run<'r>) -> Result<Self, RestoreError> {
        let reader = run.input.reader;
        let listed = reader.repository().backend().list(Space::Packs);
        let listed = listed.map_err(RepositoryError::from).map_err(ReadError::from);
        let listed = listed.map_err(|e| RestoreError::Read(Box::new(e)))?;
        Ok(Self {
            reader,
            uids: HashSet::new(),
            gids: HashSet::new(),
            listed: listed.into_iter().map(|(name, _)| name).collect(),
            packs: HashMap::new(),
        })
    }

    fn at(&mut self, entry: &Entry) -> Result<(), ReadError> {
        self.uids.insert(entry.meta.uid);
        self.gids.insert(entry.meta.gid);
        if let Xattrs::Content(content) = &entry.meta.xattrs {
            self.content(content)?;
        }
        let xattrs = xattrs_of(self.reader, &entry.meta)?;
        let acls = xattrs.iter().filter(|(name, _)| acl::is_acl(name));
        for who in acls.flat_map(|(_, value)| acl::named(value)) {
            match who {
                Who::User(uid) => self.uids.insert(uid),
                Who::Group(gid) => self.gids.insert(gid),
            };
        }
        if let Node::File { content, layout, .. } = &entry.node {
            if let Layout::Sparse { map: StretchMap::Content(map), .. } = layout {
                self.content(map)?;
            }
            self.content(content)?;
        }
        Ok(())
    }

    /// Whether every chunk has a place, and every place its pack.
    fn content(&mut self, content: &Content) -> Result<(), ReadError> {
        let reader = self.reader;
        reader.walk_content(content, &mut |_, chunk| {
            let place = reader.locate(&chunk.id)?;
            let (packs, listed) = (&mut self.packs, &self.listed);
            let pack = || reader.accelerator().pack(place.pack).map(|p| ObjectName::pack(&p.id));
            let is_there = *packs
                .entry(place.pack)
                .or_insert_with(|| pack().is_some_and(|name| listed.contains(&name)));
            if is_there {
                return Ok(());
            }
            Err(match pack() {
                Some(name) => RepositoryError::from(BackendError::NotFound(name)).into(),
                None => ReadError::Missing(chunk.id),
            })
        })
    }
}
