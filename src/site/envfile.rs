//! Environment files as systemd reads them (`EnvironmentFile=`, `/etc/default/...`).
//!
//! Comments at the start of a line, single and double quotes, backslashes, lines continued by a
//! backslash; no variable is expanded, and a `#` within a value is part of it.

use std::fmt;

use crate::base::limits::SITE_FILE_MAX;

/// Variables of one file.
pub const VARIABLES_MAX: usize = 10_000;

/// Why an environment file cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// More bytes than [`SITE_FILE_MAX`].
    #[error("the file has {0} bytes, more than an environment file can have")]
    TooLong(u64),
    /// More variables than [`VARIABLES_MAX`].
    #[error("more than {VARIABLES_MAX} variables")]
    TooMany,
    /// A NUL byte or bytes that are not UTF-8.
    #[error("line {line}: not text")]
    NotText {
        /// Line, from 1.
        line: u32,
    },
}

/// One variable. `Debug` does not show the value: it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
    /// Line of the name, from 1.
    pub line: u32,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}= (not shown) at {}", self.name, self.line)
    }
}

/// What a line is that is no assignment and no comment, or not a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvFault {
    /// A line without `=`, or whose name no variable can have (`export X=1` too). systemd skips it.
    #[error("not an assignment, ignored")]
    Ignored,
    /// A quote that is still open at the end of the file. systemd takes the rest as the value.
    #[error("a quote is not closed")]
    Unterminated,
}

/// All that a file says, in its order; the last of equal names wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvFile {
    /// The variables.
    pub variables: Vec<Variable>,
    /// Lines that say something else than was likely meant.
    pub faults: Vec<(u32, EnvFault)>,
}

/// Whether text can be the name of a variable.
#[must_use]
pub fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads a whole file's bytes.
///
/// # Errors
/// [`EnvError`].
pub fn parse(bytes: &[u8]) -> Result<EnvFile, EnvError> {
    if bytes.len() as u64 > SITE_FILE_MAX {
        return Err(EnvError::TooLong(bytes.len() as u64));
    }
    let valid = match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(e) => e.valid_up_to(),
    };
    let good = bytes.iter().position(|&b| b == 0).map_or(valid, |nul| nul.min(valid));
    if good < bytes.len() {
        let lines = bytes[..good].iter().filter(|&&b| b == b'\n').count();
        return Err(EnvError::NotText { line: u32::try_from(lines + 1).unwrap_or(u32::MAX) });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| EnvError::NotText { line: 1 })?;
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let mut file = EnvFile::default();
    while let Some(&first) = reader.chars.peek() {
        match first {
            ' ' | '\t' | '\r' | '\n' => {
                reader.next();
            }
            '#' | ';' => reader.skip_line(),
            _ => reader.assignment(&mut file),
        }
        if file.variables.len() > VARIABLES_MAX || file.faults.len() > VARIABLES_MAX {
            return Err(EnvError::TooMany);
        }
    }
    Ok(file)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

struct Reader<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: u32,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(c)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }

    fn assignment(&mut self, file: &mut EnvFile) {
        let line = self.line;
        let mut name = String::new();
        loop {
            match self.next() {
                None | Some('\n') => {
                    file.faults.push((line, EnvFault::Ignored));
                    return;
                }
                Some('=') => break,
                Some(c) => name.push(c),
            }
        }
        let (value, closed) = self.value();
        if !closed {
            file.faults.push((line, EnvFault::Unterminated));
        }
        let name = name.trim_end();
        if is_variable_name(name) {
            file.variables.push(Variable { name: name.to_string(), value, line });
        } else {
            file.faults.push((line, EnvFault::Ignored));
        }
    }

    /// A value and whether its last quote was closed. A quote opens only where no unquoted text
    /// stands before it; several quoted parts are joined.
    fn value(&mut self) -> (String, bool) {
        let mut value = String::new();
        // Bytes that stay when trailing blanks are dropped.
        let mut kept = 0;
        let mut bare = false;
        let mut closed = true;
        while let Some(c) = self.next() {
            match c {
                '\n' => break,
                '\\' => match self.next() {
                    None | Some('\n') => {}
                    Some(c) => {
                        value.push(c);
                        bare = true;
                        kept = value.len();
                    }
                },
                '\'' | '"' if !bare => {
                    closed = self.quoted(c, &mut value);
                    kept = value.len();
                }
                c if is_blank(c) && !bare => {}
                c => {
                    value.push(c);
                    bare = true;
                    if !is_blank(c) {
                        kept = value.len();
                    }
                }
            }
        }
        value.truncate(kept);
        (value, closed)
    }

    /// Appends what stands before the closing quote; whether there was one.
    fn quoted(&mut self, quote: char, value: &mut String) -> bool {
        while let Some(c) = self.next() {
            if c == quote {
                return true;
            }
            if quote == '\'' || c != '\\' {
                value.push(c);
                continue;
            }
            match self.next() {
                None => return false,
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
