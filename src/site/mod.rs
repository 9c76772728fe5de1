//! A site's configuration: gcfg text to settings to sources.

pub mod envfile;
pub mod gcfg;
mod glob;
pub mod read;
pub mod unit;
