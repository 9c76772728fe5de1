//! Reading the file, and errors that name file, line and key.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Config, DEFAULT_FILE};

/// Bytes of a configuration file.
const FILE_MAX: u64 = 1 << 20;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named is not there or cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is larger than a configuration can be, or no text.
    #[error("{} is no configuration file: {why}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key or value is wrong.
    #[error("{}, line {line}{}: {message}", path.display(), named(key.as_deref()))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key as `table.key`, where there is one.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
}

fn named(key: Option<&str>) -> String {
    key.map(|key| format!(", key {key}")).unwrap_or_default()
}

/// The configuration and where it came from.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    given: BTreeSet<String>,
}

impl Loaded {
    /// Whether the file itself has this key (`site.env_file`): a default that was written down is
    /// the operator's wish, one that was not may give way to something better known.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.given.contains(key)
    }
}

/// Reads the file that was named, which must exist, or the default one, which need not.
///
/// # Errors
/// [`ConfigError`].
pub fn load(named: Option<&Path>) -> Result<Loaded, ConfigError> {
    load_or(named, Path::new(DEFAULT_FILE))
}

pub(super) fn load_or(named: Option<&Path>, default: &Path) -> Result<Loaded, ConfigError> {
    let path = named.unwrap_or(default);
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Loaded::default());
        }
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        Ok(_) => {}
    }
    let not_text = |why| ConfigError::NotText { path: path.to_owned(), why };
    if bytes.len() as u64 > FILE_MAX {
        return Err(not_text("it is larger than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| not_text("it is not UTF-8"))?;
    parse(&text, path)
}

/// Reads the text of a file with this name.
///
/// # Errors
/// [`ConfigError::Wrong`].
pub fn parse(text: &str, path: &Path) -> Result<Loaded, ConfigError> {
    let wrong = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        let (line, key) = locate(text, offset);
        let message = error.message().replace('\n', ", ");
        ConfigError::Wrong { path: path.to_owned(), line, key, message }
    };
    let config: Config = toml::from_str(text).map_err(wrong)?;
    let table: toml::Table = text.parse().map_err(wrong)?;
    let mut given = BTreeSet::new();
    collect("", &table, &mut given);
    Ok(Loaded { config, file: Some(path.to_owned()), given })
}

fn collect(prefix: &str, table: &toml::Table, given: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let toml::Value::Table(inner) = value {
            collect(&name, inner, given);
        }
        given.insert(name);
    }
}

/// The line of an offset, and the key that stands there or, inside of a value of several lines,
/// above.
fn locate(text: &str, offset: usize) -> (usize, Option<String>) {
    let mut start = 0;
    let mut table = String::new();
    let mut key = None;
    let mut number = 1;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        number = index + 1;
        let trimmed = line.trim();
        if let Some(head) = trimmed.strip_prefix('[')
            && let Some((name, _)) = head.split_once(']')
            && !name.contains(['"', ',', '='])
        {
            table = name.trim().to_owned();
            key = Some(table.clone());
        } else if let Some((name, _)) = trimmed.split_once('=')
            && is_key(name.trim())
        {
            let name = name.trim();
            key = Some(if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") });
        }
        if offset < start + line.len() {
            break;
        }
        start += line.len();
    }
    (number, key)
}

fn is_key(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !text.is_empty() && text.bytes().all(allowed)
}
