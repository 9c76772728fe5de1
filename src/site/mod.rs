//! A site's configuration: gcfg text to settings to sources.

pub mod discover;
pub mod envfile;
pub mod gcfg;
mod glob;
pub mod postgres;
pub mod read;
pub mod resources;
pub mod settings;
pub mod unit;
