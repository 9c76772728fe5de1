//! Values that are more than text: references, percentages, maps of names.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::base::size::parse_size;
use crate::host::node::{NodeAddress, NotANode};
use crate::ops::sources::Afar;

/// Digits that a prefix of an id must have at least.
const PREFIX_MIN: usize = 6;
/// Digits of the longest id.
const PREFIX_MAX: usize = 64;

/// A snapshot or capture, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ref {
    /// `latest`: the newest snapshot of the site, never a capture.
    Latest,
    /// Digits that an id begins with: at least six, lower-case.
    Prefix(String),
}

/// `ID` or `ID:PATH`, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefPath {
    /// The snapshot or capture.
    pub reference: Ref,
    /// The path below it, as bytes; absent where none was typed.
    pub path: Option<Vec<u8>>,
}

/// A share of a whole, above 0 and at most 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    hundredths: u16,
}

impl Percent {
    /// All of it.
    pub const ALL: Self = Self { hundredths: 10_000 };
    /// What `check` reads where nobody says otherwise: 5 %.
    pub const DEFAULT_CHECK: Self = Self { hundredths: 500 };

    /// The share in hundredths of a percent, 1 to 10,000.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.hundredths
    }
}

/// `OLD:NEW`, both names or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMap {
    /// As the snapshot has it.
    pub old: String,
    /// As it shall be here.
    pub new: String,
}

/// Reads `latest` or a prefix of an id.
pub(super) fn parse_ref(text: &str) -> Result<Ref, String> {
    if text == "latest" {
        return Ok(Ref::Latest);
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("an id has hexadecimal digits only; or write `latest`".to_owned());
    }
    if text.len() < PREFIX_MIN {
        return Err(format!("give at least {PREFIX_MIN} digits of the id"));
    }
    if text.len() > PREFIX_MAX {
        return Err(format!("an id has no more than {PREFIX_MAX} digits"));
    }
    Ok(Ref::Prefix(text.to_ascii_lowercase()))
}

/// Reads `ID` or `ID:PATH`; the path may hold any bytes, colons among them.
pub(super) fn parse_ref_path(text: OsString) -> Result<RefPath, String> {
    let bytes = text.into_vec();
    let (id, path) = match bytes.iter().position(|&b| b == b':') {
        Some(at) => (&bytes[..at], Some(bytes[at + 1..].to_vec())),
        None => (&bytes[..], None),
    };
    let id = std::str::from_utf8(id).map_err(|_| "the id is not text".to_owned())?;
    if path.as_ref().is_some_and(Vec::is_empty) {
        return Err("a path is missing after the colon".to_owned());
    }
    Ok(RefPath { reference: parse_ref(id)?, path })
}

/// Reads `5`, `5%`, `0.5%`: above 0, at most 100, two decimals.
///
/// # Errors
/// A sentence that says what a percentage looks like.
pub fn parse_percent(text: &str) -> Result<Percent, String> {
    let wrong = || format!("not a percentage: {text:?} (write a number above 0 and up to 100)");
    let number = text.trim().trim_end_matches('%').trim_end();
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 2 {
        return Err(wrong());
    }
    let whole: u16 = whole.parse().map_err(|_| wrong())?;
    let scale = if part.len() == 1 { 10 } else { 1 };
    let part: u16 = part.parse::<u16>().map_err(|_| wrong())? * scale;
    match whole.checked_mul(100).and_then(|w| w.checked_add(part)) {
        Some(hundredths @ 1..=10_000) => Ok(Percent { hundredths }),
        _ => Err(wrong()),
    }
}

/// Reads bytes a second: a size, with or without `/s`.
///
/// # Errors
/// A sentence that says what a rate looks like.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let size = trimmed.strip_suffix("/s").unwrap_or(trimmed);
    match parse_size(size).map_err(|error| error.to_string())? {
        0 => Err("a rate of 0 would never end".to_owned()),
        rate => Ok(rate),
    }
}

/// Reads `OLD:NEW`.
pub(super) fn parse_name_map(text: &str) -> Result<NameMap, String> {
    match text.split_once(':') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() && !new.contains(':') => {
            Ok(NameMap { old: old.to_owned(), new: new.to_owned() })
        }
        _ => Err("write OLD:NEW, both a name or a number".to_owned()),
    }
}

/// Reads a node: this machine or one that `ssh` reaches.
pub(super) fn parse_any_node(text: &str) -> Result<String, String> {
    let address: NodeAddress = text.parse().map_err(|error: NotANode| error.to_string())?;
    Ok(address.to_string())
}

/// Reads a node where only this machine can be one so far.
pub(super) fn parse_node(text: &str) -> Result<String, String> {
    if text == "local" {
        Ok(text.to_owned())
    } else {
        Err("nodes other than `local` can be named from a later version on".to_owned())
    }
}

/// Reads the name of a configuration: a path, or `ssh://HOST/PATH`.
pub(super) fn parse_gcfg(text: OsString) -> Result<std::path::PathBuf, String> {
    Afar::parse(text.as_encoded_bytes())?;
    Ok(text.into())
}
