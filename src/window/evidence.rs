//! How what was seen becomes evidence: the rules of each check, without any I/O of their own.

use std::path::PathBuf;
use std::time::Duration;

use super::observe::{Observer, Trees};
use super::sqlite::SqliteGroup;
use crate::base::path::printable;
use crate::base::time::Timestamp;
use crate::format::manifest::{Evidence, How};
use crate::host::process::{ProcessUse, ScanResult, ScanScope, UseKind};

/// Things that one detail names; the others are counted.
const NAMED: usize = 5;

/// What the operator said about evidence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// Names of checks that count as held where they cannot be observed (`[evidence] assert`).
    pub asserts: Vec<String>,
    /// Programs whose reading in the trees is tolerated (`[evidence] allow`).
    pub allow: Vec<PathBuf>,
}

impl Rules {
    /// Whether a check counts as held where it cannot be observed.
    #[must_use]
    pub fn asserts(&self, check: &str) -> bool {
        self.asserts.iter().any(|name| name == check)
    }
}

/// What the second look at a tree said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeLook {
    /// The source's path.
    pub path: Vec<u8>,
    /// How it was looked at, for people.
    pub by: String,
    /// Whether all of it was judged by what the kernel told of changes.
    pub by_events: bool,
    /// How many entries are not as they were when they were read, those that came and went too.
    pub changed: u64,
    /// The first of them.
    pub examples: Vec<Vec<u8>>,
}

/// Whether a source was read whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceRead {
    /// The source, a path or a database.
    pub subject: Vec<u8>,
    /// Whether it was.
    pub whole: bool,
    /// What was read, or what was not and why.
    pub detail: String,
}

/// What was looked at again after the reading.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecondLook {
    /// Every tree. None at all proves nothing.
    pub trees: Vec<TreeLook>,
    /// Every source. None at all proves nothing.
    pub sources: Vec<SourceRead>,
    /// The SQLite groups in the sources.
    pub sqlite: Vec<SqliteGroup>,
    /// Files that were removed and that some client of a network file system still has open.
    pub still_open: Vec<Vec<u8>>,
}

impl SecondLook {
    /// Whether whatever changed in any of the trees would have been told.
    #[must_use]
    pub fn is_by_events(&self) -> bool {
        !self.trees.is_empty() && self.trees.iter().all(|tree| tree.by_events)
    }
}

/// Stands before what only reads, in the detail of a check that held.
pub const ONLY_READS: &str = "only reading";

/// What is said of a check that could not be observed.
pub(super) fn unseen(asserted: bool, why: &str) -> (bool, How, String) {
    if asserted {
        (true, How::Asserted, format!("asserted by the operator, because {why}"))
    } else {
        (false, How::Observed, format!("this cannot be told: {why}"))
    }
}

/// One scan, judged.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// What breaks the check where nothing but a second scan would show what it did, for people.
    pub(super) breaking: Vec<String>,
    /// What breaks it in any case: those of them that can write.
    pub(super) writing: Vec<String>,
    /// What was seen and tolerated, for people.
    tolerated: Vec<String>,
    /// Why something may have escaped.
    pub(super) blind: Option<String>,
    /// How far was seen.
    pub(super) scope: String,
    /// What is worth saying beside.
    notes: Vec<String>,
    /// Processes that were looked at, and how long that took; of another node that is not known.
    looked: (usize, Duration),
}

/// Scans the trees' users and judges what they do. A bare reader breaks the check too where nothing
/// but a second scan of the tree would show what it did. `None` where the trees are not on that node.
pub(super) fn look(observer: &dyn Observer, trees: &Trees<'_>, rules: &Rules) -> Option<Look> {
    let found = match observer.scan(trees) {
        Ok(found) => found?,
        Err(error) => {
            return Some(Look {
                breaking: Vec::new(),
                writing: Vec::new(),
                tolerated: Vec::new(),
                blind: Some(format!("processes cannot be listed: {error}")),
                scope: "none".into(),
                notes: Vec::new(),
                looked: (0, Duration::ZERO),
            });
        }
    };
    Some(judge(observer, &found, rules))
}

fn judge(observer: &dyn Observer, found: &ScanResult, rules: &Rules) -> Look {
    let (mut breaking, mut writing, mut tolerated) = (Vec::new(), Vec::new(), Vec::new());
    let mut last: Option<(u32, bool)> = None;
    for one in &found.uses {
        let allowed = match last {
            Some((pid, allowed)) if pid == one.pid => allowed,
            _ => rules.allow.iter().any(|program| observer.runs_program(one.pid, program)),
        };
        last = Some((one.pid, allowed));
        if one.what.is_writable() {
            writing.push(describe(one));
        }
        let list = if allowed && !one.what.is_writable() { &mut tolerated } else { &mut breaking };
        list.push(describe(one));
    }
    let mut notes = Vec::new();
    if found.scope.unreadable == [1] {
        notes.push("process 1 could not be looked at".to_owned());
    }
    if found.scope.untraced > 0 {
        notes.push(format!(
            "{} open files without a name in sight on the same file systems",
            found.scope.untraced
        ));
    }
    let (blind, scope) = sight(&found.scope);
    let looked = (found.scope.processes_seen, found.scope.took);
    Look { breaking, writing, tolerated, blind, scope, notes, looked }
}

/// Why processes may have escaped a scan, and how far it saw. The first process cannot be looked at
/// without all privileges, and it is nobody's rendering.
fn sight(scope: &ScanScope) -> (Option<String>, String) {
    let hidden: Vec<u32> = scope.unreadable.iter().copied().filter(|&pid| pid != 1).collect();
    let mut why = Vec::new();
    let mut far = String::from(if scope.pid_namespace_is_host { "host" } else { "pid namespace" });
    if !scope.pid_namespace_is_host {
        why.push("processes outside of this pid namespace are out of sight".to_owned());
    }
    if !hidden.is_empty() {
        let first: Vec<String> = hidden.iter().take(NAMED).map(u32::to_string).collect();
        let dots = if hidden.len() > NAMED { " ..." } else { "" };
        why.push(format!(
            "{} processes could not be looked at ({}{dots})",
            hidden.len(),
            first.join(", ")
        ));
        far.push_str(&format!(" without {} processes", hidden.len()));
    }
    ((!why.is_empty()).then(|| why.join(" and ")), far)
}

fn describe(one: &ProcessUse) -> String {
    let access = match one.what {
        UseKind::Fd { fd, writable: true, .. } => format!("open for writing (descriptor {fd})"),
        UseKind::Fd { fd, .. } => format!("open for reading (descriptor {fd})"),
        UseKind::Cwd => "as its current directory".to_owned(),
        UseKind::Root => "as its root directory".to_owned(),
        UseKind::Exe => "as its program".to_owned(),
        UseKind::Map { writable: true } => "mapped for writing".to_owned(),
        UseKind::Map { .. } => "mapped".to_owned(),
    };
    let command = printable(one.command.as_bytes());
    format!("process {} ({command}) has {} {access}", one.pid, printable(&one.path))
}

/// The first things of a list and how many more there are.
pub(super) fn few(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > NAMED {
        text.push_str(&format!("; and {} more", all.len() - NAMED));
    }
    text
}

/// `no-process-in-tree`, from a look before the reading and one after it. Who only reads does no
/// harm where events tell of all that changes.
pub(super) fn processes(
    before: &Look,
    after: &Look,
    node: String,
    paths: &[Vec<u8>],
    rules: &Rules,
    by_events: bool,
) -> Evidence {
    const CHECK: &str = "no-process-in-tree";
    let mut seen = Vec::new();
    for (when, look) in [("before the reading", before), ("after the reading", after)] {
        let breaking = if by_events { &look.writing } else { &look.breaking };
        if !breaking.is_empty() {
            seen.push(format!("{when}: {}", few(breaking)));
        }
    }
    let reading = |look: &Look| -> Vec<String> {
        look.breaking.iter().filter(|one| !look.writing.contains(one)).cloned().collect()
    };
    let readers = match reading(after) {
        none if none.is_empty() => reading(before),
        some => some,
    };
    let blind = before.blind.as_deref().or(after.blind.as_deref());
    let (held, how, mut detail) = match (seen.is_empty(), blind) {
        (false, _) => (false, How::Observed, seen.join("; ")),
        (true, Some(why)) => unseen(rules.asserts(CHECK), why),
        (true, None) if readers.is_empty() => {
            (true, How::Observed, "no process uses the tree".to_owned())
        }
        (true, None) => (true, How::Observed, "no process can write to the tree".to_owned()),
    };
    if by_events && !readers.is_empty() {
        detail.push_str(&format!("; {ONLY_READS}: {}", few(&readers)));
    }
    let tolerated = if after.tolerated.is_empty() { &before.tolerated } else { &after.tolerated };
    if !tolerated.is_empty() {
        detail.push_str(&format!("; tolerated by the configuration: {}", few(tolerated)));
    }
    for note in &after.notes {
        detail.push_str(&format!("; {note}"));
    }
    let (count, last) = after.looked;
    if !last.is_zero() {
        let (first, last) = (before.looked.1.as_millis(), last.as_millis());
        detail.push_str(&format!("; {count} processes looked at in {first} and {last} ms"));
    }
    // The rules by which it was judged belong to the judgement.
    if !rules.allow.is_empty() {
        let programs: Vec<String> =
            rules.allow.iter().map(|path| printable(crate::base::path::bytes(path))).collect();
        detail.push_str(&format!("; the configuration allows reading to {}", programs.join(", ")));
    }
    let paths: Vec<String> = paths.iter().map(|path| printable(path)).collect();
    Evidence {
        check: CHECK.into(),
        subject: paths.join(", "),
        node,
        scope: after.scope.clone(),
        held,
        how,
        detail,
        looked_at: Vec::new(),
    }
}

/// `no-process-in-tree`, where a network file system shows that a client has files open. Which one
/// it is cannot be seen from here.
pub(super) fn clients(still_open: &[Vec<u8>]) -> Option<Evidence> {
    let named: Vec<String> = still_open.iter().map(|path| printable(path)).collect();
    let subject = printable(still_open.first()?);
    Some(Evidence {
        check: "no-process-in-tree".into(),
        subject,
        node: "a client of the file server".into(),
        scope: "names".into(),
        held: false,
        how: How::Observed,
        detail: format!(
            "removed while it was open, and not closed since: {}; a name that a client left behind \
             when it broke down has to be removed by hand",
            few(&named)
        ),
        looked_at: Vec::new(),
    })
}

/// `tree-unchanged`, where what a node had written may not have reached the file server.
pub(super) fn unwritten(node: String, paths: &[Vec<u8>], why: &std::io::Error) -> Evidence {
    let paths: Vec<String> = paths.iter().map(|path| printable(path)).collect();
    Evidence {
        check: "tree-unchanged".into(),
        subject: paths.join(", "),
        node,
        scope: "tree".into(),
        held: false,
        how: How::Observed,
        detail: format!("what this node wrote may not have reached the server: {why}"),
        looked_at: Vec::new(),
    }
}

/// `tree-unchanged`, one for each tree.
pub(super) fn trees(looks: &[TreeLook], node: &str) -> Vec<Evidence> {
    let of = |subject: String, held: bool, detail: String| Evidence {
        check: "tree-unchanged".into(),
        subject,
        node: node.to_owned(),
        scope: "tree".into(),
        held,
        how: How::Observed,
        detail,
        looked_at: Vec::new(),
    };
    if looks.is_empty() {
        return vec![of("the sources".into(), false, "no tree was looked at again".into())];
    }
    let judge = |look: &TreeLook| {
        let by = printable(look.by.as_bytes());
        if look.changed == 0 && look.examples.is_empty() {
            return of(printable(&look.path), true, by);
        }
        let names: Vec<String> =
            look.examples.iter().take(NAMED).map(|path| printable(path)).collect();
        let count = look.changed.max(look.examples.len() as u64);
        let detail = format!("{by}: {count} changed: {}", names.join(", "));
        of(printable(&look.path), false, detail)
    };
    looks.iter().map(judge).collect()
}

/// `all-sources-read`, one for each source.
pub(super) fn sources(all: &[SourceRead], node: &str) -> Vec<Evidence> {
    let of = |subject: String, held: bool, detail: String| Evidence {
        check: "all-sources-read".into(),
        subject,
        node: node.to_owned(),
        scope: "sources".into(),
        held,
        how: How::Observed,
        detail,
        looked_at: Vec::new(),
    };
    if all.is_empty() {
        return vec![of("the sources".into(), false, "no source was read".into())];
    }
    all.iter()
        .map(|one| of(printable(&one.subject), one.whole, printable(one.detail.as_bytes())))
        .collect()
}

/// Notes when was looked: at the beginning and the end of the reading, at locks only then.
pub(super) fn stamp(all: &mut [Evidence], first: Option<Timestamp>, last: Timestamp) {
    for one in all {
        let first = first.filter(|_| one.check != "sqlite-settled");
        one.looked_at = first.into_iter().chain([last]).collect();
    }
}
