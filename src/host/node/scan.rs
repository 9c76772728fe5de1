//! Which processes of a node have open what lies on the file systems of given trees.
//!
//! Two scripts are run there: one lists (device, inode, place below `/proc`) of all descriptors,
//! current and root directories, programs and shared writable mappings on those file systems, and
//! one tells more of the few places that turn out to matter. Which ones these are is the caller's
//! to say, who knows the trees' inodes: a file system that nodes share has another device number on
//! each, and the same inode numbers.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::{Node, Rights, Sharing};
use crate::base::path::printable;
use crate::host::process::{Device, UseKind};

/// Lists.
const ROOTS: &str = include_str!("roots.sh");
/// Tells more.
const DETAILS: &str = include_str!("details.sh");

/// Bytes that a list may have: some 40 for each descriptor on the trees' file systems.
const LIST_MAX: usize = 32 << 20;

/// Places of which more is asked in one call.
const AT_ONCE: usize = 256;

/// Time for one call: processes of a busy machine are read in a second or two.
const QUESTION: Duration = Duration::from_secs(60);

/// The first pid namespace of a machine.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

const O_ACCMODE: u32 = 0o3;
const O_PATH: u32 = 0o1000_0000;

/// A root of a tree as the node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootThere {
    /// Which of the paths it is.
    pub index: usize,
    /// Its device there.
    pub dev: Device,
    /// Its inode.
    pub ino: u64,
    /// When it was made, in seconds since 1970; 0 where that is not known.
    pub born: i64,
    /// The type of its file system, in the words of `stat`.
    pub file_system: String,
}

/// A file system mounted below a root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountThere {
    /// Which root it is below.
    pub index: usize,
    /// Where.
    pub path: Vec<u8>,
    /// Its device there.
    pub dev: Device,
}

/// Something that a process has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The process.
    pub pid: u32,
    /// Where below `/proc` it is.
    pub place: String,
    /// Its device there.
    pub dev: Device,
    /// Its inode.
    pub ino: u64,
}

/// What a node said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// The roots that are there.
    pub roots: Vec<RootThere>,
    /// Mounts below them.
    pub mounts: Vec<MountThere>,
    /// What processes have on their file systems.
    pub held: Vec<Held>,
    /// Processes that were there.
    pub processes: usize,
    /// Processes that could not be looked at, or not wholly.
    pub unreadable: Vec<u32>,
    /// Whether all processes of the machine were visible.
    pub whole_machine: bool,
}

/// More of something that a process has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Detail {
    /// The process.
    pub pid: u32,
    /// Its name and arguments, for people.
    pub command: String,
    /// Its user.
    pub uid: u32,
    /// What it does.
    pub what: UseKind,
    /// The path as it sees it, for people.
    pub path: Vec<u8>,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

/// Lists what processes have open on the file systems of these trees.
///
/// # Errors
/// Where the node cannot be reached, cannot list this, or says something that is not understood.
pub fn list(node: &Node, paths: &[Vec<u8>]) -> io::Result<Listing> {
    let mut arguments = Vec::new();
    for path in paths {
        arguments.push(OsString::from_vec(path.clone()));
        arguments.push(OsString::from_vec(as_in_mountinfo(path)));
    }
    let done = node
        .script(Rights::Root, ROOTS, &arguments, LIST_MAX, Sharing::Open, QUESTION)
        .map_err(said)?;
    if !done.status.success() {
        return Err(wrong(format!("the list ended with {}: {}", done.ending(), done.said())));
    }
    if done.stdout.is_cut() || done.stderr.is_cut() {
        return Err(wrong("the list of open files is too long"));
    }
    let mut listing = parse_list(&done.stdout.kept, paths.len())?;
    listing.unreadable = unreadable(&String::from_utf8_lossy(&done.stderr.kept))?;
    Ok(listing)
}

/// An error with its causes, for it is told as one.
pub(super) fn said(error: crate::host::run::RunError) -> io::Error {
    match std::error::Error::source(&error) {
        Some(source) => wrong(format!("{error}: {source}")),
        None => wrong(error.to_string()),
    }
}

/// `mountinfo` writes these bytes by number.
fn as_in_mountinfo(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len());
    // The root directory's mounts are below an empty prefix.
    for &byte in if path == b"/" { b"" } else { path } {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.extend(format!("\\{byte:03o}").into_bytes()),
            byte => text.push(byte),
        }
    }
    text
}

fn from_mountinfo(text: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digits = text.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if text[at] == b'\\' => {
                path.push(byte);
                at += 4;
            }
            _ => {
                path.push(text[at]);
                at += 1;
            }
        }
    }
    path
}

/// A device number as `stat` prints it.
fn device(text: &str) -> Option<Device> {
    let number: u64 = text.parse().ok()?;
    Some((rustix::fs::major(number), rustix::fs::minor(number)))
}

fn parse_list(answer: &[u8], paths: usize) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut whole = false;
    for line in answer.split(|&b| b == b'\n') {
        let text = String::from_utf8_lossy(line);
        let odd = || wrong(format!("an answer is not understood: {}", printable(line)));
        let Some((kind, rest)) = text.split_once(' ') else {
            match text.as_ref() {
                "X" => return Err(wrong("there is no GNU find, which could list open files")),
                "Z" => whole = true,
                _ => {}
            }
            continue;
        };
        let mut words = rest.split(' ');
        match kind {
            "N" => {
                listing.whole_machine = rest == format!("{FIRST_PID_NAMESPACE} kthreadd");
            }
            "P" => listing.processes = rest.parse().map_err(|_| odd())?,
            "E" => {
                let what = rest.split_once(' ').map_or("", |(_, what)| what);
                return Err(wrong(format!(
                    "a tree cannot be looked at: {}",
                    printable(what.as_bytes())
                )));
            }
            "R" => {
                let root = root(&mut words).filter(|root| root.index < paths).ok_or_else(odd)?;
                listing.roots.push(root);
            }
            "M" => {
                let index = words.next().and_then(|n| n.parse().ok()).ok_or_else(odd)?;
                let dev = words.next().and_then(device).ok_or_else(odd)?;
                let path = line.splitn(4, |&b| b == b' ').nth(3).ok_or_else(odd)?;
                listing.mounts.push(MountThere { index, path: from_mountinfo(path), dev });
            }
            "F" => listing.held.push(held(&mut words).ok_or_else(odd)?),
            // A login shell may greet.
            _ => {}
        }
    }
    if whole { Ok(listing) } else { Err(wrong("the list of open files has no end")) }
}

fn root<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<RootThere> {
    let index = words.next()?.parse().ok()?;
    let dev = device(words.next()?)?;
    let ino = words.next()?.parse().ok()?;
    // A file system that knows none says `-`, or 0.
    let born = words.next()?.parse().unwrap_or(0);
    let file_system = words.collect::<Vec<_>>().join(" ");
    Some(RootThere { index, dev, ino, born, file_system })
}

fn held<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Held> {
    let dev = device(words.next()?)?;
    let ino = words.next()?.parse().ok()?;
    let place = words.next()?;
    let pid = place.split('/').next()?.parse().ok()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_-".contains(c);
    if !place.chars().all(fits) || words.next().is_some() {
        return None;
    }
    Some(Held { pid, place: place.to_owned(), dev, ino })
}

/// The processes that tools complained about, those that only went away left out.
fn unreadable(stderr: &str) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for line in stderr.lines() {
        let tool = ["find: ", "grep: "].iter().find_map(|tool| line.strip_prefix(tool));
        let Some(rest) = tool else { continue };
        if ["No such file or directory", "No such process"].iter().any(|end| rest.ends_with(end)) {
            continue;
        }
        let digits: String = rest
            .chars()
            .skip_while(|c| "'\u{2018}`".contains(*c))
            .take_while(char::is_ascii_digit)
            .collect();
        match digits.parse() {
            Ok(pid) => pids.push(pid),
            Err(_) => {
                return Err(wrong(format!("a tool there said: {}", printable(line.as_bytes()))));
            }
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Tells more of these; what went away meanwhile is told as far as it is known.
///
/// # Errors
/// As [`list`].
pub fn details(node: &Node, all: &[Held]) -> io::Result<Vec<Detail>> {
    let mut found = Vec::new();
    for some in all.chunks(AT_ONCE) {
        let places: Vec<OsString> = some.iter().map(|held| held.place.clone().into()).collect();
        let done = node
            .script(Rights::Root, DETAILS, &places, LIST_MAX, Sharing::Open, QUESTION)
            .map_err(said)?;
        let details = parse_details(&done.stdout.kept, some);
        if details.len() != some.len() {
            return Err(wrong("what processes have open could not be told"));
        }
        found.extend(details);
    }
    Ok(found)
}

fn parse_details(answer: &[u8], asked: &[Held]) -> Vec<Detail> {
    let mut found: Vec<Detail> = Vec::new();
    for line in answer.split(|&b| b == b'\n') {
        let Some(rest) = line.get(2..).filter(|_| line.get(1) == Some(&b' ')) else { continue };
        let text = String::from_utf8_lossy(rest);
        if line[0] == b'U' {
            let Some(held) = asked.get(found.len()).filter(|held| held.place == text) else {
                break;
            };
            let (pid, what) = (held.pid, kind(&held.place, None));
            let command = String::new();
            found.push(Detail { pid, command, uid: u32::MAX, what, path: Vec::new() });
            continue;
        }
        let Some(detail) = found.last_mut() else { continue };
        match line[0] {
            b'G' => {
                let place = &asked[found.len() - 1].place;
                let what = kind(place, u32::from_str_radix(text.trim(), 8).ok());
                if let Some(detail) = found.last_mut() {
                    detail.what = what;
                }
            }
            b'O' => detail.uid = text.trim().parse().unwrap_or(u32::MAX),
            b'C' => {
                let said = text.trim_matches([' ', ':']);
                let said = if said.is_empty() { "it has ended since" } else { said };
                detail.command = printable(said.as_bytes());
            }
            b'T' => detail.path = rest.to_vec(),
            _ => {}
        }
    }
    found
}

/// What a place below `/proc` means. A descriptor whose flags are not known may be written to.
fn kind(place: &str, flags: Option<u32>) -> UseKind {
    let mut parts = place.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("cwd"), _) => UseKind::Cwd,
        (Some("root"), _) => UseKind::Root,
        (Some("exe"), _) => UseKind::Exe,
        (Some("fd"), number) => {
            let writes = |flags: u32| flags & O_ACCMODE != 0 && flags & O_PATH == 0;
            UseKind::Fd {
                fd: number.and_then(|fd| fd.parse().ok()).unwrap_or(u32::MAX),
                writable: flags.is_none_or(writes),
                flags: flags.unwrap_or(0),
            }
        }
        _ => UseKind::Map { writable: true },
    }
}

#[cfg(test)]
mod tests;
