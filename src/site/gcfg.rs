//! The gcfg dialect: bytes to entries in order, as the server's own reader takes them.
//!
//! Pure. The dialect's surprises are reproduced and not mended (an unquoted `#` or `;` ends a
//! value), because what counts is what the server sees; where that is likely not what was meant, a
//! [`Cut`] says so. Neither errors nor `Debug` show values: they may be passwords.

use std::fmt;
use std::sync::Arc;

use crate::base::limits::SITE_FILE_MAX;

/// Entries of one file. A real file has some dozens; the bound keeps 16 MiB of one-letter keys from
/// becoming a gigabyte of entries, and whatever compares entries with each other from taking minutes.
pub const ENTRIES_MAX: usize = 20_000;

/// What is wrong with the text of a gcfg file, and where. Lines and columns count from 1, columns
/// in characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {fault}")]
pub struct GcfgError {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
    /// What is wrong there.
    pub fault: Fault,
}

/// What can be wrong with the text of a gcfg file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More bytes than [`SITE_FILE_MAX`].
    #[error("the file has {0} bytes, more than a configuration can have")]
    TooLong(u64),
    /// More entries than [`ENTRIES_MAX`].
    #[error("more than {ENTRIES_MAX} settings")]
    TooMany,
    /// A NUL byte: the file is not text.
    #[error("a NUL byte: this is not a text file")]
    Nul,
    /// Bytes that are not UTF-8.
    #[error("bytes that are not UTF-8")]
    NotUtf8,
    /// A character that can stand nowhere here.
    #[error("illegal character {0:?}")]
    Illegal(char),
    /// A key before the first section header.
    #[error("a setting before any section header")]
    NoSection,
    /// A section header without a name.
    #[error("expected a section name")]
    SectionName,
    /// A section header that goes on where it must end.
    #[error("expected a quoted subsection name or a right bracket")]
    SectionEnd,
    /// `[Section ""]`.
    #[error("empty subsection name")]
    EmptySubsection,
    /// Something else on the line of a section header.
    #[error("expected the end of the line after a section header")]
    AfterSection,
    /// A key that is followed by something other than `=`.
    #[error("expected '=' after a setting's name")]
    Assign,
    /// A quote that its line does not close.
    #[error("string not terminated")]
    Unterminated,
    /// A backslash within quotes before an unknown letter.
    #[error("unknown escape sequence")]
    Escape,
    /// A backslash outside of quotes that ends no line and escapes no quote.
    #[error("unquoted '\\' must be followed by a new line or a double quote")]
    Backslash,
}

/// One setting as written.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Section as written; compare without regard to case.
    pub section: Arc<str>,
    /// Subsection; compare exactly.
    pub subsection: Option<Arc<str>>,
    /// Key as written; compare without regard to case.
    pub key: String,
    /// Value; `None` where the key stands alone.
    pub value: Option<String>,
    /// Line of the key.
    pub line: u32,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.value.is_some() { "= (not shown)" } else { "alone" };
        write!(f, "[{} {:?}] {} {value}", self.section, self.subsection, self.key)
    }
}

/// A value that an unquoted `#` or `;` ended, where that was likely not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Section of the setting.
    pub section: Arc<str>,
    /// Key of the setting.
    pub key: String,
    /// The character that ended the value.
    pub by: char,
    /// Line of the character.
    pub line: u32,
}

/// All that a file says, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gcfg {
    /// The settings. Repeated sections and keys are kept: [`super::settings`] knows which one wins.
    pub entries: Vec<Entry>,
    /// Suspicious cuts.
    pub cuts: Vec<Cut>,
}

/// Whether a key's name says that its value is a password, a token or a key.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_file = key.ends_with("file") || key.ends_with("path");
    !names_file
        && (key.ends_with("key")
            || ["password", "passwd", "secret", "token"].iter().any(|word| key.contains(word)))
}

/// Reads a whole file's bytes.
///
/// # Errors
/// [`GcfgError`] at the first place where the server's reader would refuse the file too.
pub fn parse(bytes: &[u8]) -> Result<Gcfg, GcfgError> {
    let fault = |fault| GcfgError { line: 1, column: 1, fault };
    let length = bytes.len() as u64;
    if length > SITE_FILE_MAX {
        return Err(fault(Fault::TooLong(length)));
    }
    let text = decode(bytes)?;
    let mut parser = Parser { rest: text, line: 1, line_rest: text, section: None };
    let mut file = Gcfg::default();
    while parser.skip_to_token() {
        if parser.peek() == Some('[') {
            parser.header()?;
            continue;
        }
        let (entry, cut) = parser.setting()?;
        if file.entries.len() >= ENTRIES_MAX {
            return Err(parser.error(Fault::TooMany));
        }
        file.entries.push(entry);
        file.cuts.extend(cut);
    }
    Ok(file)
}

/// Bytes as text without the leading byte order mark, or the place of the first byte that is none.
fn decode(bytes: &[u8]) -> Result<&str, GcfgError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (good, fault) = match std::str::from_utf8(bytes) {
        Ok(text) => match text.find('\0') {
            None => return Ok(text),
            Some(at) => (&bytes[..at], Fault::Nul),
        },
        Err(e) => {
            let good = &bytes[..e.valid_up_to()];
            match good.iter().position(|&b| b == 0) {
                Some(at) => (&bytes[..at], Fault::Nul),
                None => (good, Fault::NotUtf8),
            }
        }
    };
    let line_start = good.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let lines = good.iter().filter(|&&b| b == b'\n').count();
    let column = String::from_utf8_lossy(&good[line_start..]).chars().count();
    Err(GcfgError { line: count(lines + 1), column: count(column + 1), fault })
}

/// A count within a file of at most 16 MiB.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && c.is_alphabetic())
}

fn is_identifier(c: char) -> bool {
    is_letter(c) || c == '-' || c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}

struct Parser<'a> {
    rest: &'a str,
    line: u32,
    /// The text from the start of the current line.
    line_rest: &'a str,
    section: Option<(Arc<str>, Option<Arc<str>>)>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.line = self.line.saturating_add(1);
            self.line_rest = self.rest;
        }
        Some(c)
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !test(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        // Never used with a test that lets a new line pass, so the line stays.
        self.rest = rest;
        taken
    }

    fn error(&self, fault: Fault) -> GcfgError {
        let before = &self.line_rest[..self.line_rest.len() - self.rest.len()];
        GcfgError { line: self.line, column: count(before.chars().count() + 1), fault }
    }

    fn skip_blanks(&mut self) {
        self.take_while(is_blank);
    }

    /// Skips blanks and a comment, up to the end of the line.
    fn skip_comment(&mut self) {
        self.skip_blanks();
        if matches!(self.peek(), Some(';' | '#')) {
            self.take_while(|c| c != '\n');
        }
    }

    /// Skips blanks, comments and empty lines; whether something follows.
    fn skip_to_token(&mut self) -> bool {
        loop {
            self.skip_comment();
            match self.peek() {
                None => return false,
                Some('\n') => {
                    self.next();
                }
                Some(_) => return true,
            }
        }
    }

    /// `[Section]` or `[Section "subsection"]`, alone on its line.
    fn header(&mut self) -> Result<(), GcfgError> {
        self.next();
        self.skip_comment();
        if !self.peek().is_some_and(is_letter) {
            return Err(self.error(Fault::SectionName));
        }
        let section = self.take_while(is_identifier);
        self.skip_comment();
        let subsection = match self.peek() {
            Some('"') => Some(self.subsection()?),
            _ => None,
        };
        self.skip_comment();
        if self.peek() != Some(']') {
            return Err(self.error(Fault::SectionEnd));
        }
        self.next();
        self.skip_comment();
        if !matches!(self.peek(), None | Some('\n')) {
            return Err(self.error(Fault::AfterSection));
        }
        self.section = Some((section.into(), subsection.map(Into::into)));
        Ok(())
    }

    fn subsection(&mut self) -> Result<String, GcfgError> {
        let start = self.error(Fault::Unterminated);
        let mut name = String::new();
        self.next();
        loop {
            let here = self.error(Fault::Escape);
            match self.next() {
                None | Some('\n') => return Err(start),
                Some('"') if name.is_empty() => {
                    return Err(GcfgError { fault: Fault::EmptySubsection, ..start });
                }
                Some('"') => return Ok(name),
                Some('\\') => match self.next() {
                    Some(c @ ('\\' | '"')) => name.push(c),
                    _ => return Err(here),
                },
                Some(c) => name.push(c),
            }
        }
    }

    /// `Key`, or `Key = value`.
    fn setting(&mut self) -> Result<(Entry, Option<Cut>), GcfgError> {
        let first = self.peek().unwrap_or('\n');
        if !is_letter(first) {
            return Err(self.error(Fault::Illegal(first)));
        }
        let Some((section, subsection)) = self.section.clone() else {
            return Err(self.error(Fault::NoSection));
        };
        let line = self.line;
        let key = self.take_while(is_identifier).to_string();
        self.skip_comment();
        let (value, cut) = match self.peek() {
            None | Some('\n') => (None, None),
            Some('=') => {
                self.next();
                self.skip_blanks();
                let (value, attached) = self.value()?;
                let cut = self.cut(&key, attached).map(|by| Cut {
                    section: section.clone(),
                    key: key.clone(),
                    by,
                    line: self.line,
                });
                self.skip_comment();
                (Some(value), cut)
            }
            Some(c) if is_identifier(c) || c == '"' || c == '[' || c == ']' => {
                return Err(self.error(Fault::Assign));
            }
            Some(c) => return Err(self.error(Fault::Illegal(c))),
        };
        Ok((Entry { section, subsection, key, value, line }, cut))
    }

    /// A value up to the end of its line or an unquoted `;` or `#`, and whether that character
    /// stands right behind it. Quotes may open and close anywhere within; carriage returns are
    /// dropped; trailing blanks are dropped unless quoted.
    fn value(&mut self) -> Result<(String, bool), GcfgError> {
        let start = self.error(Fault::Unterminated);
        let mut value = String::new();
        let mut kept = 0;
        let mut quoted = false;
        let mut attached = false;
        loop {
            let here = self.error_place();
            match self.peek() {
                None if quoted => return Err(start),
                None => break,
                Some('\n') if quoted => return Err(start),
                Some('\n' | ';' | '#') if !quoted => break,
                _ => {}
            }
            let Some(c) = self.next() else { break };
            attached = true;
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => value.push(match self.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c @ ('\\' | '"')) => c,
                    _ => return Err(here.with(Fault::Escape)),
                }),
                '\\' => {
                    if self.peek() == Some('\r') {
                        self.next();
                    }
                    match self.next() {
                        Some('\n') => {}
                        Some('"') => value.push('"'),
                        _ => return Err(here.with(Fault::Backslash)),
                    }
                }
                '\r' => {
                    attached = quoted;
                    continue;
                }
                c => {
                    value.push(c);
                    if !quoted && is_blank(c) {
                        attached = false;
                        continue;
                    }
                }
            }
            kept = value.len();
        }
        value.truncate(kept);
        Ok((value, attached))
    }

    /// The place of the next character; its column is only counted for an error, because counting
    /// it for each character of a long line would take quadratic time.
    fn error_place(&self) -> Place<'a> {
        Place { rest: self.rest, line: self.line, line_rest: self.line_rest }
    }

    /// The character that ended the value, where that was likely not meant: it stands between two
    /// characters that are not blank, or the key is one whose values may hold anything and it is
    /// not set off as a comment usually is.
    fn cut(&self, key: &str, attached: bool) -> Option<char> {
        let mut chars = self.rest.chars();
        let by = chars.next().filter(|c| matches!(c, ';' | '#'))?;
        let tight = chars.next().is_some_and(|c| !is_blank(c) && c != '\n');
        let anything = is_secret_key(key) || key.to_ascii_lowercase().ends_with("url");
        ((attached && tight) || (anything && (attached || tight))).then_some(by)
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    rest: &'a str,
    line: u32,
    line_rest: &'a str,
}

impl Place<'_> {
    fn with(self, fault: Fault) -> GcfgError {
        let before = &self.line_rest[..self.line_rest.len() - self.rest.len()];
        GcfgError { line: self.line, column: count(before.chars().count() + 1), fault }
    }
}

#[cfg(test)]
mod tests;
