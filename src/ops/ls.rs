//! `ls`: entries of a snapshot or capture, in order of names, depth first.

use crate::base::path::{components, join};
use crate::format::tree::{Entry, Node};
use crate::format::{DecodeError, tree};
use crate::record::catalogue::Record;
use crate::store::reader::{ReadError, Reader};
use crate::store::repository::RepositoryError;
use crate::tree::walk::{WalkError, find};

/// How deep a listing goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// What is directly in a directory.
    One,
    /// All the way down.
    All,
    /// Down to the sources themselves, but not into them.
    Sources,
}

/// Gets absolute paths and their entries.
pub type Each<'a, E> = &'a mut dyn FnMut(&[u8], &Entry) -> Result<(), E>;

/// The entry of `/` of a record.
///
/// # Errors
/// [`RepositoryError::Damaged`] where the manifest's root does not decode.
pub fn root(record: &Record, reader: &Reader) -> Result<Entry, RepositoryError> {
    let empty = reader.repository().namer().empty();
    let wrong = |source: DecodeError| RepositoryError::Damaged {
        object: format!("the root of {}", record.id.short()),
        source,
    };
    tree::Entry::decode(&record.body.root.0, &empty).map_err(wrong)
}

/// Lists below a path; without one, everything from `/` on. A path of a file lists the file itself.
/// `each` gets absolute paths.
///
/// # Errors
/// [`WalkError`], or what `each` gives.
pub fn ls<E: From<WalkError>>(
    reader: &Reader,
    root: &Entry,
    path: Option<&[u8]>,
    depth: Depth,
    each: Each<'_, E>,
) -> Result<(), E> {
    let mut whole = b"/".to_vec();
    for name in components(path.unwrap_or_default()) {
        whole = join(&whole, name);
    }
    let start = find(reader, root, &whole)?;
    let Node::Dir { .. } = &start.node else { return each(&whole, &start) };
    // A stack of our own: directories may be nested deeper than a thread's stack is.
    let mut stack = vec![(whole, children(reader, &start)?.into_iter())];
    while let Some((dir, entries)) = stack.last_mut() {
        let Some(entry) = entries.next() else {
            stack.pop();
            continue;
        };
        let path = join(dir, &entry.name);
        each(&path, &entry)?;
        let further = match (depth, &entry.node) {
            (Depth::All, Node::Dir { .. }) => true,
            (Depth::Sources, Node::Dir { partial, .. }) => *partial,
            _ => false,
        };
        if further {
            stack.push((path, children(reader, &entry)?.into_iter()));
        }
    }
    Ok(())
}

fn children(reader: &Reader, dir: &Entry) -> Result<Vec<Entry>, WalkError> {
    let mut entries = Vec::new();
    if let Node::Dir { tree: Some(tree), .. } = &dir.node {
        reader.entries(tree, &mut |entry| -> Result<(), ReadError> {
            entries.push(entry);
            Ok(())
        })?;
    }
    Ok(entries)
}
