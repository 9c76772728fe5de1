//! What a restore in place never touches: what was no part of the snapshot, and what cabk itself
//! needs here and now.

use std::collections::HashSet;
use std::path::Path;

use super::{RestoreInput, Target};
use crate::base::path::{bytes, components, from_bytes, is_within, printable};
use crate::host::fs::TargetDir;

/// An inode: device and number.
pub(super) type Inode = ((u32, u32), u64);

/// What is left alone.
#[derive(Default)]
pub(super) struct Kept {
    /// Paths, with all below them.
    pub(super) paths: Vec<Vec<u8>>,
    /// The same directories by what they are: a bind mount shows them at other paths.
    pub(super) inodes: HashSet<Inode>,
    /// Directories above them.
    pub(super) above: HashSet<Inode>,
}

/// What a restore in place leaves alone, and what is to be said of it.
pub(super) fn alone(input: &RestoreInput<'_>) -> (Kept, Vec<String>) {
    let (mut kept, mut notes) = (Kept::default(), Vec::new());
    if input.target != Target::InPlace {
        return (kept, notes);
    }
    let body = input.snapshot.body();
    if !input.with_license && body.host != input.host {
        let licences = body.sources.iter().filter(|s| s.roles.iter().any(|r| r == "license"));
        for path in licences.filter_map(|s| s.path.as_ref()) {
            let shown = printable(&path.0);
            notes.push(format!("{shown} is licence state of {}: left out", body.host));
            kept.paths.push(path.0.clone());
        }
    }
    kept.paths.extend(body.left_out.iter().map(|path| path.0.clone()));
    let repository = input.reader.repository().backend().local().map(|local| local.root());
    for path in repository.into_iter().chain(input.kept.iter().map(|path| path.as_path())) {
        // As it was named too: below a source that is not there yet nothing can be followed.
        kept.paths.extend(std::path::absolute(path).ok().map(|path| bytes(&path).to_vec()));
        if let Ok(real) = std::fs::canonicalize(path) {
            kept.know(&real);
            kept.paths.push(bytes(&real).to_vec());
        }
    }
    let sources: Vec<&[u8]> =
        body.sources.iter().filter_map(|s| s.path.as_ref()).map(|p| p.0.as_slice()).collect();
    let touches = |path: &[u8]| sources.iter().any(|s| is_within(path, s) || is_within(s, path));
    kept.paths.retain(|path| components(path).next().is_some() && touches(path));
    kept.paths.sort();
    kept.paths.dedup();
    (kept, notes)
}

impl Kept {
    /// Remembers a directory and those above it by what they are. One that cannot be looked at is
    /// known by its path alone.
    fn know(&mut self, real: &Path) {
        for (at, path) in real.ancestors().enumerate() {
            let path = bytes(path);
            let found = match std::fs::symlink_metadata(from_bytes(path)) {
                Ok(meta) if meta.is_dir() => TargetDir::open_root(path).and_then(|d| d.stat_self()),
                _ => continue,
            };
            let Ok(stat) = found else { continue };
            let inodes = if at == 0 { &mut self.inodes } else { &mut self.above };
            inodes.insert((stat.dev, stat.ino));
        }
    }
}
