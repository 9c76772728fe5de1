//! What a restore looks like to a person and to a script.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::base::path::{hex_if_not_utf8, lossy, printable};
use crate::base::size::human_size;
use crate::cli::exit::CliError;
use crate::cli::global::Context;
use crate::ops::restore::{Action, RestoreReport};

pub(super) fn report(
    context: &Context,
    report: &RestoreReport,
    dry_run: bool,
) -> Result<(), CliError> {
    for note in &report.notes {
        context.said.warn(note);
    }
    context.out().finish(&document(report, dry_run), |to| readable(to, report, dry_run))
}

fn with_path(bytes: &[u8], mut value: Value) -> Value {
    value["path"] = lossy(bytes).into();
    if let Some(hex) = hex_if_not_utf8(bytes) {
        value["path_hex"] = hex.into();
    }
    value
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Replace => "replace",
        Action::Attributes => "attributes",
        Action::Remove => "remove",
    }
}

fn document(report: &RestoreReport, dry_run: bool) -> Value {
    let mut document = json!({
        "id": report.id,
        "target": report.target.as_ref().map(|t| lossy(t)),
        "files": report.files,
        "dirs": report.dirs,
        "bytes": report.bytes,
        "bytes_written": report.bytes_written,
        "files_left_equal": report.files_left_equal,
        "removed": report.removed,
        "verified": report.verified,
        "owners_by_number": report.owners_by_number,
        "problems": report.problems.iter().map(|p| with_path(&p.path, json!({
            "error": p.error,
        }))).collect::<Vec<_>>(),
        "problems_total": report.problems_total,
        "notes": report.notes,
    });
    if dry_run {
        document["dry_run"] = true.into();
        document["planned"] = report
            .planned
            .iter()
            .map(|p| with_path(&p.path, json!({"action": word(p.action), "bytes": p.bytes})))
            .collect();
    }
    document
}

fn readable(to: &mut dyn Write, report: &RestoreReport, dry_run: bool) -> io::Result<()> {
    if dry_run {
        for planned in &report.planned {
            writeln!(to, "{:10} {}", word(planned.action), printable(&planned.path))?;
        }
        return writeln!(to, "nothing was changed: this was a dry run");
    }
    match &report.target {
        Some(target) => writeln!(to, "restored to {}", printable(target))?,
        None => writeln!(to, "restored in place")?,
    }
    writeln!(
        to,
        "  {} files, {} directories, {}; {} written, {} files left as they were, {} removed",
        report.files,
        report.dirs,
        human_size(report.bytes),
        human_size(report.bytes_written),
        report.files_left_equal,
        report.removed
    )?;
    if let Some(verified) = report.verified {
        writeln!(to, "  {verified} files read back and found equal")?;
    }
    if report.owners_by_number > 0 {
        let n = report.owners_by_number;
        writeln!(to, "  {n} owners are kept by number: nobody here has their name")?;
    }
    for problem in &report.problems {
        writeln!(to, "  problem: {}: {}", printable(&problem.path), problem.error)?;
    }
    match report.problems_total.saturating_sub(report.problems.len() as u64) {
        0 => Ok(()),
        more => writeln!(to, "  and {more} more problems"),
    }
}
