//! Snapshots and captures.
