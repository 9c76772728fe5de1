//! Snapshots and captures: the catalogue of what a repository holds, and what this client remembers
//! of it.

pub mod capture;
pub mod catalogue;
pub mod commit;
pub mod memory;
pub mod open;
pub mod snapshot;
