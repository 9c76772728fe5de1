//! Snapshots, captures and their parts as JSON, in the words of the manual.

use serde::Serialize;
use serde::ser::SerializeMap;

use crate::base::path::{hex_if_not_utf8, lossy};
use crate::base::time::Timestamp;
use crate::format::manifest::{Evidence, Origin, RecordKind, SourceRecord, Summary, WindowRecord};
use crate::record::catalogue::Record;

/// A path: `path`, and `path_hex` where it is not UTF-8. Flattened into what has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathView(pub Vec<u8>);

impl Serialize for PathView {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("path", &lossy(&self.0))?;
        if let Some(hex) = hex_if_not_utf8(&self.0) {
            map.serialize_entry("path_hex", &hex)?;
        }
        map.end()
    }
}

/// The last drill.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DrilledView {
    /// When.
    pub at: Timestamp,
    /// Whether everything held.
    pub passed: bool,
}

/// A record in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecordView {
    /// Its id.
    pub id: String,
    /// Snapshot or capture.
    pub kind: RecordKind,
    /// Whether it can be restored.
    pub restorable: bool,
    /// Window or live.
    pub origin: Origin,
    /// Site label.
    pub site: String,
    /// Machine that wrote it.
    pub host: String,
    /// When reading began.
    pub time: Timestamp,
    /// Tags.
    pub tags: Vec<String>,
    /// Version of Connect.
    pub connect_version: Option<String>,
    /// Whether the evidence that decides the kind held.
    pub evidence_held: bool,
    /// The last drill.
    pub drilled: Option<DrilledView>,
    /// Whether it is kept out of retention.
    pub pinned: bool,
    /// Counts.
    pub summary: Summary,
}

impl RecordView {
    /// A record as a list shows it.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let body = &record.body;
        Self {
            id: record.id.to_hex(),
            kind: record.kind,
            restorable: record.is_restorable(),
            origin: body.origin,
            site: body.site.clone(),
            host: body.host.clone(),
            time: body.time,
            tags: body.tags.clone(),
            connect_version: body.connect_version.clone(),
            evidence_held: record.evidence_held(),
            drilled: record.drilled.map(|(at, passed)| DrilledView { at, passed }),
            pinned: record.pinned.is_some(),
            summary: body.summary,
        }
    }
}

/// A source: the main role, all roles, path or database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SourceView {
    /// The main role.
    pub role: String,
    /// All roles.
    pub roles: Vec<String>,
    /// The path.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathView>,
    /// The database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The setting that names it.
    pub setting: Option<String>,
    /// Bytes of content.
    pub bytes: u64,
}

impl SourceView {
    /// A source of a manifest.
    #[must_use]
    pub fn of(source: &SourceRecord) -> Self {
        Self {
            role: source.roles.first().cloned().unwrap_or_default(),
            roles: source.roles.clone(),
            path: source.path.as_ref().map(|p| PathView(p.0.clone())),
            database: source.database.clone(),
            setting: source.setting.clone(),
            bytes: source.bytes,
        }
    }
}

/// Something that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProblemView {
    /// Where.
    #[serde(flatten)]
    pub path: PathView,
    /// What.
    pub error: String,
}

/// A mount met in a source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MountView {
    /// Where.
    #[serde(flatten)]
    pub path: PathView,
    /// File system type.
    pub fs_type: String,
    /// Whether what is in it was read.
    pub crossed: bool,
}

/// A record with all that is known of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FullView {
    /// What a list shows.
    #[serde(flatten)]
    pub record: RecordView,
    /// The newest of its predecessors.
    pub parent: Option<String>,
    /// Version of cabk.
    pub tool_version: String,
    /// The window.
    pub window: Option<WindowRecord>,
    /// What was observed.
    pub evidence: Vec<Evidence>,
    /// What was read.
    pub sources: Vec<SourceView>,
    /// Exclusions in force.
    pub excludes: Vec<String>,
    /// Mounts met.
    pub mounts: Vec<MountView>,
    /// The first problems.
    pub problems: Vec<ProblemView>,
    /// All problems.
    pub problems_total: u64,
    /// What a reader should see again.
    pub warnings: Vec<String>,
}

impl FullView {
    /// A record with all that is known of it.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let body = &record.body;
        let problem = |p: &crate::format::manifest::ProblemRecord| ProblemView {
            path: PathView(p.path.0.clone()),
            error: p.error.clone(),
        };
        let mount = |m: &crate::format::manifest::MountRecord| MountView {
            path: PathView(m.path.0.clone()),
            fs_type: m.fs_type.clone(),
            crossed: m.crossed,
        };
        Self {
            record: RecordView::of(record),
            parent: body.predecessors.first().map(|id| id.to_hex()),
            tool_version: body.tool_version.clone(),
            window: body.window.clone(),
            evidence: body.evidence.clone(),
            sources: body.sources.iter().map(SourceView::of).collect(),
            excludes: body.excludes.clone(),
            mounts: body.mounts.iter().map(mount).collect(),
            problems: body.problems.iter().map(problem).collect(),
            problems_total: body.problems_total,
            warnings: body.warnings.clone(),
        }
    }
}
