//! Reading sources.
//!
//! [`forest`] turns a [`plan::ReadPlan`] into one tree of absolute paths: `scan` looks at a
//! directory and finds what the scan cache already knows, `engine` keeps directories whose files
//! are still to be read, `file` reads one file, `stream` cuts its bytes. [`look`] looks at all
//! of it a second time; [`dirty`] says what a read in the window need not look at.

mod again;
pub mod dirty;
mod digest;
mod engine;
mod file;
mod first;
pub mod forest;
pub mod look;
pub mod manners;
mod mounted;
mod names;
pub mod plan;
mod scan;
mod seen;
mod stream;
mod target;
mod threads;
mod trail;

pub mod consistent;
