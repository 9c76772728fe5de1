//! Entries, metadata, builder and walker.
