//! Pure words without I/O: ids, byte paths, bounds, times, sizes, secrets.

pub mod chain;
pub mod id;
pub mod limits;
pub mod path;
pub mod progress;
pub mod secret;
pub mod size;
pub mod time;
