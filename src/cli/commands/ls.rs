//! `ls ID[:PATH]`

use std::cell::RefCell;
use std::collections::HashMap;

use serde::Serialize;
use serde::ser::{Error as _, SerializeMap, SerializeSeq};

use crate::base::path::printable;
use crate::base::size::human_size;
use crate::base::time::Timestamp;
use crate::cli::args::LsArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::global::Context;
use crate::cli::view::PathView;
use crate::format::manifest::Owners;
use crate::format::tree::{Entry, Node};
use crate::ops::ls::{Depth, ls, root};
use crate::store::reader::Reader;

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    path: PathView,
    r#type: &'static str,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    user: Option<&'a str>,
    group: Option<&'a str>,
    mtime: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<bool>,
}

/// Lists files of a snapshot or capture.
///
/// # Errors
/// Those of opening the repository and of finding record and path; exit 20 for damage, behind what
/// could be listed.
pub fn run(context: &Context, args: &LsArgs) -> Result<Exit, CliError> {
    let mut session = context.session()?;
    let catalogue = context.catalogue(&session.repository)?;
    let record = context.record(&catalogue, &args.what.reference)?;
    let repository = std::sync::Arc::clone(&session.repository);
    context.reading(&repository, args.read, "ls", vec![record.id], || {
        context.sync(&mut session)?;
        let reader = session.reader();
        let listing = Listing {
            root: root(record, &reader)?,
            reader: &reader,
            path: args.what.path.as_deref(),
            depth: match (args.recursive, &args.what.path) {
                (true, _) => Depth::All,
                (false, None) => Depth::Sources,
                (false, Some(_)) => Depth::One,
            },
            users: names(&record.body.owners, |o| &o.users),
            groups: names(&record.body.owners, |o| &o.groups),
            failed: RefCell::new(None),
        };
        // A path that is not there is told before anything is printed.
        listing.start()?;
        context.out().finish(&listing, |to| {
            listing.walk(&mut |row, entry| Ok(write_row(to, row, entry)?))
        })?;
        listing.failed.into_inner().map_or(Ok(Exit::Ok), Err)
    })
}

fn names<'a>(
    owners: &'a Owners,
    which: impl Fn(&'a Owners) -> &'a Vec<(u32, String)>,
) -> HashMap<u32, &'a str> {
    which(owners).iter().map(|(number, name)| (*number, name.as_str())).collect()
}

/// What is listed, entry by entry: a million entries are never held.
struct Listing<'a> {
    root: Entry,
    reader: &'a Reader,
    path: Option<&'a [u8]>,
    depth: Depth,
    users: HashMap<u32, &'a str>,
    groups: HashMap<u32, &'a str>,
    /// What ended the walk early; the document is closed all the same.
    failed: RefCell<Option<CliError>>,
}

/// Why an entry was not printed, or not found.
enum Stop {
    Fault(CliError),
    Output(std::io::Error),
}

impl From<crate::tree::walk::WalkError> for Stop {
    fn from(error: crate::tree::walk::WalkError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl Listing<'_> {
    fn start(&self) -> Result<(), CliError> {
        crate::tree::walk::find(self.reader, &self.root, self.path.unwrap_or(b"/"))?;
        Ok(())
    }

    fn walk(
        &self,
        each: &mut dyn FnMut(&Row<'_>, &Entry) -> Result<(), Stop>,
    ) -> std::io::Result<()> {
        let done = ls(self.reader, &self.root, self.path, self.depth, &mut |path, entry| {
            each(&self.row(path, entry), entry)
        });
        match done {
            Ok(()) => Ok(()),
            Err(Stop::Output(error)) => Err(error),
            Err(Stop::Fault(error)) => {
                *self.failed.borrow_mut() = Some(error);
                Ok(())
            }
        }
    }

    fn row(&self, path: &[u8], entry: &Entry) -> Row<'_> {
        let meta = &entry.meta;
        let (kind, size, target, partial) = match &entry.node {
            Node::File { size, .. } => ("file", *size, None, None),
            Node::Dir { partial, .. } => ("dir", 0, None, partial.then_some(true)),
            Node::Symlink { target } => ("symlink", target.len() as u64, Some(target), None),
            Node::Fifo => ("fifo", 0, None, None),
            Node::Socket => ("socket", 0, None, None),
            Node::CharDevice { .. } => ("chardev", 0, None, None),
            Node::BlockDevice { .. } => ("blockdev", 0, None, None),
        };
        Row {
            path: PathView(path.to_vec()),
            r#type: kind,
            size,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            user: self.users.get(&meta.uid).copied(),
            group: self.groups.get(&meta.gid).copied(),
            mtime: meta.mtime,
            target: target.map(|t| crate::base::path::lossy(t).into_owned()),
            target_hex: target.and_then(|t| crate::base::path::hex_if_not_utf8(t)),
            hard_link: meta.link,
            partial,
        }
    }
}

impl Serialize for Listing<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        struct Entries<'a>(&'a Listing<'a>);
        impl Serialize for Entries<'_> {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let mut list = s.serialize_seq(None)?;
                let done = self.0.walk(&mut |row, _| {
                    let put = list.serialize_element(row);
                    put.map_err(|e| Stop::Output(std::io::Error::other(e.to_string())))
                });
                done.map_err(S::Error::custom)?;
                list.end()
            }
        }
        let mut map = s.serialize_map(Some(1))?;
        map.serialize_entry("entries", &Entries(self))?;
        map.end()
    }
}

fn write_row(to: &mut dyn std::io::Write, row: &Row<'_>, entry: &Entry) -> std::io::Result<()> {
    let owner = |name: Option<&str>, number: u32| match name {
        Some(name) => printable(name.as_bytes()),
        None => number.to_string(),
    };
    let arrow = match &entry.node {
        Node::Symlink { target } => format!(" -> {}", printable(target)),
        _ => String::new(),
    };
    writeln!(
        to,
        "{}{} {:<10} {:<10} {:>9} {} {}{arrow}",
        letter(&entry.node),
        permissions(row.mode),
        owner(row.user, row.uid),
        owner(row.group, row.gid),
        human_size(row.size),
        super::snapshots::seconds(&row.mtime),
        printable(&row.path.0),
    )
}

const fn letter(node: &Node) -> char {
    match node {
        Node::File { .. } => '-',
        Node::Dir { .. } => 'd',
        Node::Symlink { .. } => 'l',
        Node::Fifo => 'p',
        Node::Socket => 's',
        Node::CharDevice { .. } => 'c',
        Node::BlockDevice { .. } => 'b',
    }
}

/// Permission bits as `ls -l` writes them.
fn permissions(mode: u32) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, low, high) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => low,
            (true, false) => high,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_as_everybody_writes_them() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o4755), "rwsr-xr-x");
        assert_eq!(permissions(0o7644), "rwSr-Sr-T");
        assert_eq!(permissions(0o1777), "rwxrwxrwt");
    }
}
