//! Bytes to structs and back, both directions in one file, without I/O. Each decoder is bounded by
//! `base::limits` and gives an error, never a panic, for whatever bytes it meets (invariant 8).
//! `docs/format.md` is the normative text.

pub mod acl;
pub mod content;
pub mod control;
pub mod header;
pub mod manifest;
pub mod pack;
pub mod segment;
pub mod tree;
pub mod wire;

pub use wire::DecodeError;
