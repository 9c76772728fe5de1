//! What is looked at before anything is changed in place.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::RestoreError;
use super::place::DirNode;
use super::run::Run;
use super::select::{Choice, Is, Select};
use crate::base::path::printable;
use crate::format::tree::{Entry, Node};
use crate::host::fs::InodeKind;
use crate::store::reader::{ReadError, Reader};
use crate::tree::cursor::DirCursor;

/// Refuses where a directory that leads to a source is something else here: a link, for one, that
/// would lead elsewhere.
pub(super) fn ways(run: &Run<'_>, root: &Entry) -> Result<(), RestoreError> {
    let Node::Dir { tree, partial: true } = &root.node else { return Ok(()) };
    let reader = run.input.reader;
    let top: Arc<DirNode> = DirNode::root(b"/".to_vec());
    let mut stack = vec![(DirCursor::new(*tree), top)];
    while let Some((cursor, node)) = stack.last_mut() {
        let next = cursor.next(reader).map_err(|e: ReadError| RestoreError::Read(Box::new(e)))?;
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

/// The numbers of all owners of what would be restored.
pub(super) fn owners_used(
    reader: &Reader,
    select: &Select,
    root: &Entry,
) -> Result<(HashSet<u32>, HashSet<u32>), RestoreError> {
    let (mut uids, mut gids) = (HashSet::new(), HashSet::new());
    let Node::Dir { tree, .. } = &root.node else { return Ok((uids, gids)) };
    let mut path = Vec::new();
    let taken = select.choose(b"/", Is::Way, false) == Choice::Take;
    let mut stack = vec![(DirCursor::new(*tree), 0, taken)];
    while let Some((cursor, len, taken)) = stack.last_mut() {
        path.truncate(*len);
        let next = cursor.next(reader).map_err(|e: ReadError| RestoreError::Read(Box::new(e)))?;
        let Some(entry) = next else {
            stack.pop();
            continue;
        };
        path.push(b'/');
        path.extend_from_slice(&entry.name);
        let choice = select.choose(&path, Is::of(&entry.node), *taken);
        if choice == Choice::Skip {
            continue;
        }
        uids.insert(entry.meta.uid);
        gids.insert(entry.meta.gid);
        if let Node::Dir { tree, .. } = entry.node {
            stack.push((DirCursor::new(tree), path.len(), choice == Choice::Take));
        }
    }
    Ok((uids, gids))
}
