//! Pure transforms and their inverses, each pair in one file.

pub mod compress;
pub mod seal;
