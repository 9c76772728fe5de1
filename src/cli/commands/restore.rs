//! `restore`

mod allowed;
mod shown;

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::id::ManifestId;
use crate::base::path::{bytes, from_bytes, printable};
use crate::cli::args::{NameMap, Ref, RestoreArgs};
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::fault;
use crate::cli::global::Context;
use crate::format::manifest::SourceRecord;
use crate::host::machine;
use crate::host::signal::Interrupt;
use crate::host::users::SystemOwners;
use crate::ops::restore::{RestoreError, RestoreInput, RestoreReport, Target, restore};
use crate::ops::session::Session;
use crate::ops::sources::literal;
use crate::record::catalogue;
use crate::record::open::RecordError;
use crate::record::snapshot::Snapshot;
use crate::store::repository::Repository;

/// Threads that write.
const THREADS_MAX: usize = 8;

/// Restores a snapshot and shows what was done.
///
/// # Errors
/// As `docs/manual.md` lists them by exit code.
pub fn run(context: &Context, args: &RestoreArgs) -> Result<Exit, CliError> {
    let interrupt = Interrupt::install().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    let session = context.session()?;
    let repository = Arc::clone(&session.repository);
    let reads = readable(&repository, &args.what.reference)?;
    // What is listed, opened and read is all read under the lease: else a prune in between could
    // take a pack out of the index that was just read.
    let report = context.reading(&repository, args.read, "restore", reads, || {
        restored(context, args, session, &interrupt)
    })?;
    context.progress.finish();
    shown::report(context, &report, args.dry_run)?;
    Ok(if report.problems_total > 0 { Exit::Problems } else { Exit::Ok })
}

/// The manifests that may be meant.
fn readable(repository: &Repository, what: &Ref) -> Result<Vec<ManifestId>, CliError> {
    let mut ids: Vec<ManifestId> = catalogue::listed(repository)?.into_iter().collect();
    if let Ref::Prefix(prefix) = what {
        let prefix = prefix.to_lowercase();
        ids.retain(|id| id.to_hex().starts_with(&prefix));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn restored(
    context: &Context,
    args: &RestoreArgs,
    mut session: Session,
    interrupt: &Interrupt,
) -> Result<RestoreReport, CliError> {
    context.sync(&mut session)?;
    let catalogue = context.catalogue(&session.repository)?;
    let record = context.record(&catalogue, &args.what.reference)?;
    let snapshot = Snapshot::open(&session.repository, record.id).map_err(|e| not_opened(&e))?;
    let target = match &args.target {
        Some(dir) => Target::Directory(dir.clone()),
        None => Target::InPlace,
    };
    // Held until all is done: no window of the site opens meanwhile.
    let _lock = match target {
        Target::InPlace => allowed::in_place(context, args, &snapshot, interrupt)?,
        Target::Directory(_) => {
            let remarks = allowed::beside(context, &snapshot);
            remarks.iter().for_each(|remark| context.said.warn(remark));
            None
        }
    };
    let host = machine::hostname().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    let owners = SystemOwners::default();
    let reader = session.reader();
    let databases = left_databases(context, args, &snapshot);
    let own = context.cache_dir().into_iter().chain(context.state_dir().ok());
    let input = RestoreInput {
        reader: &reader,
        snapshot: &snapshot,
        subtree: args.what.path.clone(),
        target,
        include: args.includes.clone(),
        exclude: [args.excludes.clone(), databases.globs].concat(),
        kept: own.chain(databases.kept).collect(),
        delete: args.delete,
        keep_extra: args.keep_extra,
        numeric_ids: args.numeric_ids,
        map_user: pairs(&args.map_users),
        map_group: pairs(&args.map_groups),
        owners: &owners,
        host: &host,
        with_license: args.with_license,
        dry_run: args.dry_run,
        verify: args.verify,
        interrupt,
        progress: &*context.progress,
        threads: std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX),
    };
    restore(&input).map_err(|error| failed(context, &error))
}

fn pairs(maps: &[NameMap]) -> Vec<(String, String)> {
    maps.iter().map(|m| (m.old.clone(), m.new.clone())).collect()
}

/// What `--no-database` leaves as it is.
#[derive(Default)]
struct Databases {
    globs: Vec<String>,
    kept: Vec<PathBuf>,
}

/// `--no-database`: the SQLite databases stay as they are.
fn left_databases(context: &Context, args: &RestoreArgs, snapshot: &Snapshot) -> Databases {
    let mut left = Databases::default();
    if !args.no_database {
        return left;
    }
    context.said.warn(
        "the database is left as it is: rows about bundles and applications will not fit the \
         restored files, and what its key encrypts may be lost",
    );
    left.add(&snapshot.body().sources);
    for path in &left.kept {
        let shown = printable(bytes(path));
        context.said.warn(&format!("{shown} is not UTF-8: all of it is left as it is"));
    }
    left
}

impl Databases {
    fn add(&mut self, sources: &[SourceRecord]) {
        let sqlite = sources.iter().filter(|s| s.roles.iter().any(|role| role == "sqlite"));
        for path in sqlite.filter_map(|s| s.path.as_ref()) {
            match std::str::from_utf8(&path.0) {
                Ok(path) => self.globs.push(format!("{}/*.db*", literal(path))),
                // No glob can say it.
                Err(_) => self.kept.push(from_bytes(&path.0).to_owned()),
            }
        }
    }
}

fn not_opened(error: &RecordError) -> CliError {
    match error {
        RecordError::NotRestorable { .. } => CliError::from_error(Kind::NotRestorable, error),
        RecordError::Repository(error) => fault::repository(error),
    }
}

fn failed(context: &Context, error: &RestoreError) -> CliError {
    match error {
        RestoreError::Usage(_) => CliError::from_error(Kind::Usage, error),
        RestoreError::Refused(_) => CliError::from_error(Kind::Refused, error),
        RestoreError::Path(walk) => fault::walk(walk),
        RestoreError::Damaged { report, .. } => {
            for note in &report.notes {
                context.said.warn(note);
            }
            for problem in &report.problems {
                context.said.warn(&format!("{}: {}", printable(&problem.path), problem.error));
            }
            let shown = CliError::from_error(Kind::Damage, error);
            match report.target {
                Some(_) => shown,
                None => shown.hint("--exclude leaves damaged paths as they are"),
            }
        }
        RestoreError::Read(read) => fault::read(read),
        RestoreError::NoSpace { .. } => CliError::from_error(Kind::Failed, error)
            .hint("free some space and give the same command again: it goes on"),
        RestoreError::Interrupted { .. } => CliError::from_error(Kind::Interrupted, error),
        _ => CliError::from_error(Kind::Failed, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::control::HexBytes;

    #[test]
    fn databases_are_left_by_their_paths_alone() {
        let source = |role: &str, path: &[u8]| SourceRecord {
            roles: vec![role.into()],
            path: Some(HexBytes(path.to_vec())),
            database: None,
            setting: None,
            bytes: 0,
            dir: true,
        };
        let mut left = Databases::default();
        left.add(&[
            source("sqlite", b"/a [1]*/db"),
            source("sqlite", b"/odd-\xff"),
            source("data-dir", b"/data"),
        ]);
        assert_eq!(left.globs, ["/a\\ \\[1\\]\\*/db/*.db*"]);
        assert_eq!(left.kept, [from_bytes(b"/odd-\xff")]);
    }
}
