//! The steps, each with what it has to show.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::compare::compare;
use super::living::{Living, Watched};
use super::site::{self, Places};
use super::toy::{self, Note, ToyError};
use super::{DemoError, DemoEvent, DemoInput, Shown, Stage, Taken, millis};
use crate::base::id::to_hex;
use crate::base::path::{bytes, from_bytes, is_within, printable};
use crate::base::progress::Progress;
use crate::base::secret::Password;
use crate::format::manifest::{ManifestBody, RecordKind};
use crate::host::entropy::{Entropy, SystemEntropy};
use crate::host::run::CommandLine;

/// Rows that the service writes on between the first and the second snapshot.
const MORE_ROWS: u32 = 200;

/// Time for anything that the demonstration waits for.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two looks at it.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// What this process may not be able to see: other pid namespaces, processes of others.
const ASSERTS: [&str; 2] = ["no-process-in-tree", "sqlite-settled"];

/// Exit code of a refusal to restore a capture.
const NOT_RESTORABLE: u8 = 21;

const SITE: &str = "making the site";
const SERVICE: &str = "starting the toy service";
const INIT: &str = "making the repository";
const FIRST: &str = "the first snapshot";
const WRITING: &str = "letting the service write on";
const SECOND: &str = "the second snapshot";
const THIRD: &str = "the disturbed snapshot";
const REFUSAL: &str = "the refusal to restore a capture";
const RESTORE: &str = "the restore";
const COMPARISON: &str = "the comparison";
const DATABASE: &str = "the look at the restored database";
pub(super) const CLEARING: &str = "clearing away";

/// Shows everything; the temporary directory and all processes are gone afterwards.
pub(super) fn run(input: &DemoInput<'_>) -> Result<Vec<DemoEvent>, DemoError> {
    let directory = tempfile::Builder::new()
        .prefix("cabk-demo-")
        .tempdir_in(&input.temporary)
        .map_err(failed(SITE))?;
    let root = directory.path().canonicalize().map_err(failed(SITE))?;
    let stage = stage(input, Places::below(root)).map_err(failed(SITE))?;
    let show = Show {
        input,
        living: Living {
            places: stage.places.clone(),
            clock: &*input.clock,
            rendering: RefCell::default(),
            pids: RefCell::default(),
        },
        stage,
        steps: RefCell::new(Vec::new()),
    };
    let done = show.all();
    let Show { living, steps, .. } = show;
    // The service first: it would write into what is being removed.
    let cleared = living.clear();
    let closed = directory.close().map_err(failed(CLEARING));
    let repository_bytes = match done {
        // Whatever failed after a signal failed because of it.
        Err(_) if input.interrupt.is_set() => {
            cleared.and(closed)?;
            return Err(DemoError::Interrupted);
        }
        done => done?,
    };
    cleared.and(closed)?;
    let last = DemoEvent::Cleared { repository_bytes };
    (input.told)(&last);
    let mut steps = steps.into_inner();
    steps.push(last);
    Ok(steps)
}

fn stage(input: &DemoInput<'_>, places: Places) -> io::Result<Stage> {
    let mut drawn = [0; 24];
    SystemEntropy.fill(&mut drawn)?;
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("a path is not UTF-8"))
    };
    let (program, root) = (text(&input.program)?, text(places.root())?);
    let toy = |what: &str| {
        CommandLine::Argv(vec![program.clone(), "demo-service".into(), what.into(), root.clone()])
    };
    Ok(Stage {
        password: Password::new(to_hex(&drawn).into_bytes()),
        stop: toy("stop"),
        start: toy("start"),
        status: toy("status"),
        asserts: ASSERTS.map(str::to_owned).to_vec(),
        places,
    })
}

pub(super) fn failed(step: &'static str) -> impl Fn(io::Error) -> DemoError {
    move |source| DemoError::Io { step, source }
}

pub(super) fn toy_failed(step: &'static str) -> impl Fn(ToyError) -> DemoError {
    move |source| DemoError::Toy { step, source }
}

/// A step shows what it should, or the demonstration ends.
fn must(step: &'static str, holds: bool, seen: impl FnOnce() -> String) -> Result<(), DemoError> {
    if holds { Ok(()) } else { Err(DemoError::NotShown { step, seen: seen() }) }
}

struct Show<'a> {
    input: &'a DemoInput<'a>,
    stage: Stage,
    living: Living<'a>,
    steps: RefCell<Vec<DemoEvent>>,
}

impl Show<'_> {
    fn tell(&self, event: DemoEvent) -> Result<(), DemoError> {
        (self.input.told)(&event);
        self.steps.borrow_mut().push(event);
        if self.input.interrupt.is_set() { Err(DemoError::Interrupted) } else { Ok(()) }
    }

    fn places(&self) -> &Places {
        &self.stage.places
    }

    /// The bytes of the repository at the end.
    fn all(&self) -> Result<u64, DemoError> {
        self.begin()?;
        let first = self.snapshot(FIRST, 1, self.input.progress)?;
        let rows = first.shown.rows_at_stop;
        self.proven(FIRST, &first)?;
        let added = first.shown.bytes_added;
        self.tell(DemoEvent::Snapshot(Box::new(first.shown)))?;
        self.write_on(rows)?;
        let second = self.snapshot(SECOND, 2, self.input.progress)?;
        self.proven(SECOND, &second)?;
        self.grown_little(added, &second, rows)?;
        let rows = second.shown.rows_at_stop;
        self.tell(DemoEvent::Snapshot(Box::new(second.shown.clone())))?;
        let capture = self.disturbed()?;
        self.refused(&capture)?;
        self.restored(&second)?;
        self.compared(&second)?;
        self.database(rows)?;
        size(&self.places().repository()).map_err(failed(CLEARING))
    }

    fn begin(&self) -> Result<(), DemoError> {
        let places = self.places();
        let made = site::make(places).map_err(failed(SITE))?;
        self.tell(DemoEvent::Site {
            directory: printable(bytes(places.root())),
            site: site::LABEL.to_owned(),
            files: made.files,
            bytes: made.bytes,
            bundles: made.bundles,
            bundle_bytes: made.bundle_bytes,
        })?;
        toy::note_owner(places).map_err(toy_failed(SERVICE))?;
        // What the start command leaves is this process's to wait for, not the machine's.
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).map_err(|e| failed(SERVICE)(e.into()))?;
        let command = &self.stage.start;
        let started = crate::host::run::run_bounded(command, &[], PATIENCE, &*self.input.clock);
        let started = started.map_err(|e| failed(SERVICE)(io::Error::other(e)))?;
        must(SERVICE, started.status.success(), || started.said())?;
        let note = self.note(SERVICE)?;
        let lives = note.lives().map_err(toy_failed(SERVICE))?;
        must(SERVICE, lives && !note.closed, || "it does not run".into())?;
        self.tell(DemoEvent::Service { pid: note.pid, rows: note.rows })?;
        let began = self.input.clock.monotonic();
        self.input.verbs.init(&self.stage).map_err(|e| self.verb(INIT, e))?;
        let took = self.input.clock.monotonic().saturating_sub(began);
        self.tell(DemoEvent::Repository { encrypted: true, duration_ms: millis(took) })
    }

    fn verb(&self, step: &'static str, source: super::Failed) -> DemoError {
        DemoError::Verb { step, source }
    }

    fn note(&self, step: &'static str) -> Result<Note, DemoError> {
        let note = Note::read(self.places()).map_err(toy_failed(step))?;
        note.ok_or_else(|| DemoError::NotShown { step, seen: "the service never ran".into() })
    }

    /// Takes a snapshot and finds out what the service saw of it.
    fn snapshot(
        &self,
        step: &'static str,
        number: u8,
        progress: &dyn Progress,
    ) -> Result<Numbered, DemoError> {
        let before = self.note(step)?;
        self.living.pids.borrow_mut().insert(before.pid);
        let taken = self.input.verbs.snapshot(&self.stage, progress);
        let Taken { id, body, not_running } = taken.map_err(|e| self.verb(step, e))?;
        let after = self.note(step)?;
        must(step, not_running.is_empty(), || not_running.join("; "))?;
        let lives = after.lives().map_err(toy_failed(step))?;
        must(step, lives && after.pid != before.pid, || {
            "the service was not stopped and started again".into()
        })?;
        let stop = Note::read_last_stop(self.places()).map_err(toy_failed(step))?;
        let stop = stop.filter(|stop| stop.closed && stop.pid == before.pid);
        let rows_at_stop = stop.map(|stop| stop.rows);
        let downtime_ms = body.window.as_ref().and_then(|window| window.downtime_ms);
        let (Some(rows_at_stop), Some(downtime_ms)) = (rows_at_stop, downtime_ms) else {
            let seen = "the service did not close its database, or the window has no end".into();
            return Err(DemoError::NotShown { step, seen });
        };
        let summary = &body.summary;
        let shown = Shown {
            number,
            kind: body.kind,
            id,
            restorable: body.kind == RecordKind::Snapshot,
            files: summary.files,
            bytes: summary.bytes,
            files_unmodified: summary.files_unmodified,
            bytes_added: summary.bytes_added,
            duration_ms: summary.duration_ms,
            downtime_ms,
            pids: (before.pid, after.pid),
            rows_at_stop,
            evidence: body.evidence.clone(),
        };
        Ok(Numbered { shown, body })
    }

    /// A snapshot of everything, with evidence that all held.
    fn proven(&self, step: &'static str, taken: &Numbered) -> Result<(), DemoError> {
        let body = &taken.body;
        let broken: Vec<String> = broken(body).collect();
        must(step, broken.is_empty() && body.kind == RecordKind::Snapshot, || {
            format!("it is a {:?}: {}", body.kind, broken.join("; "))
        })?;
        must(step, body.problems_total == 0, || {
            let problems = body.problems.iter();
            let lines = problems.map(|p| format!("{}: {}", printable(&p.path.0), p.error));
            lines.collect::<Vec<_>>().join("; ")
        })?;
        let has = |role: &str| body.sources.iter().any(|s| s.roles.iter().any(|r| r == role));
        for role in ["data-dir", "sqlite", "database-dir", "config", "environment"] {
            must(step, has(role), || format!("no source is the site's {role}"))?;
        }
        for check in ["service-stopped", "tree-unchanged", "sqlite-settled", "service-started"] {
            let gathered = body.evidence.iter().any(|e| e.check == check);
            must(step, gathered, || format!("there is no evidence {check}"))?;
        }
        Ok(())
    }

    fn grown_little(&self, first: u64, second: &Numbered, rows: u32) -> Result<(), DemoError> {
        let shown = &second.shown;
        must(SECOND, shown.bytes_added > 0 && shown.bytes_added < first / 3, || {
            format!("{} bytes were added, and {first} the first time", shown.bytes_added)
        })?;
        must(SECOND, shown.files_unmodified > 0, || "all files were read again".into())?;
        must(SECOND, shown.rows_at_stop >= rows + MORE_ROWS, || "the service wrote nothing".into())
    }

    fn write_on(&self, rows_before: u32) -> Result<(), DemoError> {
        let published = site::publish_again(self.places()).map_err(failed(WRITING))?;
        let mut rows = 0;
        self.wait(WRITING, || {
            rows = self.note(WRITING)?.rows;
            Ok(rows >= rows_before + MORE_ROWS)
        })?;
        self.tell(DemoEvent::Writing { rows_before, rows, published_bytes: published.bytes })
    }

    /// Waits until something is so.
    fn wait(
        &self,
        step: &'static str,
        mut is_so: impl FnMut() -> Result<bool, DemoError>,
    ) -> Result<(), DemoError> {
        let clock = &*self.input.clock;
        let began = clock.monotonic();
        while !is_so()? {
            if self.input.interrupt.is_set() {
                return Err(DemoError::Interrupted);
            }
            let waited = clock.monotonic().saturating_sub(began);
            must(step, waited < PATIENCE, || "it took too long".into())?;
            clock.sleep(LOOK);
        }
        Ok(())
    }

    /// A snapshot beside a rendering that goes on after the stop.
    fn disturbed(&self) -> Result<Shown, DemoError> {
        let file = self.places().rendering();
        let child = toy::spawn(&self.input.program, "render", self.places());
        self.living.rendering.replace(Some(child.map_err(toy_failed(THIRD))?));
        self.wait(THIRD, || Ok(len(&file) > 0))?;
        let clock = &*self.input.clock;
        let watched = Watched { inner: self.input.progress, file: &file, clock };
        let taken = self.snapshot(THIRD, 3, &watched)?;
        self.living.end_rendering(THIRD)?;
        let body = &taken.body;
        must(THIRD, body.kind == RecordKind::Capture, || "it is a snapshot".into())?;
        let held = |check: &str| body.evidence.iter().filter(|e| e.check == check).all(|e| e.held);
        must(THIRD, !held("tree-unchanged"), || "the change was not noticed".into())?;
        must(THIRD, held("service-stopped") && held("service-started"), || {
            broken(body).collect::<Vec<_>>().join("; ")
        })?;
        self.tell(DemoEvent::Capture(Box::new(taken.shown.clone())))?;
        Ok(taken.shown)
    }

    fn refused(&self, capture: &Shown) -> Result<(), DemoError> {
        let target = self.places().refused();
        let progress = self.input.progress;
        let refusal = match self.input.verbs.restore(&self.stage, &capture.id, &target, progress) {
            Err(refusal) if refusal.exit == NOT_RESTORABLE => refusal,
            Err(other) => return Err(self.verb(REFUSAL, other)),
            Ok(_) => {
                let seen = "the capture was restored".into();
                return Err(DemoError::NotShown { step: REFUSAL, seen });
            }
        };
        must(REFUSAL, !target.exists(), || "the target was made".into())?;
        let (exit, message) = (refusal.exit, refusal.message);
        self.tell(DemoEvent::Refused { id: capture.id, exit, message })
    }

    fn restored(&self, second: &Numbered) -> Result<(), DemoError> {
        let (id, target) = (second.shown.id, self.places().restored());
        let began = self.input.clock.monotonic();
        let put = self.input.verbs.restore(&self.stage, &id, &target, self.input.progress);
        let put = put.map_err(|e| self.verb(RESTORE, e))?;
        let took = self.input.clock.monotonic().saturating_sub(began);
        // What lies above the site belongs to the machine: its owners are not this user's to give.
        let site = within(&target, &self.places().site());
        let mine = put.problems.iter().filter(|(path, _)| is_within(path, &site));
        let lines: Vec<String> =
            mine.map(|(path, what)| format!("{}: {what}", printable(path))).collect();
        must(RESTORE, lines.is_empty(), || lines.join("; "))?;
        self.tell(DemoEvent::Restored {
            id,
            files: put.files,
            dirs: put.dirs,
            bytes: put.bytes,
            duration_ms: millis(took),
        })
    }

    fn compared(&self, second: &Numbered) -> Result<(), DemoError> {
        let reader = self.input.verbs.reader(&self.stage).map_err(|e| self.verb(COMPARISON, e))?;
        let (target, site) = (self.places().restored(), self.places().site());
        let done = compare(&reader, &second.body, &target, &site)
            .map_err(|source| DemoError::Compare { step: COMPARISON, source })?;
        must(COMPARISON, done.differences.is_empty(), || done.differences.join("; "))?;
        must(COMPARISON, done.bytes == second.shown.bytes, || {
            format!("{} bytes were compared, not {}", done.bytes, second.shown.bytes)
        })?;
        self.tell(DemoEvent::Compared(done))
    }

    fn database(&self, rows_at_stop: u32) -> Result<(), DemoError> {
        let path = within(&self.places().restored(), &self.places().database());
        let (integrity, rows) = look_at(from_bytes(&path))
            .map_err(|source| DemoError::Database { step: DATABASE, source })?;
        must(DATABASE, integrity == "ok", || integrity.clone())?;
        must(DATABASE, rows == Some(rows_at_stop), || match rows {
            Some(rows) => format!("{rows} rows, and {rows_at_stop} when the service was stopped"),
            None => "a row is not what the service wrote".into(),
        })?;
        self.tell(DemoEvent::Database { integrity, rows: rows_at_stop, rows_at_stop })
    }
}

/// A snapshot or capture with its manifest.
struct Numbered {
    shown: Shown,
    body: ManifestBody,
}

/// The checks that did not hold.
fn broken(body: &ManifestBody) -> impl Iterator<Item = String> {
    let all = body.evidence.iter().filter(|e| !e.held);
    all.map(|e| format!("{}: {}", e.check, e.detail))
}

/// Where an absolute path lies in a directory that a snapshot was restored to.
fn within(target: &Path, path: &Path) -> Vec<u8> {
    [bytes(target), bytes(path)].concat()
}

pub(super) fn len(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.map_err(io::Error::from)?;
        if entry.file_type().is_file() {
            sum += entry.metadata().map_err(io::Error::from)?.len();
        }
    }
    Ok(sum)
}

/// What SQLite's own check says of a database, and its rows; `None` where one of them is not what
/// the service wrote.
fn look_at(path: &Path) -> Result<(String, Option<u32>), rusqlite::Error> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let integrity = database.query_row("pragma integrity_check", [], |row| row.get(0))?;
    let mut all = database.prepare("select id, digest from events order by id")?;
    let mut rows = all.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        let (id, digest): (u32, Vec<u8>) = (row.get(0)?, row.get(1)?);
        if id != count || digest != toy::digest(id) {
            return Ok((integrity, None));
        }
    }
    Ok((integrity, Some(count)))
}
