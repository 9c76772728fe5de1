//! One verb a file.

pub mod progress;
pub mod restore;
