//! Settings: the main file, the second file and the environment's overrides, laid over each other,
//! each value with the place that it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::envfile::is_variable_name;
use super::gcfg::Gcfg;
use crate::base::path::{join, printable};
use crate::base::size::parse_size;

/// A value that is not of the type that its setting has. Does not repeat the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} ({origin}) is not {expected}")]
pub struct SettingError {
    /// `Section.Key`.
    pub setting: String,
    /// Where it stands.
    pub origin: String,
    /// What it should be.
    pub expected: &'static str,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A gcfg file.
    File {
        /// Path.
        path: Arc<[u8]>,
        /// Line, from 1.
        line: u32,
    },
    /// A variable in an environment file.
    EnvFile {
        /// The variable.
        name: String,
        /// Path.
        path: Arc<[u8]>,
        /// Line, from 1.
        line: u32,
    },
    /// `Environment=` of a unit.
    Unit {
        /// The variable.
        name: String,
        /// The unit file or drop-in.
        path: Arc<[u8]>,
        /// Line, from 1.
        line: u32,
    },
    /// The environment of a running process, and no file.
    Process {
        /// The variable.
        name: String,
    },
    /// No file says it: the server's default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", printable(path)),
            Self::EnvFile { name, path, line } | Self::Unit { name, path, line } => {
                write!(f, "{name} in {}:{line}", printable(path))
            }
            Self::Process { name } => write!(f, "{name} in the process's environment"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One value. `Debug` does not show it: it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// Section as written.
    pub section: Arc<str>,
    /// Subsection.
    pub subsection: Option<Arc<str>>,
    /// Key as written.
    pub key: String,
    /// Value; `None` where the key stands alone.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

impl Setting {
    /// `Section.Key`, or `Section "subsection".Key`, printable.
    #[must_use]
    pub fn name(&self) -> String {
        let name = match &self.subsection {
            Some(sub) => format!("{} \"{sub}\".{}", self.section, self.key),
            None => format!("{}.{}", self.section, self.key),
        };
        printable(name.as_bytes())
    }

    /// Whether this is a setting of that name; case does not count.
    #[must_use]
    pub fn is(&self, section: &str, key: &str) -> bool {
        self.section.eq_ignore_ascii_case(section) && self.key.eq_ignore_ascii_case(key)
    }

    fn error(&self, expected: &'static str) -> SettingError {
        SettingError { setting: self.name(), origin: self.origin.to_string(), expected }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.origin)
    }
}

/// All values of a site, those that count more later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    items: Vec<Setting>,
}

impl Settings {
    /// Lays a gcfg file over what is there.
    pub fn add_file(&mut self, path: &[u8], file: &Gcfg) {
        let path: Arc<[u8]> = path.into();
        self.items.extend(file.entries.iter().map(|entry| Setting {
            section: entry.section.clone(),
            subsection: entry.subsection.clone(),
            key: entry.key.clone(),
            value: entry.value.clone(),
            origin: Origin::File { path: path.clone(), line: entry.line },
        }));
    }

    /// Lays a variable over what is there; false where its name overrides nothing.
    pub fn add_variable(&mut self, name: &str, value: &str, origin: Origin) -> bool {
        let Some((section, key)) = override_of(name) else { return false };
        // Written as the files write it, where one does, because people know it by that name.
        let known = self.items.iter().find(|s| s.is(section, key));
        let (section, key) = match known {
            Some(s) => (s.section.clone(), s.key.clone()),
            None => (section.into(), key.to_string()),
        };
        let value = Some(value.to_string());
        self.items.push(Setting { section, subsection: None, key, value, origin });
        true
    }

    /// All values, overridden ones too, in their order.
    #[must_use]
    pub fn items(&self) -> &[Setting] {
        &self.items
    }

    /// The setting that counts, outside of subsections.
    #[must_use]
    pub fn find(&self, section: &str, key: &str) -> Option<&Setting> {
        self.items.iter().rev().find(|s| s.subsection.is_none() && s.is(section, key))
    }

    /// The setting that counts, in a subsection.
    #[must_use]
    pub fn find_in(&self, section: &str, subsection: &str, key: &str) -> Option<&Setting> {
        self.items
            .iter()
            .rev()
            .find(|s| s.subsection.as_deref() == Some(subsection) && s.is(section, key))
    }

    /// The value that counts, outside of subsections; `None` for an empty one or a key alone.
    #[must_use]
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.find(section, key)?.value.as_deref().filter(|v| !v.is_empty())
    }

    /// The value that counts, in a subsection; `None` for an empty one or a key alone.
    #[must_use]
    pub fn get_in(&self, section: &str, subsection: &str, key: &str) -> Option<&str> {
        self.find_in(section, subsection, key)?.value.as_deref().filter(|v| !v.is_empty())
    }

    /// All values of a property that can be repeated, of every subsection; a key alone takes back
    /// what its subsection said before.
    #[must_use]
    pub fn all(&self, section: &str, key: &str) -> Vec<&Setting> {
        let named = || self.items.iter().enumerate().filter(|(_, s)| s.is(section, key));
        let taken_back: BTreeMap<Option<&str>, usize> = named()
            .filter(|(_, s)| s.value.is_none())
            .map(|(at, s)| (s.subsection.as_deref(), at))
            .collect();
        named()
            .filter(|(at, s)| taken_back.get(&s.subsection.as_deref()).is_none_or(|end| end < at))
            .map(|(_, s)| s)
            .filter(|s| s.value.as_deref().is_some_and(|v| !v.is_empty()))
            .collect()
    }

    /// The setting that counts of each subsection, and outside of them.
    #[must_use]
    pub fn each(&self, section: &str, key: &str) -> Vec<&Setting> {
        let mut last: BTreeMap<Option<&str>, (usize, &Setting)> = BTreeMap::new();
        for (at, setting) in self.items.iter().enumerate().filter(|(_, s)| s.is(section, key)) {
            last.insert(setting.subsection.as_deref(), (at, setting));
        }
        let mut found: Vec<(usize, &Setting)> = last.into_values().collect();
        found.sort_unstable_by_key(|(at, _)| *at);
        found
            .into_iter()
            .map(|(_, s)| s)
            .filter(|s| s.value.as_deref().is_some_and(|v| !v.is_empty()))
            .collect()
    }

    /// A truth value; a key alone is true.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn bool(&self, section: &str, key: &str) -> Result<Option<bool>, SettingError> {
        let Some(setting) = self.find(section, key) else { return Ok(None) };
        let Some(value) = &setting.value else { return Ok(Some(true)) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Some(true)),
            "false" | "no" | "off" | "0" => Ok(Some(false)),
            _ => Err(setting.error("a truth value")),
        }
    }

    /// A length of time: `500ms`, `1h30m`, `1.5h`, `30d`; a bare number counts nanoseconds.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn duration(&self, section: &str, key: &str) -> Result<Option<Duration>, SettingError> {
        let Some(setting) = self.find(section, key) else { return Ok(None) };
        let value = setting.value.as_deref().unwrap_or("");
        parse_duration(value).map(Some).ok_or_else(|| setting.error("a duration"))
    }

    /// A size in bytes: `5 MB`, `5 KiB`.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn size(&self, section: &str, key: &str) -> Result<Option<u64>, SettingError> {
        let Some(setting) = self.find(section, key) else { return Ok(None) };
        let value = setting.value.as_deref().unwrap_or("");
        parse_size(value).map(Some).map_err(|_| setting.error("a size in bytes"))
    }
}

/// The section and key that a variable overrides: `CONNECT_POSTGRES_PASSWORD` is
/// `Postgres.Password`. Names of sections hold no `_`, so the first one parts the two.
#[must_use]
pub fn override_of(name: &str) -> Option<(&str, &str)> {
    let (section, key) = name.strip_prefix("CONNECT_")?.split_once('_')?;
    (is_variable_name(name) && !section.is_empty() && !key.is_empty()).then_some((section, key))
}

/// Where the second file stands: `x.gcfg` has `x-migration.gcfg` beside it.
#[must_use]
pub fn migration_path(gcfg: &[u8]) -> Vec<u8> {
    let (dir, name) = match gcfg.iter().rposition(|&b| b == b'/') {
        Some(at) => (&gcfg[..=at], &gcfg[at + 1..]),
        None => (&b""[..], gcfg),
    };
    let (stem, suffix) = match name.iter().rposition(|&b| b == b'.').filter(|&at| at > 0) {
        Some(at) => name.split_at(at),
        None => (name, &b""[..]),
    };
    join(dir, &[stem, b"-migration", suffix].concat())
}

/// Reads a length of time as Go writes it, days too.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(nanos) = text.parse::<u64>() {
        return Some(Duration::from_nanos(nanos));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let nanos: u64 = match tail[..unit_end].trim_end() {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, nanos)?)?;
        rest = &tail[unit_end..];
    }
    Some(total)
}

/// A decimal number of units, exactly; digits below a nanosecond are dropped.
fn scaled(number: &str, nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Eighteen digits tell a day from a day and a nanosecond; more cannot count.
    let digits = &fraction[..fraction.len().min(18)];
    let tenths: u64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let below = u128::from(tenths) * u128::from(nanos) / 10u128.pow(digits.len() as u32);
    let total = whole.checked_mul(nanos)?.checked_add(u64::try_from(below).ok()?)?;
    Some(Duration::from_nanos(total))
}

#[cfg(test)]
mod tests;
