//! `snapshot` of plain directories, from outside: what is kept, what is read again, what is said.

mod common;
#[path = "common/seen.rs"]
mod seen;
#[path = "common/world.rs"]
mod world;

#[path = "snapshot/accelerator.rs"]
mod accelerator;
#[path = "snapshot/changes.rs"]
mod changes;
#[path = "snapshot/odd.rs"]
mod odd;
#[path = "snapshot/sources.rs"]
mod sources;
