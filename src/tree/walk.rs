//! The way through a committed tree by path.

use crate::base::path::components;
use crate::format::tree::{Entry, Node};
use crate::store::reader::{ReadError, Reader};

/// What kept a path from being found.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Nothing is there.
    #[error("{} is not in it", crate::base::path::printable(.0))]
    NotFound(Vec<u8>),
    /// A component of the path is no directory.
    #[error("{} is not a directory in it", crate::base::path::printable(.0))]
    NotDir(Vec<u8>),
    /// The repository.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The entry at an absolute path below `root`. Symbolic links are not followed; `..` is not found.
///
/// # Errors
/// [`WalkError`].
pub fn find(reader: &Reader, root: &Entry, path: &[u8]) -> Result<Entry, WalkError> {
    let mut here = root.clone();
    let mut so_far = Vec::new();
    for name in components(path) {
        let Node::Dir { tree, .. } = &here.node else {
            return Err(WalkError::NotDir(so_far));
        };
        so_far.push(b'/');
        so_far.extend_from_slice(name);
        let found = match tree {
            Some(tree) => reader.lookup(tree, name)?,
            None => None,
        };
        here = found.ok_or_else(|| WalkError::NotFound(so_far.clone()))?;
    }
    Ok(here)
}
