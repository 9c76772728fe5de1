//! `check`

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;

use crate::base::id::ManifestId;
use crate::base::size::human_size;
use crate::cli::args::CheckArgs;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::fault;
use crate::cli::global::Context;
use crate::host::signal::Interrupt;
use crate::ops::check::{CheckFailure, Options, Report, Surroundings, check};
use crate::ops::session::{self, Location};
use crate::store::check::CheckError;
use crate::store::reader::ReadError;
use crate::store::repository::Unlock;

#[derive(Serialize)]
struct Shown<'a> {
    ok: bool,
    damage: Vec<ShownDamage<'a>>,
    packs: u64,
    packs_read: u64,
    packs_unreferenced: u64,
    bytes_read: u64,
    bytes_wanted: u64,
    snapshots_and_captures: u64,
}

#[derive(Serialize)]
struct ShownDamage<'a> {
    object: &'a str,
    kind: &'static str,
    detail: &'a str,
    affects: &'a BTreeSet<ManifestId>,
}

/// Checks and shows what was found.
///
/// # Errors
/// Exit 10, 12, 1 as for all reading commands; damage is a result, with exit 20.
pub fn run(context: &Context, args: &CheckArgs) -> Result<Exit, CliError> {
    let interrupt = Interrupt::install().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    // The check makes an index of its own, so that a wrong cache can hide nothing.
    let place = Location { repository: context.repository()?, cache: None };
    let mut no_password = None;
    let opened = session::open(&place, || match context.password(false) {
        Ok(password) => Some(Unlock::Password(password)),
        Err(error) => {
            no_password = Some(error);
            None
        }
    });
    if let Some(error) = no_password {
        return Err(error);
    }
    let session = opened.map_err(|error| fault::session(&error))?;
    let configured = &context.loaded.config.check;
    let max_duration = match (args.max_duration, args.read_data) {
        (Some(typed), _) => Some(typed),
        (None, None) => Some(configured.max_duration),
        (None, Some(_)) => None,
    };
    let state_dir = context.state_dir().ok();
    let scratch = context.cache_dir();
    let options = Options {
        lease: !args.read.no_lock,
        read_data: args.read_data.unwrap_or(configured.read_data).hundredths(),
        max_duration,
        state_dir: state_dir.as_deref(),
        scratch: scratch.as_deref(),
    };
    let around = Surroundings {
        progress: &*context.progress,
        clock: &*context.clock,
        interrupt: &interrupt,
    };
    let report = check(&session, &options, &around).map_err(|error| failed(&error))?;
    context.progress.finish();
    report.warnings.iter().for_each(|warning| context.said.warn(warning));
    if state_dir.is_none() {
        context.said.warn("no state directory: what this client remembers was not compared");
    }
    show(context, &report)?;
    Ok(if report.is_ok() { Exit::Ok } else { Exit::Damage })
}

fn show(context: &Context, report: &Report) -> Result<(), CliError> {
    let damage = report.damage.iter().map(|d| ShownDamage {
        object: &d.object,
        kind: d.kind.word(),
        detail: &d.detail,
        affects: &d.affects,
    });
    let shown = Shown {
        ok: report.is_ok(),
        damage: damage.collect(),
        packs: report.packs,
        packs_read: report.data.packs,
        packs_unreferenced: report.packs_unreferenced,
        bytes_read: report.data.bytes,
        bytes_wanted: report.data.bytes_wanted,
        snapshots_and_captures: report.manifests,
    };
    context.out().finish(&shown, |to| readable(report, to))
}

fn readable(report: &Report, to: &mut dyn Write) -> io::Result<()> {
    for damage in &report.damage {
        writeln!(to, "{}: {}: {}", damage.kind.word(), damage.object, damage.detail)?;
        for manifest in &damage.affects {
            writeln!(to, "    affects {}", manifest.short())?;
        }
    }
    let data = &report.data;
    writeln!(
        to,
        "{} snapshots and captures, {} packs; {} packs with {} read again",
        report.manifests,
        report.packs,
        data.packs,
        human_size(data.bytes)
    )?;
    if data.packs < data.packs_wanted {
        writeln!(
            to,
            "reading ended early: {} packs with {} were to be read",
            data.packs_wanted,
            human_size(data.bytes_wanted)
        )?;
    }
    match report.damage.len() {
        0 => writeln!(to, "no damage found"),
        1 => writeln!(to, "1 object is damaged"),
        n => writeln!(to, "{n} objects are damaged"),
    }
}

fn failed(error: &CheckFailure) -> CliError {
    match error {
        CheckFailure::Session(inner) => fault::session(inner),
        CheckFailure::Check(
            CheckError::Repository(inner) | CheckError::Read(ReadError::Repository(inner)),
        ) => fault::repository(inner),
        CheckFailure::Check(CheckError::Interrupted) => {
            CliError::from_error(Kind::Interrupted, error)
        }
        _ => CliError::from_error(Kind::Failed, error),
    }
}
