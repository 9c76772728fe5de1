//! A site's configuration: gcfg text to settings to sources.

pub mod envfile;
pub mod gcfg;
pub mod read;
