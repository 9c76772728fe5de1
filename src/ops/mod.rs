//! One verb a file.

pub use crate::base::progress;
