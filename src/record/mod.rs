//! Snapshots and captures.

pub mod capture;
pub mod open;
pub mod snapshot;
