//! `window`

use std::io::{self, Write};

use serde::Serialize;

use crate::base::path::{bytes, printable};
use crate::cli::args::{InstallArgs, WindowArgs, WindowCommand};
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::global::Context;
use crate::ops::window::{self, Install, InstallError};
use crate::window::intent::Phase;
use crate::window::recover::Outcome;
use crate::window::status::WindowStatus;

#[derive(Serialize)]
struct Row {
    site: String,
    node: String,
    service: String,
    runs: Option<bool>,
    detail: String,
}

#[derive(Serialize)]
struct Done {
    recovered: Vec<Row>,
    open: Vec<String>,
    /// Names of what runs that are dead had left frozen, and is removed now.
    frozen_removed: Vec<String>,
    errors: Vec<String>,
}

/// Runs one of the commands about windows.
///
/// # Errors
/// Those of the state directory.
pub fn run(context: &Context, args: &WindowArgs) -> Result<Exit, CliError> {
    match &args.command {
        WindowCommand::Status => status(context),
        WindowCommand::Recover => recover(context),
        WindowCommand::Install(args) => install(context, args),
        WindowCommand::Uninstall(args) => uninstall(context, args),
        WindowCommand::Guard(args) => super::guard::run(args),
    }
}

fn status(context: &Context) -> Result<Exit, CliError> {
    let status = window::status(&context.state_dir()?, &*context.clock)?;
    for problem in &status.problems {
        context.said.warn(problem);
    }
    context.out().finish(&status, |to| readable(to, &status))?;
    Ok(exit_of(&status))
}

/// What monitoring is told by the code alone: a service that may be down and that nobody starts
/// outranks somebody who keeps a window open past its deadline, and that what is merely left behind.
fn exit_of(status: &WindowStatus) -> Exit {
    if status.may_be_down() {
        Exit::ServiceDown
    } else if status.is_overdue() {
        Exit::TooOld
    } else if status.stale || !status.problems.is_empty() {
        Exit::Problems
    } else {
        Exit::Ok
    }
}

fn readable(to: &mut dyn Write, status: &WindowStatus) -> io::Result<()> {
    if !status.open {
        writeln!(to, "No window is open.")?;
    }
    for one in &status.windows {
        let (site, since, pid) = (printable(one.site.as_bytes()), one.since, one.pid);
        let who = match one.stale {
            Some(false) => format!("process {pid} is at work"),
            Some(true) => "nobody is in it: `cabk window recover` starts what was stopped".into(),
            None => format!("whether process {pid} lives cannot be told"),
        };
        writeln!(to, "{site}: a window is open since {since}; {who}")?;
        let past = if one.overdue { ", which is past" } else { "" };
        writeln!(to, "  {}; to be closed by {}{past}", phase(one.phase), one.deadline)?;
        for node in status.nodes.iter().filter(|node| node.site == one.site) {
            let before = if node.ran_before { "ran before" } else { "was stopped before" };
            let service = printable(node.service.as_bytes());
            writeln!(to, "  {service} on {} ({before})", node.node)?;
        }
    }
    for guard in status.guards.iter().filter(|guard| !guard.last.is_empty()) {
        writeln!(to, "What guards did last ({}):", guard.log)?;
        for line in &guard.last {
            writeln!(to, "  {}", printable(line.as_bytes()))?;
        }
    }
    Ok(())
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Armed => "nothing was stopped yet",
        Phase::Stopping => "stopping or stopped",
        Phase::Starting => "starting again",
    }
}

#[derive(Serialize)]
struct Changed {
    changed: bool,
    paths: Vec<String>,
}

fn install(context: &Context, args: &InstallArgs) -> Result<Exit, CliError> {
    let (paths, changed) = with_files(context, args, window::install)?;
    let done = Changed { changed, paths: paths.iter().map(|p| printable(bytes(p))).collect() };
    context.out().finish(&done, |to| {
        let state = if done.changed { "In place" } else { "In place already" };
        writeln!(to, "{state}:")?;
        done.paths.iter().try_for_each(|path| writeln!(to, "  {path}"))
    })?;
    Ok(Exit::Ok)
}

fn uninstall(context: &Context, args: &InstallArgs) -> Result<Exit, CliError> {
    let paths = with_files(context, args, window::uninstall)?;
    let paths: Vec<String> = paths.iter().map(|path| printable(bytes(path))).collect();
    let done = Changed { changed: !paths.is_empty(), paths };
    context.out().finish(&done, |to| {
        if done.paths.is_empty() {
            return writeln!(to, "There was nothing to take away.");
        }
        writeln!(to, "Taken away:")?;
        done.paths.iter().try_for_each(|path| writeln!(to, "  {path}"))
    })?;
    Ok(Exit::Ok)
}

/// Does something with what is, or would be, installed.
fn with_files<T>(
    context: &Context,
    args: &InstallArgs,
    act: impl FnOnce(&Install<'_>) -> Result<T, InstallError>,
) -> Result<T, CliError> {
    let units = match args.units.as_slice() {
        [] => &context.loaded.config.service.units,
        typed => typed,
    };
    let program = std::env::current_exe().map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    let state_dir = context.state_dir()?;
    let done = act(&Install {
        units,
        root: args.root.as_deref(),
        program: &program,
        state_dir: &state_dir,
        clock: &*context.clock,
    });
    done.map_err(|error| {
        let kind = match error {
            InstallError::NoSystemd | InstallError::Foreign(_) => Kind::Refused,
            InstallError::Name(_) => Kind::Usage,
            _ => Kind::Failed,
        };
        let shown = CliError::from_error(kind, &error);
        match error {
            InstallError::NoSystemd => shown.hint(
                "run `cabk window recover` at start by whatever starts this machine's services",
            ),
            InstallError::Foreign(_) => shown.hint("move that file away first"),
            _ => shown,
        }
    })
}

fn recover(context: &Context) -> Result<Exit, CliError> {
    let (recovery, swept) = window::recover(&context.state_dir()?, &context.clock)?;
    let mut down = Vec::new();
    let mut rows = Vec::new();
    for one in &recovery.services {
        let (runs, detail) = match &one.outcome {
            Outcome::Runs(detail) => (Some(true), detail.clone()),
            Outcome::LeftAlone => (None, "did not run before: left alone".to_owned()),
            Outcome::NotRunning(what) => {
                down.push(what.message());
                (Some(false), what.message())
            }
        };
        rows.push(Row {
            site: one.site.clone(),
            node: one.node.clone(),
            service: one.service.clone(),
            runs,
            detail,
        });
    }
    let errors: Vec<CliError> =
        recovery.errors.iter().map(|e| CliError::from_error(Kind::Failed, e)).collect();
    let worded = |e: &CliError| {
        let mut text = e.message.clone();
        e.causes.iter().for_each(|cause| text.push_str(&format!(": {cause}")));
        text
    };
    let result = Done {
        recovered: rows,
        open: recovery.open.clone(),
        frozen_removed: swept.removed,
        errors: errors.iter().map(worded).collect(),
    };
    let shown = context.out().finish(&result, |to| {
        for row in &result.recovered {
            let service = printable(row.service.as_bytes());
            let detail = printable(row.detail.as_bytes());
            writeln!(to, "{service} on {}: {detail}", row.node)?;
        }
        for site in &result.open {
            let site = printable(site.as_bytes());
            writeln!(to, "{site}: its window is open and its owner is at work: left alone")?;
        }
        for name in &result.frozen_removed {
            writeln!(to, "What a dead run had frozen as {name} is removed.")?;
        }
        let nothing = result.recovered.is_empty() && result.frozen_removed.is_empty();
        if nothing && result.open.is_empty() && result.errors.is_empty() {
            writeln!(to, "There was nothing to recover.")?;
        }
        Ok(())
    });
    swept.left.iter().for_each(|left| context.said.warn(left));
    result.errors.iter().for_each(|error| context.said.warn(error));
    if !down.is_empty() {
        return Err(CliError::new(Kind::ServiceDown, down.join("; ")));
    }
    if !errors.is_empty() {
        return Err(CliError::new(Kind::Failed, result.errors.join("; ")));
    }
    shown.map(|()| Exit::Ok)
}
