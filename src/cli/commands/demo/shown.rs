//! The demonstration for a reader.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use crate::base::size::human_size;
use crate::format::manifest::{Evidence, How};
use crate::ops::demo::{Compared, DemoEvent, DemoReport, Shown};

/// A step that is done.
pub(super) fn event(event: &DemoEvent) -> String {
    match event {
        DemoEvent::Site { directory, site, files, bytes, bundles, bundle_bytes } => format!(
            "A site, {site}, in {directory}:\n  {files} files, {}, among them {bundles} bundles of \
             {}\n",
            human_size(*bytes),
            human_size(*bundle_bytes)
        ),
        DemoEvent::Service { pid, rows } => {
            format!("Its service runs as process {pid} and writes to SQLite: {rows} rows so far\n")
        }
        DemoEvent::Repository { duration_ms, .. } => {
            format!("A new encrypted repository ({})\n", time(*duration_ms))
        }
        DemoEvent::Snapshot(shown) => {
            let first = ["The first snapshot", "The second snapshot"];
            let name = first.get(usize::from(shown.number) - 1).unwrap_or(&"A snapshot");
            format!(
                "\n{name}: check, read ahead, stop, read, prove, start, commit\n{}",
                taken(shown)
            )
        }
        DemoEvent::Writing { rows_before, rows, published_bytes } => format!(
            "\nThe service wrote on, from {rows_before} to {rows} rows, and a new version of an \
             application was published: {}\n",
            human_size(*published_bytes)
        ),
        DemoEvent::Capture(shown) => format!(
            "\nA third one, disturbed: a rendering outlives the stop and writes into its \
             application's directory\n{}",
            taken(shown)
        ),
        DemoEvent::Refused { exit, message, .. } => {
            format!("\nRestoring the capture is refused, exit code {exit}:\n  {message}\n")
        }
        DemoEvent::Restored { id, files, dirs, bytes, duration_ms } => format!(
            "\nThe second snapshot, {}, restored into a new directory: {files} files, {dirs} \
             directories, {} in {}\n",
            id.short(),
            human_size(*bytes),
            time(*duration_ms)
        ),
        DemoEvent::Compared(done) => compared(done),
        DemoEvent::Database { integrity, rows, rows_at_stop } => format!(
            "The restored database: integrity_check {integrity}, {rows} rows; the service counted \
             {rows_at_stop} when it was stopped\n"
        ),
        DemoEvent::Cleared { repository_bytes } => format!(
            "\nThe repository held {}. The service is stopped, and everything is removed\n",
            human_size(*repository_bytes)
        ),
    }
}

fn compared(done: &Compared) -> String {
    let mut text = format!(
        "Compared with the snapshot: {} names with their attributes, {} files with every byte \
         ({}): no difference\n",
        done.entries,
        done.files,
        human_size(done.bytes)
    );
    if done.not_ours > 0 {
        // Writing into a text does not fail.
        let _ = writeln!(
            text,
            "  (apart from {} directories above the site, whose owners or flags could not be given \
             here)",
            done.not_ours
        );
    }
    text
}

fn taken(shown: &Shown) -> String {
    let what = if shown.restorable { "snapshot" } else { "capture, never restorable" };
    let mut text = format!(
        "  {what} {}: {} files, {}; {} unmodified, {} added to the repository\n  took {}, \
         service down for {} (process {} before, {} after)\n",
        shown.id.short(),
        shown.files,
        human_size(shown.bytes),
        shown.files_unmodified,
        human_size(shown.bytes_added),
        time(shown.duration_ms),
        time(shown.downtime_ms),
        shown.pids.0,
        shown.pids.1
    );
    let broken: Vec<&Evidence> = shown.evidence.iter().filter(|e| !e.held).collect();
    // Writing into a text does not fail.
    if broken.is_empty() {
        let _ = writeln!(text, "  all {} checks of the evidence held", shown.evidence.len());
    }
    for one in broken {
        let _ = writeln!(text, "  not held: {}", one.check);
        for part in one.detail.split("; ") {
            let _ = writeln!(text, "    {part}");
        }
    }
    let asserted = shown.evidence.iter().filter(|e| e.held && e.how == How::Asserted);
    for one in asserted {
        let _ = writeln!(text, "  not observed but {}: {}", one.check, one.detail);
    }
    text
}

/// The last line.
pub(super) fn end(to: &mut dyn Write, report: &DemoReport) -> io::Result<()> {
    writeln!(
        to,
        "All {} steps showed what they should, in {}",
        report.steps.len(),
        time(report.duration_ms)
    )
}

fn time(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        _ => crate::base::time::human_duration(Duration::from_millis(millis)),
    }
}
