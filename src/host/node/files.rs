//! Small files of another node, read through its `tar`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::{Node, Rights, Sharing};
use crate::base::path::printable;

/// Bytes that an archive may have: configurations, certificates, units.
pub const ARCHIVE_MAX: usize = 32 << 20;

/// Entries that it may have.
const ENTRIES_MAX: usize = 20_000;

/// Bytes of a name that stands in an entry of its own.
const NAME_MAX: usize = 16 << 10;

/// Time for all of it.
const TIME: Duration = Duration::from_secs(120);

const BLOCK: usize = 512;

/// What stands before the archive: a login shell may greet.
const MARK: &[u8] = b"\ncabk: archive\n";

/// Packs those paths that are there, and what they lead to where they are links.
const PACK: &str = r#"LC_ALL=C
export LC_ALL
which=$1
shift
for path; do
    shift
    [ "$which" = all ] || [ -f "$path" ] || continue
    if [ -e "$path" ] || [ -L "$path" ]; then set -- "$@" ".$path"; fi
    if [ -L "$path" ] && real=$(readlink -f -- "$path") && [ -e "$real" ]; then
        set -- "$@" ".$real"
    fi
done
printf '\ncabk: archive\n'
[ $# = 0 ] || exec tar -C / -cf - --numeric-owner -- "$@"
"#;

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchedKind {
    /// A directory.
    Dir,
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A symbolic link and where it leads.
    Link(Vec<u8>),
    /// Something else, or a further name of a file: not fetched.
    Other,
}

/// One file of another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Absolute, without `.` and `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FetchedKind,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of modification, seconds since 1970.
    pub mtime: u64,
}

/// Which paths are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// All, directories with what is in them.
    All,
    /// Regular files alone.
    Files,
}

/// Reads these files and directories, as far as they are there.
///
/// # Errors
/// Where the node cannot be reached, something cannot be read, or it is too much.
pub fn fetch(node: &Node, which: Which, paths: &[Vec<u8>]) -> io::Result<Vec<Fetched>> {
    let mut arguments: Vec<OsString> =
        vec![if which == Which::All { "all" } else { "files" }.into()];
    arguments.extend(paths.iter().cloned().map(OsString::from_vec));
    let done = node
        .script(Rights::Root, PACK, &arguments, ARCHIVE_MAX, Sharing::Open, TIME)
        .map_err(super::scan::said)?;
    if !done.status.success() {
        let said = format!("reading files ended with {}: {}", done.ending(), done.said());
        return Err(io::Error::other(said));
    }
    if done.stdout.is_cut() {
        return Err(io::Error::other(format!("its files are more than {ARCHIVE_MAX} bytes")));
    }
    let all = &done.stdout.kept;
    let begin = all.windows(MARK.len()).position(|window| window == MARK);
    let archive = begin.map(|at| &all[at + MARK.len()..]);
    read(archive.ok_or_else(|| io::Error::other("there is no archive in its answer"))?)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its archive is not understood: {what}"))
}

/// Names that stand before the entry that they are about.
#[derive(Default)]
struct Before {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    numbers: HashMap<String, u64>,
}

/// Reads an archive in GNU's or POSIX's form.
fn read(archive: &[u8]) -> io::Result<Vec<Fetched>> {
    let mut all = Vec::new();
    if archive.is_empty() {
        return Ok(all);
    }
    let mut before = Before::default();
    let mut rest = archive;
    loop {
        let (header, after) = rest.split_at_checked(BLOCK).ok_or_else(|| wrong("it has no end"))?;
        if header.iter().all(|&b| b == 0) {
            return Ok(all);
        }
        check(header)?;
        let size =
            before.numbers.get("size").copied().map_or_else(|| number(header, 124, 12), Ok)?;
        let size = usize::try_from(size).map_err(|_| wrong("a size"))?;
        let kind = header[156];
        // Links and directories have no content, whatever their size says.
        let size = if b"123456".contains(&kind) { 0 } else { size };
        let (content, after) =
            after.split_at_checked(size).ok_or_else(|| wrong("it is cut off"))?;
        let padding = size.next_multiple_of(BLOCK) - size;
        rest = after.get(padding..).ok_or_else(|| wrong("it is cut off"))?;
        match kind {
            b'L' | b'K' => {
                let text = trimmed(content);
                if text.len() > NAME_MAX {
                    return Err(wrong("a name is too long"));
                }
                let place = if kind == b'L' { &mut before.name } else { &mut before.link };
                *place = Some(text.to_vec());
            }
            b'x' => pax(content, &mut before)?,
            b'g' => {}
            kind => {
                if all.len() >= ENTRIES_MAX {
                    return Err(wrong("it has too many entries"));
                }
                all.push(entry(header, kind, content, std::mem::take(&mut before))?);
            }
        }
    }
}

fn entry(header: &[u8], kind: u8, content: &[u8], before: Before) -> io::Result<Fetched> {
    let field = |name: &str, at: usize, len: usize| match before.numbers.get(name) {
        Some(&number) => Ok(number),
        None => number(header, at, len),
    };
    let small = |number: u64| u32::try_from(number).map_err(|_| wrong("a number is too large"));
    let (mode, uid, gid) = (
        small(number(header, 100, 8)?)?,
        small(field("uid", 108, 8)?)?,
        small(field("gid", 116, 8)?)?,
    );
    let name = before.name.unwrap_or_else(|| {
        let name = trimmed(&header[..100]);
        // GNU's form keeps times where POSIX's keeps the beginning of a long name.
        let prefix = if &header[257..263] == b"ustar\0" { trimmed(&header[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    });
    let kind = match kind {
        0 | b'0' => FetchedKind::File(content.to_vec()),
        b'5' => FetchedKind::Dir,
        b'2' => {
            FetchedKind::Link(before.link.unwrap_or_else(|| trimmed(&header[157..257]).to_vec()))
        }
        _ => FetchedKind::Other,
    };
    let path = absolute(&name)?;
    let mtime = field("mtime", 136, 12).unwrap_or(0);
    Ok(Fetched { path, kind, mode: mode & 0o7777, uid, gid, mtime })
}

/// An absolute path out of a name, which must not lead anywhere else.
fn absolute(name: &[u8]) -> io::Result<Vec<u8>> {
    let mut path = Vec::with_capacity(name.len() + 1);
    for part in name.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." || part.len() > 255 {
            return Err(wrong(&format!("the name {}", printable(name))));
        }
        path.push(b'/');
        path.extend_from_slice(part);
    }
    if path.is_empty() { Err(wrong("an entry without a name")) } else { Ok(path) }
}

/// The header's own sum.
fn check(header: &[u8]) -> io::Result<()> {
    let blank =
        |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) };
    let sum: u64 = header.iter().enumerate().map(blank).sum();
    if number(header, 148, 8)? == sum { Ok(()) } else { Err(wrong("a header's sum")) }
}

/// A number in octal digits, or in GNU's form for large ones.
fn number(header: &[u8], at: usize, len: usize) -> io::Result<u64> {
    let field = &header[at..at + len];
    if field[0] == 0x80 {
        let mut all: u64 = 0;
        for &byte in &field[1..] {
            let next = all.checked_mul(256).ok_or_else(|| wrong("a number is too large"))?;
            all = next | u64::from(byte);
        }
        return Ok(all);
    }
    let text = std::str::from_utf8(trimmed(field)).map_err(|_| wrong("a number"))?.trim();
    if text.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(text, 8).map_err(|_| wrong("a number"))
}

fn trimmed(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// POSIX's lines of `LENGTH KEY=VALUE`.
fn pax(mut content: &[u8], before: &mut Before) -> io::Result<()> {
    let odd = || wrong("an extended header");
    while !content.is_empty() {
        let blank = content.iter().position(|&b| b == b' ').ok_or_else(odd)?;
        let length = std::str::from_utf8(&content[..blank]).ok().and_then(|t| t.parse().ok());
        let length: usize = length.filter(|&length| length > blank + 1).ok_or_else(odd)?;
        let (line, rest) = content.split_at_checked(length).ok_or_else(odd)?;
        content = rest;
        let line = line[blank + 1..].strip_suffix(b"\n").ok_or_else(odd)?;
        let equals = line.iter().position(|&b| b == b'=').ok_or_else(odd)?;
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        if value.len() > NAME_MAX {
            return Err(odd());
        }
        match key {
            b"path" => before.name = Some(value.to_vec()),
            b"linkpath" => before.link = Some(value.to_vec()),
            b"size" | b"uid" | b"gid" | b"mtime" => {
                let text = std::str::from_utf8(value).map_err(|_| odd())?;
                let whole = text.split('.').next().unwrap_or_default();
                let key = String::from_utf8_lossy(key).into_owned();
                before.numbers.insert(key, whole.parse().map_err(|_| odd())?);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
