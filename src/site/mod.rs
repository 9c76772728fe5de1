//! A site's configuration: gcfg text to settings to sources.

pub mod gcfg;
