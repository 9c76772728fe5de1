//! Chunks: cut, name, look up, pack, index, lease; and check, because it needs packs.
//!
//! The way of a byte to rest: [`cut`] finds the chunk's end, [`naming`] its id, [`accelerator`]
//! whether the repository has it; [`writer`] puts new chunks into blocks, blocks into packs, packs
//! into index segments. [`reader`] is the way back.
//!
//! # What may run beside what
//! | | snapshot, capture | check, restore (readers) | key add/remove |
//! |---|---|---|---|
//! | snapshot, capture | yes: objects are only added; the window's own lease keeps to one per site | yes: a reader sees what was committed before it listed | yes: each configuration and slot has a name of its own, `put_new` decides |
//! | check, restore | | yes | yes: secrets never change, only their wrapping |
//!
//! Nothing deletes chunks yet. A writer obeys `condemned/` all the same (see [`lease`]), so that the
//! first deleter finds only writers that know the rule.

pub mod accelerator;
pub mod check;
pub mod cut;
pub mod filter;
pub mod keys;
pub mod lease;
pub mod lists;
pub mod naming;
pub mod pack_builder;
pub mod reader;
pub mod repository;
pub mod salvage;
mod uploader;
pub mod writer;
