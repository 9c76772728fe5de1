//! `show ID`

use std::io::{self, Write};
use std::time::Duration;

use super::snapshots::seconds;
use crate::base::path::printable;
use crate::base::size::human_size;
use crate::base::time::human_duration;
use crate::cli::args::ShowArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::global::Context;
use crate::cli::view::{FullView, RecordView};
use crate::format::manifest::{Evidence, How, Origin, RecordKind, WindowRecord};

/// Problems that are shown to a reader; JSON has all that are kept.
const PROBLEMS_SHOWN: usize = 20;

/// Shows one snapshot or capture.
///
/// # Errors
/// Those of opening the repository and of finding the record.
pub fn run(context: &Context, args: &ShowArgs) -> Result<Exit, CliError> {
    let session = context.session()?;
    let catalogue = context.catalogue(&session.repository)?;
    let view = FullView::of(context.record(&catalogue, &args.what)?);
    context.out().finish(&view, |to| write(to, &view))?;
    Ok(Exit::Ok)
}

fn text(raw: &str) -> String {
    printable(raw.as_bytes())
}

fn write(to: &mut dyn Write, view: &FullView) -> io::Result<()> {
    write_head(to, view)?;
    if let Some(window) = &view.window {
        write_window(to, window)?;
    }
    writeln!(to, "\nevidence")?;
    if view.evidence.is_empty() {
        writeln!(to, "  none: it was read while the service lived")?;
    }
    view.evidence.iter().try_for_each(|one| write_evidence(to, one))?;
    writeln!(to, "\nsources")?;
    for source in &view.sources {
        let place = match (&source.path, &source.database) {
            (Some(path), _) => printable(&path.0),
            (None, database) => text(database.as_deref().unwrap_or("")),
        };
        let by = source.setting.as_ref().map_or(String::new(), |s| format!("  ({})", text(s)));
        let roles = source.roles.join(", ");
        writeln!(to, "  {:>9}  {place}  {roles}{by}", human_size(source.bytes))?;
    }
    write_rest(to, view)
}

fn write_head(to: &mut dyn Write, view: &FullView) -> io::Result<()> {
    let record: &RecordView = &view.record;
    let kind = match record.kind {
        RecordKind::Snapshot => "snapshot (restorable)",
        RecordKind::Capture => "capture (NOT restorable)",
    };
    let origin = match record.origin {
        Origin::Window => "in a window",
        Origin::Live => "while the service lived",
    };
    writeln!(to, "{kind} {}", record.id)?;
    writeln!(to, "  site      {}, read by {} {origin}", text(&record.site), text(&record.host))?;
    writeln!(to, "  time      {}", seconds(&record.time))?;
    let connect = record.connect_version.as_deref().unwrap_or("of unknown version");
    writeln!(to, "  versions  Connect {}, cabk {}", text(connect), text(&view.tool_version))?;
    let sum = &record.summary;
    writeln!(
        to,
        "  content   {} in {} files and {} directories; {} new, {} changed, {} unmodified",
        human_size(sum.bytes),
        sum.files,
        sum.dirs,
        sum.files_new,
        sum.files_changed,
        sum.files_unmodified
    )?;
    writeln!(
        to,
        "  stored    {} more, in {}",
        human_size(sum.bytes_added),
        human_duration(Duration::from_millis(sum.duration_ms))
    )?;
    match &record.drilled {
        None => writeln!(to, "  drill     never")?,
        Some(drill) if drill.passed => writeln!(to, "  drill     passed {}", seconds(&drill.at))?,
        Some(drill) => writeln!(to, "  drill     FAILED {}", seconds(&drill.at))?,
    }
    if !record.tags.is_empty() {
        writeln!(to, "  tags      {}", text(&record.tags.join(", ")))?;
    }
    if record.pinned {
        writeln!(to, "  pinned    kept out of retention")?;
    }
    if let Some(parent) = &view.parent {
        writeln!(to, "  parent    {parent}")?;
    }
    Ok(())
}

fn write_window(to: &mut dyn Write, window: &WindowRecord) -> io::Result<()> {
    let time = |t: &Option<crate::base::time::Timestamp>| {
        t.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
    };
    let (stopped, started) = (time(&window.stopped_at), time(&window.started_at));
    writeln!(to, "\nwindow")?;
    match window.downtime_ms {
        Some(ms) => {
            let downtime = human_duration(Duration::from_millis(ms));
            writeln!(to, "  stopped {stopped}, started {started}: down for {downtime}")?;
        }
        None => writeln!(to, "  stopped {stopped}, started {started}")?,
    }
    for node in &window.nodes {
        let before = if node.ran_before { "ran before" } else { "was stopped before" };
        let after = match node.runs_after {
            Some(true) => "runs after",
            Some(false) => "does NOT run after",
            None => "was left stopped",
        };
        writeln!(to, "  {} on {}: {before}, {after}", text(&node.service), text(&node.node))?;
    }
    for frozen in &window.frozen {
        let (made, took) = (text(&frozen.made), Duration::from_millis(frozen.took_ms));
        let took = human_duration(took);
        writeln!(to, "  frozen at {} in {took}, and read after the start: {made}", frozen.at)?;
        for path in &frozen.paths {
            writeln!(to, "    {}", text(path))?;
        }
    }
    Ok(())
}

fn write_evidence(to: &mut dyn Write, one: &Evidence) -> io::Result<()> {
    let held = if one.held { "held    " } else { "NOT held" };
    let how = match one.how {
        How::Observed => "observed",
        How::Asserted => "asserted",
    };
    writeln!(to, "  {held}  {} of {}", text(&one.check), text(&one.subject))?;
    let detail =
        if one.detail.is_empty() { String::new() } else { format!(": {}", text(&one.detail)) };
    writeln!(to, "            {how} on {} ({}){detail}", text(&one.node), text(&one.scope))?;
    match one.looked_at.as_slice() {
        [] => Ok(()),
        [once] => writeln!(to, "            at {once}"),
        [first, .., last] => writeln!(to, "            at {first} and until {last}"),
    }
}

fn write_rest(to: &mut dyn Write, view: &FullView) -> io::Result<()> {
    for pattern in &view.excludes {
        writeln!(to, "\nleft out: {}", text(pattern))?;
    }
    for mount in &view.mounts {
        let what = if mount.crossed { "read" } else { "left out" };
        writeln!(to, "mount {} ({}): {what}", printable(&mount.path.0), text(&mount.fs_type))?;
    }
    for warning in &view.warnings {
        writeln!(to, "warning: {}", text(warning))?;
    }
    if view.problems_total > 0 {
        writeln!(to, "\nproblems ({})", view.problems_total)?;
    }
    for problem in view.problems.iter().take(PROBLEMS_SHOWN) {
        writeln!(to, "  {}: {}", printable(&problem.path.0), text(&problem.error))?;
    }
    let shown = view.problems.len().min(PROBLEMS_SHOWN) as u64;
    if view.problems_total > shown {
        writeln!(to, "  and {} more (--json has the first of them)", view.problems_total - shown)?;
    }
    Ok(())
}
