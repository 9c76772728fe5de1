//! `restore`

mod allowed;
mod shown;

use crate::cli::args::{NameMap, RestoreArgs};
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::fault;
use crate::cli::global::Context;
use crate::host::machine;
use crate::host::signal::Interrupt;
use crate::host::users::SystemOwners;
use crate::ops::restore::{RestoreError, RestoreInput, Target, restore};
use crate::record::open::RecordError;
use crate::record::snapshot::Snapshot;

/// Threads that write.
const THREADS_MAX: usize = 8;

/// Restores a snapshot and shows what was done.
///
/// # Errors
/// As `docs/manual.md` lists them by exit code.
pub fn run(context: &Context, args: &RestoreArgs) -> Result<Exit, CliError> {
    let interrupt = Interrupt::install().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    let session = context.synced_session()?;
    let catalogue = context.catalogue(&session.repository)?;
    let record = context.record(&catalogue, &args.what.reference)?;
    let id = record.id;
    let snapshot = Snapshot::open(&session.repository, id).map_err(|e| not_opened(&e))?;
    let target = match &args.target {
        Some(dir) => Target::Directory(dir.clone()),
        None => Target::InPlace,
    };
    if target == Target::InPlace {
        allowed::in_place(context, args, &snapshot)?;
    } else {
        for remark in allowed::beside(context, &snapshot) {
            context.said.warn(&remark);
        }
    }
    let host = machine::hostname().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    let owners = SystemOwners::default();
    let reader = session.reader();
    let input = RestoreInput {
        reader: &reader,
        snapshot: &snapshot,
        subtree: args.what.path.clone(),
        target,
        include: args.includes.clone(),
        exclude: [args.excludes.clone(), left_databases(context, args, &snapshot)].concat(),
        kept: context.cache_dir().into_iter().chain(context.state_dir().ok()).collect(),
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
        interrupt: &interrupt,
        progress: &*context.progress,
        threads: std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX),
    };
    let repository = &session.repository;
    let report = context.reading(repository, args.read, "restore", vec![id], || {
        restore(&input).map_err(|error| failed(&error))
    })?;
    context.progress.finish();
    shown::report(context, &report, args.dry_run)?;
    Ok(if report.problems_total > 0 { Exit::Problems } else { Exit::Ok })
}

fn pairs(maps: &[NameMap]) -> Vec<(String, String)> {
    maps.iter().map(|m| (m.old.clone(), m.new.clone())).collect()
}

/// `--no-database`: the SQLite sources stay as they are.
fn left_databases(context: &Context, args: &RestoreArgs, snapshot: &Snapshot) -> Vec<String> {
    if !args.no_database {
        return Vec::new();
    }
    context.said.warn(
        "the database is left as it is: rows about bundles and applications will not fit the \
         restored files, and what its key encrypts may be lost",
    );
    let sources = snapshot.body().sources.iter();
    sources
        .filter(|s| s.roles.iter().any(|role| role == "sqlite"))
        .filter_map(|s| s.path.as_ref())
        .filter_map(|path| std::str::from_utf8(&path.0).ok())
        .map(|path| format!("{path}/*.db*"))
        .collect()
}

fn not_opened(error: &RecordError) -> CliError {
    match error {
        RecordError::NotRestorable { .. } => CliError::from_error(Kind::NotRestorable, error),
        RecordError::Repository(error) => fault::repository(error),
    }
}

fn failed(error: &RestoreError) -> CliError {
    match error {
        RestoreError::Usage(_) => CliError::from_error(Kind::Usage, error),
        RestoreError::Refused(_) => CliError::from_error(Kind::Refused, error),
        RestoreError::Path(walk) => fault::walk(walk),
        RestoreError::Damaged { .. } => CliError::from_error(Kind::Damage, error),
        RestoreError::Read(read) => fault::read(read),
        RestoreError::NoSpace { .. } => CliError::from_error(Kind::Failed, error)
            .hint("free some space and give the same command again: it goes on"),
        RestoreError::Interrupted { .. } => CliError::from_error(Kind::Interrupted, error),
        _ => CliError::from_error(Kind::Failed, error),
    }
}
