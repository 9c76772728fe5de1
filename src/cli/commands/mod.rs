//! One file for each command: intent, the verb's call, and how its result is shown.

pub mod check;
pub mod completions;
pub mod demo;
pub mod man;
pub mod snapshot;
