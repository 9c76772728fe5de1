//! Values of the file that are more than TOML has words for.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use super::super::args::{Percent, parse_percent, parse_rate};
use crate::base::size::parse_size;
use crate::base::time::parse_duration;
use crate::ops::sources::Afar;

/// The checks that evidence consists of.
const CHECKS: [&str; 8] = [
    "service-stopped",
    "no-process-in-tree",
    "no-database-clients",
    "database-unmoved",
    "sqlite-settled",
    "tree-unchanged",
    "all-sources-read",
    "service-started",
];

pub(super) fn text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(Some(String::deserialize(d)?).filter(|text| !text.is_empty()))
}

pub(super) fn path<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(text(d)?.map(PathBuf::from))
}

pub(super) fn size<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(d)?).map_err(D::Error::custom)
}

/// Bytes a second: a size, with or without `/s`; empty for no limit.
pub(super) fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let Some(text) = text(d)? else { return Ok(None) };
    parse_rate(&text).map(Some).map_err(D::Error::custom)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(d)?).map_err(D::Error::custom)
}

pub(super) fn some_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    duration(d).map(Some)
}

pub(super) fn percent<'de, D: Deserializer<'de>>(d: D) -> Result<Percent, D::Error> {
    parse_percent(&String::deserialize(d)?).map_err(D::Error::custom)
}

pub(super) fn gcfg<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(d)?;
    if text.is_empty() {
        return Err(D::Error::custom("a path is expected"));
    }
    Afar::parse(text.as_bytes()).map_err(D::Error::custom)?;
    Ok(text.into())
}

pub(super) fn nodes<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let nodes = Vec::<String>::deserialize(d)?;
    for node in &nodes {
        if let Err(error) = node.parse::<crate::host::node::NodeAddress>() {
            return Err(D::Error::custom(error));
        }
    }
    Ok(nodes)
}

pub(super) fn checks<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(d)?;
    for name in &names {
        if !CHECKS.contains(&name.as_str()) {
            let message = format!("not a check: {name:?} (the checks are {})", CHECKS.join(", "));
            return Err(D::Error::custom(message));
        }
    }
    Ok(names)
}
