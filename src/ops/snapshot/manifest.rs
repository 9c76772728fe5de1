//! The manifest's body, from what was read and observed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Ahead, SnapshotInput};
use crate::base::id::{ChunkId, ContentHash, ManifestId};
use crate::base::limits;
use crate::base::path::from_bytes;
use crate::base::time::Timestamp;
use crate::format::control::HexBytes;
use crate::format::manifest::{
    ManifestBody, MountRecord, Origin, Owners as OwnerNames, ProblemRecord, RecordKind, Summary,
    WindowRecord,
};
use crate::format::tree::{Entry, Node};
use crate::host::machine;
use crate::host::users::OwnersError;
use crate::intake::forest::Forest;
use crate::record::catalogue::{Catalogue, Record};
use crate::record::memory::Memory;
use crate::store::writer::WriteStats;
use crate::window::phases::{Mode, Restarted};

/// Owners whose names could not be looked up that are named one by one.
const NAMES_AWAY: usize = 20;

/// What a manifest is made from beside the tree.
pub(super) struct Maker<'a> {
    pub(super) input: &'a SnapshotInput<'a>,
    pub(super) restarted: &'a Restarted,
    pub(super) ahead: Ahead,
    pub(super) time: Timestamp,
    pub(super) stats: WriteStats,
    pub(super) duration: Duration,
    pub(super) known: &'a Catalogue,
    pub(super) memory: &'a Memory,
}

impl Maker<'_> {
    fn of_site(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.known.records.iter().filter(|r| r.body.site == self.input.window.site)
    }

    /// The newest manifest of the site.
    pub(super) fn parent(&self) -> Option<ManifestId> {
        self.of_site().next_back().map(|r| r.id)
    }

    fn sequence(&self) -> u64 {
        let remembered =
            self.memory.heads.get(&self.input.window.site).map_or(0, |head| head.sequence);
        let own = self.of_site().filter(|r| r.body.writer == self.memory.writer);
        own.map(|r| r.body.sequence).fold(remembered, u64::max) + 1
    }

    /// Names of all owners, and what kept a name from being found: without it that owner would be
    /// restored by number.
    fn owners(&self, forest: &Forest) -> (OwnerNames, Vec<String>) {
        let mut away = Vec::new();
        let (mut users, mut groups) = (forest.seen.users.clone(), forest.seen.groups.clone());
        if let Some(last) = self.of_site().next_back() {
            // Whom ACLs name is only known of what was read now.
            users.extend(last.body.owners.users.iter().map(|(id, _)| id));
            groups.extend(last.body.owners.groups.iter().map(|(id, _)| id));
        }
        let ask = self.input.owners;
        let names = OwnerNames {
            users: named(users, &|id| ask.user_name(id), &mut away),
            groups: named(groups, &|id| ask.group_name(id), &mut away),
        };
        let more = away.len().saturating_sub(NAMES_AWAY);
        if more > 0 {
            away.truncate(NAMES_AWAY);
            away.push(format!("{more} more owners could not be looked up"));
        }
        (names, away)
    }

    fn summary(&self, forest: &Forest) -> Summary {
        let seen = &forest.seen;
        // What was read ahead and once more in the window counts as what it was at first.
        let new = self.ahead.new.max(seen.files_new);
        let changed = self.ahead.changed.max(seen.files_changed);
        Summary {
            files: seen.files,
            dirs: seen.dirs,
            bytes: seen.bytes,
            files_new: new,
            files_changed: changed,
            files_unmodified: seen.files.saturating_sub(new + changed),
            chunks_new: self.stats.chunks_new,
            bytes_added: self.stats.bytes_stored,
            duration_ms: u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Plain directories have no service, and so no window.
    fn window(&self) -> Option<WindowRecord> {
        let record = (self.input.window.mode != Mode::NoService).then_some(&self.restarted.record);
        record.cloned()
    }

    /// The body. Its kind is set where it is committed.
    pub(super) fn body(&self, forest: &Forest, kind: RecordKind) -> ManifestBody {
        let seen = &forest.seen;
        let (owners, away) = self.owners(forest);
        let mut root = Vec::new();
        forest.root.encode(&mut root);
        let mut sources = self.input.sources.clone();
        for source in &mut sources {
            let Some(path) = source.path.as_ref().map(|p| p.0.as_slice()) else { continue };
            let counted = self.input.plan.counted.iter().position(|p| p == path);
            source.bytes = match counted.and_then(|at| seen.counted.get(at)) {
                Some(bytes) => *bytes,
                // A single file; one that is gone meanwhile is a problem of the reading.
                None => std::fs::symlink_metadata(from_bytes(path)).map_or(0, |m| m.len()),
            };
        }
        let problem = |(path, error): &(Vec<u8>, String)| ProblemRecord {
            path: HexBytes(path.clone()),
            error: error.clone(),
        };
        ManifestBody {
            kind,
            origin: Origin::Window,
            site: self.input.window.site.clone(),
            host: machine::hostname().unwrap_or_default(),
            time: self.time,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            connect_version: self.input.connect_version.clone(),
            sequence: self.sequence(),
            writer: self.memory.writer.clone(),
            predecessors: self.parent().into_iter().collect(),
            tags: self.input.tags.clone(),
            window: self.window(),
            evidence: self.restarted.evidence.clone(),
            sources,
            excludes: self.input.plan.excludes().to_vec(),
            left_out: self.input.plan.left_out.iter().cloned().map(HexBytes).collect(),
            mounts: seen
                .mounts
                .iter()
                .map(|(path, fs_type, crossed)| MountRecord {
                    path: HexBytes(path.clone()),
                    fs_type: fs_type.clone(),
                    crossed: *crossed,
                })
                .collect(),
            root: HexBytes(root),
            owners,
            summary: self.summary(forest),
            problems: first(&seen.problems).iter().map(problem).collect(),
            problems_total: seen.problems.len() as u64,
            extra_roots: vec![],
            warnings: [self.input.warnings.as_slice(), &away].concat(),
        }
    }
}

/// As many problems as a manifest names; all are counted.
fn first(all: &[(Vec<u8>, String)]) -> &[(Vec<u8>, String)] {
    let mut bytes = 0;
    let fits = all.iter().take(limits::MANIFEST_PROBLEMS_MAX).take_while(|(path, text)| {
        bytes += path.len() + text.len();
        bytes <= limits::MANIFEST_PROBLEM_BYTES_MAX
    });
    &all[..fits.count()]
}

/// The names of these numbers; what could not be looked up is told in `away`. A number without a name
/// is ordinary; it is restored as a number.
fn named(
    ids: BTreeSet<u32>,
    ask: &dyn Fn(u32) -> Result<Option<String>, OwnersError>,
    away: &mut Vec<String>,
) -> Vec<(u32, String)> {
    let mut names = Vec::with_capacity(ids.len());
    for id in ids {
        match ask(id) {
            Ok(name) => names.extend(name.map(|name| (id, name))),
            Err(error) => {
                let why = &error.source;
                away.push(format!("{error}: {why}; it is kept, and restored, as a number"));
            }
        }
    }
    names
}

/// The chunks that a manifest's root names.
pub(super) fn roots(body: &ManifestBody) -> Vec<ChunkId> {
    let none = ContentHash::from_array([0; 32]);
    match Entry::decode(&body.root.0, &none) {
        Ok(Entry { node: Node::Dir { tree, .. }, .. }) => tree.into_iter().collect(),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_looked_up_is_told_and_one_that_is_not_there_is_not() {
        let source = std::sync::Arc::new(std::io::Error::other("the directory is away"));
        let ask = |id: u32| match id {
            1 => Ok(Some("connect".to_owned())),
            2 => Ok(None),
            _ => Err(OwnersError { what: format!("user {id}"), source: source.clone() }),
        };
        let mut away = Vec::new();
        let names = named(BTreeSet::from([1, 2, 3]), &ask, &mut away);
        assert_eq!(names, [(1, "connect".to_owned())]);
        assert_eq!(away.len(), 1);
        assert!(away[0].contains("user 3: the directory is away"), "{away:?}");
    }
}
