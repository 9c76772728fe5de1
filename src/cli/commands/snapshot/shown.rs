//! What a snapshot looks like to a person and to a script.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::path;
use crate::base::path::{hex_if_not_utf8, lossy};
use crate::base::size::human_size;
use crate::base::time::human_duration;
use crate::cli::exit::{CliError, Exit};
use crate::cli::global::Context;
use crate::format::manifest::{
    Evidence, How, ManifestBody, RecordKind, SourceRecord, WindowPhases,
};
use crate::intake::plan::ReadPlan;
use crate::ops::snapshot::SnapshotReport;
use crate::ops::snapshot::plan::{CHUNKS_GO, Outlook};
use crate::ops::sources::Wanted;
use crate::window::phases::{Mode, Plan};

/// Shows the result.
pub(super) fn report(context: &Context, report: &SnapshotReport) -> Result<(), CliError> {
    for warning in &report.warnings {
        context.said.warn(warning);
    }
    // What was said before the run stands there too.
    let said = context.said.so_far();
    for warning in report.body.warnings.iter().filter(|warning| !said.contains(warning)) {
        context.said.warn(warning);
    }
    if let Some(why) = &report.unwell {
        context.said.warn(&unwell(why));
    }
    for down in &report.not_running {
        context.said.warn(&down.message());
    }
    context.out().finish(&document(report), |to| readable(to, report))
}

/// A service that runs and does not answer is no service for anybody.
fn unwell(why: &str) -> String {
    format!("the service runs and is not well: {why}")
}

fn document(report: &SnapshotReport) -> Value {
    let body = &report.body;
    json!({
        "kind": body.kind,
        "id": report.id,
        "restorable": body.kind == RecordKind::Snapshot,
        "origin": body.origin,
        "site": body.site,
        "host": body.host,
        "time": body.time,
        "tags": body.tags,
        "parent": report.parent,
        "connect_version": body.connect_version,
        "window": body.window,
        "evidence": body.evidence,
        "sources": body.sources.iter().map(source).collect::<Vec<_>>(),
        "excludes": body.excludes,
        "mounts": body.mounts.iter().map(|m| with_path(&m.path.0, json!({
            "fs_type": m.fs_type, "crossed": m.crossed,
        }))).collect::<Vec<_>>(),
        "summary": body.summary,
        "problems": body.problems.iter().map(|p| with_path(&p.path.0, json!({
            "error": p.error,
        }))).collect::<Vec<_>>(),
        "problems_total": body.problems_total,
        "warnings": report.warnings.iter().chain(&body.warnings).collect::<Vec<_>>(),
        "unwell": report.unwell,
        "not_running": report.not_running.iter().map(|n| n.message()).collect::<Vec<_>>(),
    })
}

fn with_path(bytes: &[u8], mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.insert("path".into(), lossy(bytes).into());
        if let Some(hex) = hex_if_not_utf8(bytes) {
            map.insert("path_hex".into(), hex.into());
        }
    }
    value
}

fn source(source: &SourceRecord) -> Value {
    let rest = json!({
        "role": source.roles.first(),
        "roles": source.roles,
        "setting": source.setting,
        "bytes": source.bytes,
    });
    match (&source.path, &source.database) {
        (Some(p), _) => with_path(&p.0, rest),
        (None, database) => {
            let mut rest = rest;
            rest["database"] = json!(database);
            rest
        }
    }
}

fn readable(to: &mut dyn Write, report: &SnapshotReport) -> io::Result<()> {
    let body = &report.body;
    let summary = &body.summary;
    match body.kind {
        RecordKind::Snapshot => writeln!(to, "snapshot {} of {}", report.id.short(), body.site)?,
        RecordKind::Capture => writeln!(
            to,
            "capture {} of {}: not a snapshot, never restorable",
            report.id.short(),
            body.site
        )?,
    }
    writeln!(
        to,
        "  {} files, {} directories, {}",
        summary.files,
        summary.dirs,
        human_size(summary.bytes)
    )?;
    writeln!(
        to,
        "  {} new, {} changed, {} unmodified; {} added to the repository",
        summary.files_new,
        summary.files_changed,
        summary.files_unmodified,
        human_size(summary.bytes_added)
    )?;
    write!(to, "  took {}", human_duration(Duration::from_millis(summary.duration_ms)))?;
    let downtime = body.window.as_ref().and_then(|w| w.downtime_ms);
    match downtime {
        Some(ms) => {
            let phases = body.window.as_ref().and_then(|window| window.phases);
            writeln!(to, ", {}", downtime_line(ms, phases))?;
        }
        None => writeln!(to)?,
    }
    if let Some(why) = &report.unwell {
        writeln!(to, "  problem: {}", unwell(why))?;
    }
    evidence(to, body)?;
    problems(to, body)
}

/// How long the service was down, and what most of it went to.
fn downtime_line(ms: u64, phases: Option<WindowPhases>) -> String {
    let time = |ms| human_duration(Duration::from_millis(ms));
    let Some(phases) = phases else { return format!("downtime {}", time(ms)) };
    let mut parts = phases.named();
    parts.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
    let part = |(name, ms): &(&str, u64)| format!("{name} {}", time(*ms));
    let rest: Vec<String> = parts[1..].iter().filter(|(_, ms)| *ms > 0).map(part).collect();
    let rest = if rest.is_empty() { String::new() } else { format!("; {}", rest.join(", ")) };
    format!("downtime {}, most of it {}{rest}", time(ms), part(&parts[0]))
}

fn evidence(to: &mut dyn Write, body: &ManifestBody) -> io::Result<()> {
    let line = |e: &Evidence| {
        let how = if e.how == How::Asserted { " (asserted)" } else { "" };
        format!("{}{how}: {}: {}", e.check, e.subject, e.detail)
    };
    let broken: Vec<&Evidence> = body.evidence.iter().filter(|e| !e.held).collect();
    if broken.is_empty() {
        return writeln!(to, "  all {} checks of the evidence held", body.evidence.len());
    }
    for one in broken {
        writeln!(to, "  not held: {}", line(one))?;
    }
    Ok(())
}

fn problems(to: &mut dyn Write, body: &ManifestBody) -> io::Result<()> {
    const SHOWN: usize = 10;
    for problem in body.problems.iter().take(SHOWN) {
        writeln!(to, "  problem: {}: {}", path(&problem.path.0), problem.error)?;
    }
    match body.problems_total.saturating_sub(SHOWN as u64) {
        0 => Ok(()),
        more => writeln!(to, "  and {more} more problems (`cabk show` lists them)"),
    }
}

fn outlook_document(outlook: &Outlook) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json!({
        "stops": outlook.stops.iter().map(|(node, service)| json!({
            "node": node, "service": service,
        })).collect::<Vec<_>>(),
        "max_downtime_ms": millis(outlook.longest),
        "reading": outlook.reading.as_str(),
        "why": outlook.why,
        "new_chunks": CHUNKS_GO,
        "guards": outlook.guards,
        "estimate_ms": outlook.estimate.map(millis),
        "estimated_by": outlook.estimated_by,
    })
}

/// Shows what would be done.
pub(super) fn dry_run(
    context: &Context,
    wanted: &Wanted,
    window: &Plan,
    plan: &ReadPlan,
    outlook: &Outlook,
) -> Result<Exit, CliError> {
    let services: Vec<(String, String)> = window
        .services
        .iter()
        .map(|planned| {
            let state = match planned.service.status() {
                Ok(status) => format!("{:?}, {}", status.state, status.detail.trim()),
                Err(error) => error.to_string(),
            };
            (planned.service.label(), state)
        })
        .collect();
    let document = json!({
        "dry_run": true,
        "site": wanted.site,
        "stops": window.mode.stops(),
        "services": services.iter().map(|(service, state)| json!({
            "service": service, "state": state,
        })).collect::<Vec<_>>(),
        "sources": wanted.sources.iter().map(|s| with_path(&s.path, json!({
            "role": s.roles.first().map(|r| r.as_str()),
            "setting": s.setting,
            "exists": s.exists,
        }))).collect::<Vec<_>>(),
        "excludes": plan.excludes(),
        "plan": outlook_document(outlook),
        "warnings": context.said.so_far(),
    });
    context.out().finish(&document, |to| {
        writeln!(to, "would take a snapshot of {}", wanted.site)?;
        match window.mode {
            Mode::StopAndStart => writeln!(to, "would stop, and start again:")?,
            Mode::AlreadyStopped => writeln!(to, "would stop nothing; said to be stopped:")?,
            Mode::NoService => writeln!(to, "would touch no service")?,
        }
        for (service, state) in &services {
            writeln!(to, "  {service}: {state}")?;
        }
        writeln!(to, "would read:")?;
        for root in &plan.roots {
            writeln!(to, "  {}", path(root))?;
        }
        writeln!(to, "plan:")?;
        outlook.lines().iter().try_for_each(|line| writeln!(to, "  {line}"))
    })?;
    Ok(Exit::Ok)
}
