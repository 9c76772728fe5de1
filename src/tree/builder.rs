//! A directory's pages in the making: cut by the hash of entry names, so that a new name rewrites one
//! page, and in levels, so that a directory may hold any number of names.

use crate::base::id::ChunkId;
use crate::format::pack::{ChunkKind, Class};
use crate::format::tree::{
    Entry, LeafBuilder, PAGE_CUT_MASK, PAGE_NAMES_CUT, PAGE_NAMES_MIN, Page, PageRef,
};
use crate::store::writer::{Worker, WriteError};

/// Bytes of a page's entries above which it is closed whatever the names: whoever chooses names,
/// targets and attributes must not make a page that is too long to be kept.
const PAGE_BYTES: usize = 1 << 20;

/// Builds one directory. Entries come in ascending order of their names.
#[derive(Default)]
pub struct DirBuilder {
    leaf: LeafBuilder,
    levels: Vec<Vec<PageRef>>,
}

impl DirBuilder {
    /// Appends an entry.
    ///
    /// # Errors
    /// Of writing, where a page was full.
    pub fn push(&mut self, entry: Entry, worker: &mut Worker<'_>) -> Result<(), WriteError> {
        let cut = is_cut(&entry.name);
        self.leaf.push(&entry);
        let n = self.leaf.entries();
        if (cut && n >= PAGE_NAMES_MIN) || n >= PAGE_NAMES_CUT || self.leaf.len() > PAGE_BYTES {
            self.close_leaf(worker)?;
        }
        Ok(())
    }

    /// The directory's top page; `None` where it has no entries.
    ///
    /// # Errors
    /// Of writing.
    pub fn finish(mut self, worker: &mut Worker<'_>) -> Result<Option<ChunkId>, WriteError> {
        self.close_leaf(worker)?;
        let mut level = 0;
        while level < self.levels.len() {
            let above = self.levels.get(level + 1).is_some_and(|l| !l.is_empty());
            if let ([only], false) = (self.levels[level].as_slice(), above) {
                return Ok(Some(only.id));
            }
            self.close_level(level, worker)?;
            level += 1;
        }
        Ok(None)
    }

    fn close_leaf(&mut self, worker: &mut Worker<'_>) -> Result<(), WriteError> {
        if self.leaf.is_empty() {
            return Ok(());
        }
        let (first, count, bytes) = self.leaf.take();
        let (id, _) = worker.put(Class::Tree, ChunkKind::Tree, &bytes)?;
        self.push_page(0, PageRef { first, id, entries: count }, worker)
    }

    fn push_page(
        &mut self,
        level: usize,
        page: PageRef,
        worker: &mut Worker<'_>,
    ) -> Result<(), WriteError> {
        if self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        let cut = is_cut(&page.first);
        self.levels[level].push(page);
        let n = self.levels[level].len();
        if (cut && n >= PAGE_NAMES_MIN) || n >= PAGE_NAMES_CUT {
            self.close_level(level, worker)?;
        }
        Ok(())
    }

    fn close_level(&mut self, level: usize, worker: &mut Worker<'_>) -> Result<(), WriteError> {
        let pages = std::mem::take(&mut self.levels[level]);
        let Some(first) = pages.first().map(|p| p.first.clone()) else { return Ok(()) };
        let entries = pages.iter().map(|p| p.entries).sum();
        let bytes = Page::Inner { level: level as u8 + 1, pages }.encode();
        let (id, _) = worker.put(Class::Tree, ChunkKind::Tree, &bytes)?;
        self.push_page(level + 1, PageRef { first, id, entries }, worker)
    }
}

/// The cut depends on nothing but the name, so that equal directories have equal pages.
fn is_cut(name: &[u8]) -> bool {
    let hash = blake3::hash(name);
    let word = u32::from_le_bytes([
        hash.as_bytes()[0],
        hash.as_bytes()[1],
        hash.as_bytes()[2],
        hash.as_bytes()[3],
    ]);
    word & PAGE_CUT_MASK == 0
}
