//! Trees: entries, and the pages that hold a directory's entries.
//!
//! A page of level 0 holds entries in strictly ascending order of their names' bytes; a page of
//! level `n` names pages of level `n - 1` with the first name of each. A directory is named by the
//! chunk id of its top page. Equal directories have equal pages and thus equal ids.
//!
//! inode, device and change time are not part of a tree: they say nothing about what is restored.

mod attributes;
mod entry;
mod layout;
mod page;

pub use attributes::{Meta, XattrList, Xattrs, decode_xattrs, encode_xattrs};
pub use entry::{Entry, Node};
pub use layout::{Layout, Stretch, StretchMap, data_len, decode_stretches, encode_stretches};
pub use page::{LeafBuilder, PAGE_CUT_MASK, PAGE_NAMES_CUT, PAGE_NAMES_MIN, Page, PageRef};

#[cfg(test)]
mod tests;
