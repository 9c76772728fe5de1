//! Manifests: what a committed snapshot or capture is. JSON, compressed, sealed as a control object.
//!
//! The two kinds have objects of different kinds (`ObjectKind::Snapshot`, `ObjectKind::Capture`):
//! another prefix, another magic, another key. The body says its kind a second time.

use serde::{Deserialize, Serialize};

use super::control::HexBytes;
use crate::base::id::{ChunkId, ManifestId};
use crate::base::time::Timestamp;

/// Snapshot or capture.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// A full record of a site whose evidence all held.
    Snapshot,
    /// A best-effort copy, never restorable.
    Capture,
}

/// Where a record comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Read in a window.
    Window,
    /// Read while the service lived.
    Live,
}

/// The window in which a snapshot was read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WindowRecord {
    /// When the service began to stop on the first node; `None` where it was stopped already.
    pub stopped_at: Option<Timestamp>,
    /// When it ran again on the last; `None` where nothing was started.
    pub started_at: Option<Timestamp>,
    /// Milliseconds between the two.
    pub downtime_ms: Option<u64>,
    /// The nodes.
    pub nodes: Vec<NodeRecord>,
    /// What was frozen in it, to be read after the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<FrozenRecord>,
    /// How long each part of it took; `None` where nothing was stopped, or where nobody measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phases: Option<WindowPhases>,
}

/// How long each part of a window took, in milliseconds. They follow one another, from the first
/// stop to the last start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WindowPhases {
    /// Until all services were stopped.
    pub stop_ms: u64,
    /// Until processes had left the sources.
    pub quiet_ms: u64,
    /// Until everything that had changed was looked at and read.
    pub read_ms: u64,
    /// Until it was judged whether anything had moved meanwhile.
    pub proof_ms: u64,
    /// Until the last service ran again.
    pub start_ms: u64,
}

/// Sources that were frozen while the service was stopped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrozenRecord {
    /// How: `btrfs`, `command`.
    pub by: String,
    /// Paths of the sources, for people.
    pub paths: Vec<String>,
    /// What was made for it, for people.
    pub made: String,
    /// When that was done.
    pub at: Timestamp,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

impl WindowPhases {
    /// Each with its name, in their order.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("stop", self.stop_ms),
            ("quiet wait", self.quiet_ms),
            ("read", self.read_ms),
            ("proof", self.proof_ms),
            ("start", self.start_ms),
        ]
    }
}

/// One service on one node, in a window.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    /// `local`, or the node's address.
    pub node: String,
    /// The unit or command.
    pub service: String,
    /// Whether it ran before.
    pub ran_before: bool,
    /// Whether it ran at the end, where that was asked for.
    pub runs_after: Option<bool>,
}

/// How something is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Seen by cabk.
    Observed,
    /// Said by the operator.
    Asserted,
}

/// One check of the evidence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// Which check: a fixed name, like `tree-unchanged`.
    pub check: String,
    /// What it was about.
    pub subject: String,
    /// On which node.
    pub node: String,
    /// How far cabk could see.
    pub scope: String,
    /// Whether it held.
    pub held: bool,
    /// Seen or said.
    pub how: How,
    /// What was seen.
    pub detail: String,
    /// When it was looked at, the first time and the last; manifests of older versions have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looked_at: Vec<Timestamp>,
}

/// One source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceRecord {
    /// All its roles, the main one first.
    pub roles: Vec<String>,
    /// The path, absolute; `None` for a database.
    pub path: Option<HexBytes>,
    /// The database; `None` for a path.
    pub database: Option<String>,
    /// The setting that names it.
    pub setting: Option<String>,
    /// Bytes of content.
    pub bytes: u64,
    /// Whether it is a directory: restored in place, what it does not hold is removed from it.
    pub dir: bool,
}

/// What could not be read or was not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProblemRecord {
    /// Where.
    pub path: HexBytes,
    /// What.
    pub error: String,
}

/// A mount inside of a source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MountRecord {
    /// Where.
    pub path: HexBytes,
    /// File system type.
    pub fs_type: String,
    /// Whether it was crossed (real) or left out (pseudo, or `--one-file-system`).
    pub crossed: bool,
}

/// Counts of one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Files, special ones included.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of all files' data.
    pub bytes: u64,
    /// Files that the previous run did not have.
    pub files_new: u64,
    /// Files that were read again.
    pub files_changed: u64,
    /// Files that were not read.
    pub files_unmodified: u64,
    /// Chunks that the repository did not have.
    pub chunks_new: u64,
    /// Bytes that the repository grew by.
    pub bytes_added: u64,
    /// Milliseconds that the run took.
    pub duration_ms: u64,
}

/// Names of the owners, as they were on the machine of the source.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Owners {
    /// Users: number and name.
    pub users: Vec<(u32, String)>,
    /// Groups: number and name.
    pub groups: Vec<(u32, String)>,
}

/// Body of a manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManifestBody {
    /// Snapshot or capture, once more.
    pub kind: RecordKind,
    /// Where it comes from.
    pub origin: Origin,
    /// Site label.
    pub site: String,
    /// Machine that wrote it.
    pub host: String,
    /// When reading began.
    pub time: Timestamp,
    /// Version of cabk.
    pub tool_version: String,
    /// Version of Connect, where it is installed.
    pub connect_version: Option<String>,
    /// Number of this manifest among those of its site by this writer, from 1.
    pub sequence: u64,
    /// The writer: a client's own id, kept in its state directory.
    pub writer: String,
    /// The newest manifests of the site that were there when this one was made.
    pub predecessors: Vec<ManifestId>,
    /// Tags.
    pub tags: Vec<String>,
    /// The window, of origin window.
    pub window: Option<WindowRecord>,
    /// What was observed.
    pub evidence: Vec<Evidence>,
    /// What was read.
    pub sources: Vec<SourceRecord>,
    /// Exclusions in force, as given.
    pub excludes: Vec<String>,
    /// Paths that were left out whatever was asked for: the repository, and cabk's own cache and
    /// state. Manifests of older versions say nothing of them.
    #[serde(default)]
    pub left_out: Vec<HexBytes>,
    /// Mounts met in sources.
    pub mounts: Vec<MountRecord>,
    /// The entry of `/`, encoded (`format::tree`).
    pub root: HexBytes,
    /// Owners' names.
    pub owners: Owners,
    /// Counts.
    pub summary: Summary,
    /// The first problems.
    pub problems: Vec<ProblemRecord>,
    /// How many problems there were.
    pub problems_total: u64,
    /// Chunk roots that this manifest reaches beside `root`.
    pub extra_roots: Vec<ChunkId>,
    /// Warnings that a reader should see again.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::control::{from_body, to_body};

    #[test]
    fn names_at_rest_are_those_of_the_contract() {
        let evidence = Evidence {
            check: "tree-unchanged".into(),
            subject: "/var/lib/rstudio-connect".into(),
            node: "local".into(),
            scope: "host".into(),
            held: true,
            how: How::Observed,
            detail: String::new(),
            looked_at: Vec::new(),
        };
        let text = String::from_utf8(to_body(&evidence).unwrap()).unwrap();
        assert!(text.contains("\"how\":\"observed\""), "{text}");
        assert_eq!(from_body::<Evidence>(text.as_bytes(), "evidence"), Ok(evidence));
        assert_eq!(serde_json::to_string(&RecordKind::Capture).unwrap(), "\"capture\"");
        assert_eq!(serde_json::to_string(&Origin::Live).unwrap(), "\"live\"");
    }
}
