//! systemd units, as far as a site's configuration hides in them: `Environment=`,
//! `EnvironmentFile=`, the arguments of `ExecStart=`, `User=`.
//!
//! Nothing is asked of systemd: files are read where it would look for them, or where the caller
//! (who may have asked `systemctl show`) says that they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::glob;
use super::read::{ReadError, below, names, read_bounded};
use crate::base::limits::SITE_FILE_MAX;
use crate::base::path::join;

/// Where units are looked for, the first that has one wins.
pub const UNIT_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Directives of one unit file.
pub const DIRECTIVES_MAX: usize = 20_000;
/// Drop-ins of one unit.
const DROP_INS_MAX: usize = 1_000;

/// Why a unit could not be read.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// A file of it could not be read.
    #[error("unit {unit}")]
    Read {
        /// The unit.
        unit: String,
        /// Which file and why.
        source: ReadError,
    },
    /// A file of it says too much.
    #[error("unit {unit} has a file or directory with more than {max} entries")]
    TooMany {
        /// The unit.
        unit: String,
        /// The bound.
        max: usize,
    },
    /// Text that cannot be a unit's name.
    #[error("not a unit name: {0:?}")]
    Name(String),
}

/// One line of a unit file. `Debug` does not show the value: it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Directive {
    /// Section, without brackets.
    pub section: String,
    /// Key.
    pub key: String,
    /// Value, continued lines joined.
    pub value: String,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Debug for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}= (not shown) at {}", self.section, self.key, self.line)
    }
}

/// A variable that a unit sets. `Debug` does not show the value.
#[derive(Clone, PartialEq, Eq)]
pub struct UnitVariable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
    /// The unit file or drop-in.
    pub file: Vec<u8>,
    /// Its line, from 1.
    pub line: u32,
}

impl fmt::Debug for UnitVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}= (not shown) at {}", self.name, self.line)
    }
}

/// An environment file that a unit names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentFile {
    /// Absolute path, possibly with wildcards.
    pub pattern: Vec<u8>,
    /// Whether it may be missing (`-`).
    pub optional: bool,
    /// The unit file or drop-in.
    pub file: Vec<u8>,
}

/// What a unit says of the site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// Name, with its suffix.
    pub name: String,
    /// The unit file and its drop-ins, in the order in which they apply.
    pub files: Vec<Vec<u8>>,
    /// `Environment=`, in order.
    pub environment: Vec<UnitVariable>,
    /// `EnvironmentFile=`, in order; what they say goes before `environment`.
    pub environment_files: Vec<EnvironmentFile>,
    /// The words of the first `ExecStart=`, the program without its prefix characters.
    pub exec_start: Vec<String>,
    /// `User=`.
    pub user: Option<String>,
}

impl Unit {
    /// The value of `--config` in `ExecStart=`.
    #[must_use]
    pub fn config(&self) -> Option<&str> {
        option(&self.exec_start, "config")
    }

    /// The value of `--migration-config` in `ExecStart=`.
    #[must_use]
    pub fn migration_config(&self) -> Option<&str> {
        option(&self.exec_start, "migration-config")
    }
}

/// `--name value`, `--name=value`, and the same with one hyphen.
fn option<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let mut found = None;
    for (at, word) in words.iter().enumerate().skip(1) {
        let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            continue;
        };
        if rest == name {
            found = words.get(at + 1).map(String::as_str);
        } else if let Some(value) = rest.strip_prefix(name).and_then(|r| r.strip_prefix('=')) {
            found = Some(value);
        }
    }
    found
}

/// Reads the text of a unit file. Bytes that are not UTF-8 become U+FFFD; lines that say nothing
/// are skipped, as systemd skips them. `None` where there are more than [`DIRECTIVES_MAX`].
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Vec<Directive>> {
    let text = String::from_utf8_lossy(bytes);
    let mut directives = Vec::new();
    let mut section = String::new();
    let mut lines = (1u32..).zip(text.split('\n'));
    while let Some((line, first)) = lines.next() {
        let first = first.trim();
        if first.is_empty() || first.starts_with(['#', ';']) {
            continue;
        }
        let mut whole = String::new();
        let mut part = first;
        // Comments between continued lines are skipped, and the line goes on after them.
        while let Some(head) = part.strip_suffix('\\') {
            whole.push_str(head);
            whole.push(' ');
            let Some((_, next)) =
                lines.by_ref().find(|(_, l)| !l.trim_start().starts_with(['#', ';']))
            else {
                part = "";
                break;
            };
            part = next.trim_end();
        }
        whole.push_str(part);
        if let Some(name) = whole.strip_prefix('[').and_then(|w| w.trim_end().strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            directives.push(Directive {
                section: section.clone(),
                key: key.trim().to_string(),
                value: value.trim().to_string(),
                line,
            });
            if directives.len() > DIRECTIVES_MAX {
                return None;
            }
        }
    }
    Some(directives)
}

/// The words of a value: split at blanks, quotes removed, backslashes read as in C, `%%` as `%`.
/// Other specifiers stay as written.
#[must_use]
pub fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = value.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_ascii_whitespace()) {
            match c {
                c if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(c),
                '\\' => escape(&mut chars, &mut word),
                '%' => {
                    chars.next_if_eq(&'%');
                    word.push('%');
                }
                c => word.push(c),
            }
        }
        words.push(word);
    }
}

/// Appends what a backslash and what follows it mean; an unknown escape stays as written.
fn escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    let Some(c) = chars.next() else {
        word.push('\\');
        return;
    };
    let plain = match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        's' => ' ',
        '\\' | '"' | '\'' => c,
        'x' | 'u' | 'U' | '0'..='7' => return numeric(c, chars, word),
        c => {
            word.push('\\');
            c
        }
    };
    word.push(plain);
}

/// `\xHH`, `\NNN`, `\uHHHH`, `\UHHHHHHHH`.
fn numeric(kind: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    let (radix, digits, mut text) = match kind {
        'x' => (16, 2, String::new()),
        'u' => (16, 4, String::new()),
        'U' => (16, 8, String::new()),
        first => (8, 3, String::from(first)),
    };
    while text.len() < digits {
        let Some(c) = chars.next_if(|c| c.is_digit(radix)) else { break };
        text.push(c);
    }
    let value = u32::from_str_radix(&text, radix).ok().filter(|&v| v != 0 && text.len() == digits);
    if let Some(c) = value.and_then(char::from_u32) {
        word.push(c);
    } else {
        word.push('\\');
        if radix == 16 {
            word.push(kind);
        }
        word.push_str(&text);
    }
}

/// The files of a unit below `root`: its unit file, then its drop-ins in the order in which they
/// apply. `None` where no directory has it. A name without a suffix is a service.
///
/// # Errors
/// [`UnitError`] for a text that is no unit name, or for a directory with too many drop-ins.
pub fn find_unit(root: &Path, name: &str) -> Result<Option<Vec<Vec<u8>>>, UnitError> {
    let name = full_name(name)?;
    let candidates = match name.split_once('@') {
        Some((stem, rest)) if !rest.starts_with('.') => {
            let suffix = rest.rsplit_once('.').map_or("service", |(_, s)| s);
            vec![name.clone(), format!("{stem}@.{suffix}")]
        }
        _ => vec![name.clone()],
    };
    let main = candidates.iter().find_map(|file| {
        UNIT_DIRS.iter().map(|dir| join(dir.as_bytes(), file.as_bytes())).find(|path| {
            // A unit that is masked is a link to /dev/null: found, and says nothing.
            below(root, path).symlink_metadata().is_ok_and(|m| !m.is_dir())
        })
    });
    let Some(main) = main else { return Ok(None) };
    let mut files = vec![main];
    files.extend(drop_ins(root, &name, &candidates)?);
    Ok(Some(files))
}

/// The unit's name with its suffix, checked to be a single file name.
fn full_name(name: &str) -> Result<String, UnitError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.is_empty() || name.len() > 250 || name.starts_with('.') || !name.chars().all(fine) {
        return Err(UnitError::Name(name.chars().take(80).collect()));
    }
    let has_suffix = name.rsplit_once('.').is_some_and(|(_, suffix)| {
        ["service", "socket", "target", "timer", "path", "mount", "slice", "scope"]
            .contains(&suffix)
    });
    Ok(if has_suffix { name.to_string() } else { format!("{name}.service") })
}

/// Drop-ins: of equal file names the one of the more particular directory name counts, then the
/// one of the earlier directory; they apply in the order of their file names.
fn drop_ins(root: &Path, name: &str, candidates: &[String]) -> Result<Vec<Vec<u8>>, UnitError> {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, "service"));
    let mut levels: Vec<String> = candidates.to_vec();
    let cuts = stem.match_indices('-').filter(|(at, _)| *at > 0 && at + 1 < stem.len());
    levels.extend(cuts.map(|(at, _)| format!("{}.{suffix}", &stem[..=at])).rev());
    levels.push(suffix.to_string());
    let mut found = BTreeMap::new();
    for level in levels {
        for dir in UNIT_DIRS {
            let dir = join(dir.as_bytes(), format!("{level}.d").as_bytes());
            let unread = |source| UnitError::Read { unit: name.into(), source };
            for file in names(root, &dir).map_err(unread)? {
                if !file.ends_with(b".conf") || file.starts_with(b".") {
                    continue;
                }
                let path = join(&dir, &file);
                found.entry(file).or_insert(path);
                if found.len() > DROP_INS_MAX {
                    return Err(UnitError::TooMany { unit: name.into(), max: DROP_INS_MAX });
                }
            }
        }
    }
    // /usr/lib and /lib are one directory on most systems.
    let mut seen = BTreeSet::new();
    Ok(found.into_values().filter(|path| seen.insert(path.clone())).collect())
}

/// Reads a unit from its files (paths as they are below `/`; looked up below `root`).
///
/// # Errors
/// [`UnitError`] where a file cannot be read or is too long.
pub fn load_unit(root: &Path, name: &str, files: &[Vec<u8>]) -> Result<Unit, UnitError> {
    let mut unit = Unit { name: full_name(name)?, files: files.to_vec(), ..Unit::default() };
    for file in files {
        let path = below(root, file);
        if std::fs::canonicalize(&path).is_ok_and(|p| p == Path::new("/dev/null")) {
            continue;
        }
        let bytes = read_bounded(&path, SITE_FILE_MAX)
            .map_err(|source| UnitError::Read { unit: unit.name.clone(), source })?;
        let directives = parse(&bytes)
            .ok_or_else(|| UnitError::TooMany { unit: unit.name.clone(), max: DIRECTIVES_MAX })?;
        for directive in directives.iter().filter(|d| d.section == "Service") {
            apply(&mut unit, file, directive);
        }
    }
    Ok(unit)
}

/// Takes one directive over; an empty value takes back what was said before, as in systemd.
fn apply(unit: &mut Unit, file: &[u8], directive: &Directive) {
    let value = directive.value.as_str();
    match (directive.key.as_str(), value.is_empty()) {
        ("Environment", true) => unit.environment.clear(),
        ("Environment", false) => {
            for word in words(value) {
                if let Some((name, value)) = word.split_once('=') {
                    unit.environment.push(UnitVariable {
                        name: name.to_string(),
                        value: value.to_string(),
                        file: file.to_vec(),
                        line: directive.line,
                    });
                }
            }
        }
        ("EnvironmentFile", true) => unit.environment_files.clear(),
        ("EnvironmentFile", false) => {
            let (optional, path) = match value.strip_prefix('-') {
                Some(path) => (true, path),
                None => (false, value),
            };
            unit.environment_files.push(EnvironmentFile {
                pattern: path.replace("%%", "%").into_bytes(),
                optional,
                file: file.to_vec(),
            });
        }
        ("ExecStart", true) => unit.exec_start.clear(),
        ("ExecStart", false) if unit.exec_start.is_empty() => {
            unit.exec_start = words(value);
            if let Some(program) = unit.exec_start.first_mut() {
                *program = program.trim_start_matches(['@', '-', ':', '+', '!', '|']).to_string();
            }
        }
        ("User", empty) => unit.user = (!empty).then(|| value.to_string()),
        _ => {}
    }
}

/// The files that an `EnvironmentFile=` of a unit means, in the order of their names. A path without
/// wildcards is returned as it is, whether there is such a file or not.
///
/// # Errors
/// [`UnitError`] where a directory cannot be listed or there are too many.
pub fn environment_paths(
    root: &Path,
    unit: &str,
    file: &EnvironmentFile,
) -> Result<Vec<Vec<u8>>, UnitError> {
    if !glob::is_pattern(&file.pattern) {
        return Ok(vec![file.pattern.clone()]);
    }
    glob::expand(root, &file.pattern).map_err(|e| match e {
        glob::GlobError::Read(source) => UnitError::Read { unit: unit.into(), source },
        glob::GlobError::TooMany => {
            UnitError::TooMany { unit: unit.into(), max: glob::MATCHES_MAX }
        }
    })
}

#[cfg(test)]
mod tests;
