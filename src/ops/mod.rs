//! One verb a file. A verb never imports a verb; what several share is here beside them.

pub mod check;
pub mod demo;
pub mod restore;
pub mod session;
pub mod snapshot;
pub mod sources;

pub use crate::base::progress;
