//! cabk: content-addressed, incremental backups of Posit Connect sites.
//!
//! This file is the map. Rooms stand in the order of their layers: a room imports only from rooms
//! above it in this list (held by `tests/tidy.rs`). `docs/architecture.md` says why each is there.

pub mod base; // pure words, no I/O: ids, byte paths, bounds, times, sizes, secrets
#[allow(clippy::disallowed_methods, reason = "the clocks that all others ask live here")]
pub mod host; // the machine, behind traits: file system calls, services, processes, clock, entropy
pub mod format; // bytes <-> structs, both directions in one file, no I/O, every decoder bounded
pub mod codec; // pure transforms and their inverses: compress, seal
pub mod site; // gcfg text -> settings -> site: sources, service, nodes, databases
pub mod backend; // the storage trait, local and memory implementations, one conformance suite
pub mod store; // chunks: cut, name, look up, pack, index, lease; check
pub mod tree; // entries and metadata, builder, walker
pub mod window; // stop, evidence, intent, start
pub mod intake; // reading sources; `consistent.rs` alone mints the proof
pub mod record; // the two nouns: snapshot and capture; catalogue
pub mod ops; // one verb a file; a verb never imports a verb
pub mod cli; // typed arguments -> intent -> one file per command; rendering, exit codes
