//! A directory's entries one after the other, one page in memory at a time. The walkers keep a stack
//! of these instead of calling themselves: a tree may be deeper than a thread's stack.

use crate::base::id::ChunkId;
use crate::format::tree::{Entry, Page};
use crate::store::reader::{ReadError, Reader};

/// Where a walker is in one directory.
pub struct DirCursor {
    /// Pages to come, the next one last, each with the level that the page above gave it.
    pages: Vec<(ChunkId, Option<u8>)>,
    leaf: std::vec::IntoIter<Entry>,
}

impl DirCursor {
    /// At the beginning of the directory with this top page; `None` is an empty one.
    #[must_use]
    pub fn new(top: Option<ChunkId>) -> Self {
        let pages = top.map(|id| (id, None)).into_iter().collect();
        Self { pages, leaf: Vec::new().into_iter() }
    }

    /// Over entries that are at hand already.
    #[must_use]
    pub fn over(entries: Vec<Entry>) -> Self {
        Self { pages: Vec::new(), leaf: entries.into_iter() }
    }

    /// The next entry in order of names.
    ///
    /// # Errors
    /// As [`Reader::page`]; the pages behind a page that cannot be read still come.
    pub fn next(&mut self, reader: &Reader) -> Result<Option<Entry>, ReadError> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(entry));
            }
            let Some((id, level)) = self.pages.pop() else { return Ok(None) };
            match reader.page(&id, level)? {
                Page::Leaf(entries) => self.leaf = entries.into_iter(),
                Page::Inner { level, pages } => {
                    let below = level.checked_sub(1);
                    self.pages.extend(pages.iter().rev().map(|p| (p.id, below)));
                }
            }
        }
    }
}
