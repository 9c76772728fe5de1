//! One verb a file.

pub mod progress;
