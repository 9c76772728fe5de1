//! Trees: a directory's pages in the making, and the way through a tree by path.

pub mod builder;
pub mod cursor;
pub mod walk;
