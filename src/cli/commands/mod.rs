//! One file for each command: intent, the verb's call, and how its result is shown.

pub mod check;
pub mod completions;
pub mod discover;
pub mod guard;
pub mod init;
pub mod key;
pub mod ls;
pub mod demo;
pub mod man;
pub mod restore;
pub mod show;
pub mod snapshot;
pub mod snapshots;
pub mod stats;
pub mod unlock;
pub mod window;
