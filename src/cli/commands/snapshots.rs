//! `snapshots`

use std::io::{self, Write};

use serde::Serialize;

use crate::base::path::printable;
use crate::base::size::human_size;
use crate::cli::args::{KindArg, SnapshotsArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::global::Context;
use crate::cli::view::RecordView;
use crate::format::manifest::RecordKind;
use crate::record::catalogue::Record;

#[derive(Serialize)]
struct List {
    snapshots: Vec<RecordView>,
    captures: Vec<RecordView>,
}

/// Lists snapshots and captures. Damage among them is exit 20, behind the list of the others.
///
/// # Errors
/// Those of opening the repository.
pub fn run(context: &Context, args: &SnapshotsArgs) -> Result<Exit, CliError> {
    let session = context.session()?;
    let catalogue = context.catalogue(&session.repository)?;
    // Only what was typed limits the list: a site's own machine sees the other sites too.
    let site = context.args.site_name.as_deref();
    let views = |kind: RecordKind, left_out: KindArg| -> Vec<RecordView> {
        let wanted = |r: &&Record| {
            r.kind == kind
                && args.kind != Some(left_out)
                && site.is_none_or(|site| r.body.site == site)
        };
        catalogue.records.iter().filter(wanted).map(RecordView::of).collect()
    };
    let result = List {
        snapshots: views(RecordKind::Snapshot, KindArg::Capture),
        captures: views(RecordKind::Capture, KindArg::Snapshot),
    };
    context.out().finish(&result, |to| {
        if result.snapshots.is_empty() && result.captures.is_empty() {
            return writeln!(to, "Nothing is kept yet.");
        }
        write_list(to, "Snapshots (restorable)", &result.snapshots)?;
        write_list(to, "Captures (best effort, never restorable)", &result.captures)
    })?;
    Ok(if catalogue.damaged.is_empty() { Exit::Ok } else { Exit::Damage })
}

fn write_list(to: &mut dyn Write, title: &str, records: &[RecordView]) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    writeln!(to, "{title}")?;
    for record in records {
        let drilled = match &record.drilled {
            None => "never drilled".to_owned(),
            Some(drill) if drill.passed => format!("drill passed {}", drill.at),
            Some(drill) => format!("drill FAILED {}", drill.at),
        };
        let mut more = Vec::new();
        if !record.tags.is_empty() {
            more.push(format!("tags {}", printable(record.tags.join(", ").as_bytes())));
        }
        if record.pinned {
            more.push("pinned".to_owned());
        }
        let more = more.iter().fold(String::new(), |text, part| format!("{text}  {part}"));
        writeln!(
            to,
            "  {}  {}  {}  {:>8}  {} files  {drilled}{more}",
            record.id.get(..12).unwrap_or(&record.id),
            seconds(&record.time),
            printable(record.site.as_bytes()),
            human_size(record.summary.bytes),
            record.summary.files,
        )?;
    }
    Ok(())
}

/// A time without fractions of a second.
pub(super) fn seconds(time: &crate::base::time::Timestamp) -> String {
    crate::base::time::Timestamp { nanos: 0, ..*time }.to_string()
}
