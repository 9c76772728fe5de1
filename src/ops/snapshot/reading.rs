//! What the window looks at: the inodes of the roots, the site's databases, and what the second look
//! says of each source.

use super::events::Proof;
use super::{Run, said};
use crate::base::path::{from_bytes, is_within};
use crate::host::fs::{BoundedFs, InodeKind, LinuxFs, SourceDir, SourceFs};
use crate::host::process::{Device, InodeSet};
use crate::intake::forest::Unbuilt;
use crate::intake::plan::ReadPlan;
use crate::store::cut::SQLITE_MAGIC;
use crate::window::evidence::{ONLY_READS, SecondLook, SourceRead, TreeLook};
use crate::window::observe::Trees;
use crate::window::phases::Restarted;
use crate::window::sqlite::SqliteGroup;

/// Path and what is wrong with it.
type Problems = Vec<(Vec<u8>, String)>;

/// What the window looks at.
pub(super) struct Surfaces {
    /// The roots' inodes.
    pub(super) roots: Vec<(Device, u64)>,
    paths: Vec<Vec<u8>>,
    own: [u32; 1],
    sqlite_dirs: Vec<Vec<u8>>,
}

impl Surfaces {
    pub(super) fn of(fs: &BoundedFs, plan: &ReadPlan, sqlite_dirs: &[Vec<u8>]) -> Self {
        let mut roots = Vec::new();
        for path in &plan.roots {
            // A root that cannot be opened is a problem of the reading.
            let Ok(dir) = fs.open_root(path) else { continue };
            if let Ok(stat) = dir.stat_self() {
                roots.push((stat.dev, stat.ino));
            }
        }
        Self {
            roots,
            paths: plan.roots.clone(),
            own: [std::process::id()],
            sqlite_dirs: sqlite_dirs.to_vec(),
        }
    }

    /// The trees, with what was seen of them.
    pub(super) fn trees<'a>(&'a self, set: &'a dyn InodeSet) -> Trees<'a> {
        Trees { set, roots: &self.roots, paths: &self.paths, exclude: &self.own }
    }

    /// The databases in the site's own directories.
    pub(super) fn databases(&self, fs: &BoundedFs, problems: &mut Problems) -> Vec<SqliteGroup> {
        let mut groups = Vec::new();
        for path in &self.sqlite_dirs {
            let dir = path.clone();
            match fs.within(move || databases_in(&dir)) {
                Ok((found, wrong)) => {
                    groups.extend(found);
                    problems.extend(wrong);
                }
                Err(error) => problems.push((path.clone(), error.to_string())),
            }
        }
        groups
    }

    /// What was looked at again, in the window's words.
    pub(super) fn second_look(
        &self,
        run: &Run<'_>,
        forest: &Unbuilt<'_>,
        proof: &Proof,
    ) -> SecondLook {
        let mut problems = forest.problems().to_vec();
        let sqlite = self.databases(&run.fs, &mut problems);
        let still_open = forest.still_open().to_vec();
        let looked = looked(&run.input.plan, &problems, proof, &run.input.against);
        SecondLook { sqlite, still_open, ..looked }
    }
}

/// What was looked at again, but for databases.
pub(super) fn looked(
    plan: &ReadPlan,
    problems: &[(Vec<u8>, String)],
    proof: &Proof,
    against: &[String],
) -> SecondLook {
    let again = &proof.again;
    let mut trees = Vec::new();
    let mut sources = Vec::new();
    for root in &plan.roots {
        let examples: Vec<Vec<u8>> =
            again.changed.iter().filter(|p| is_within(p, root)).cloned().collect();
        let changed = match plan.roots.as_slice() {
            [_] => again.changed_total,
            _ => examples.len() as u64,
        };
        let by_events = proof.by_events.contains(root);
        let frozen = proof.frozen.contains(root);
        let mut by = match (by_events, proof.why.as_str()) {
            (true, _) => format!("file system events, {} since the stop", proof.events),
            (false, "") => "second scan".to_owned(),
            (false, why) => format!("second scan ({why})"),
        };
        if frozen {
            by = format!("{}; {by}", proof.how);
        }
        trees.push(TreeLook { path: root.clone(), by, by_events, changed, examples });
        let mine: Vec<_> = problems.iter().filter(|(p, _)| is_within(p, root)).collect();
        let detail = match mine.first() {
            None if frozen => "all of it was read, as it was frozen".to_owned(),
            None => "all of it was read".to_owned(),
            Some((path, what)) => {
                format!("{} could not be read, the first: {}: {what}", mine.len(), said(path))
            }
        };
        sources.push(SourceRead { subject: root.clone(), whole: mine.is_empty(), detail });
    }
    for reason in against {
        let subject = b"the site".to_vec();
        sources.push(SourceRead { subject, whole: false, detail: reason.clone() });
    }
    SecondLook { trees, sources, ..SecondLook::default() }
}
/// The databases in a directory: files that begin as SQLite's do.
fn databases_in(path: &[u8]) -> (Vec<SqliteGroup>, Problems) {
    let (mut groups, mut problems) = (Vec::new(), Vec::new());
    let listed = LinuxFs::open(path).and_then(|dir| Ok((dir.names()?, dir)));
    let Ok((names, dir)) = listed else { return (groups, problems) };
    for raw in names {
        if !is_database(&dir, &raw.name) {
            continue;
        }
        match SqliteGroup::look_in(dir.descriptor(), path, &raw.name) {
            Ok(group) => groups.push(group),
            Err(error) => problems.push((path.to_vec(), error.to_string())),
        }
    }
    (groups, problems)
}

fn is_database(dir: &crate::host::fs::linux::LinuxDir, name: &[u8]) -> bool {
    let regular = dir.stat(name).is_ok_and(|s| s.kind == InodeKind::File);
    let mut head = [0; 16];
    regular
        && dir.open_file(name).is_ok_and(|file| {
            file.read_at(&mut head, 0).is_ok_and(|n| n == 16) && head == *SQLITE_MAGIC
        })
}

/// What the reading ahead could not read and will not be read in the window either, so that nothing
/// need be stopped to find that out. What a living service takes away or changes comes and goes.
pub(super) fn lasting(fs: &BoundedFs, problems: Problems) -> Vec<String> {
    let told = problems.first().cloned();
    fs.within(move || lasting_of(&problems)).unwrap_or_else(|_| {
        let all: Vec<_> = told.iter().collect();
        tell(&all)
    })
}

fn lasting_of(problems: &[(Vec<u8>, String)]) -> Vec<String> {
    const PASSING: [&str; 3] = ["vanished", "changed while it was read", "turned into"];
    let lasts = |(path, what): &&(Vec<u8>, String)| {
        !PASSING.iter().any(|passing| what.contains(passing))
            && std::fs::symlink_metadata(from_bytes(path)).is_ok()
    };
    let all: Vec<_> = problems.iter().filter(lasts).collect();
    tell(&all)
}

fn tell(all: &[&(Vec<u8>, String)]) -> Vec<String> {
    let Some((path, what)) = all.first() else { return Vec::new() };
    vec![format!(
        "all-sources-read: {} could not be read ahead, the first: {}: {what}",
        all.len(),
        said(path)
    )]
}

/// Who only reads breaks nothing, but a person should know of it.
pub(super) fn warnings_of_readers(restarted: &mut Restarted) {
    let told = restarted.evidence.iter().filter(|e| e.held && e.detail.contains(ONLY_READS));
    let lines: Vec<String> = told.map(|e| format!("{}: {}", e.check, e.detail)).collect();
    restarted.warnings.extend(lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_be_read_later_either_is_told_before_the_stop() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let there = crate::base::path::bytes(file.path()).to_vec();
        let problem = |path: &[u8], what: &str| (path.to_vec(), what.to_owned());
        let passing = [
            problem(b"/none/such", "cannot be opened: Input/output error"),
            problem(&there, "vanished: no such file"),
            problem(&there, "changed while it was read, each time that was tried"),
        ];
        assert_eq!(lasting_of(&passing), [""; 0]);
        let mut all = passing.to_vec();
        all.push(problem(&there, "cannot be opened: Input/output error"));
        let told = lasting_of(&all);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("all-sources-read: 1 could not be read ahead"), "{told:?}");
    }
}
