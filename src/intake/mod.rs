//! Reading sources.

pub mod consistent;
