//! One verb a file. A verb never imports a verb; what several share is here beside them.

pub mod check;
pub mod discover;
pub mod init;
pub mod key;
pub mod ls;
pub mod demo;
pub mod restore;
pub mod session;
pub mod snapshot;
pub mod sources;
pub mod stats;
pub mod unlock;
pub mod window;

pub use crate::base::progress;
