//! Telling others that a run begins to read, and that it is over (`--announce`).

use std::cell::Cell;
use std::ffi::OsStr;
use std::time::Duration;

use crate::cli::args::SnapshotArgs;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::global::Context;
use crate::format::manifest::RecordKind;
use crate::host::run::{CommandLine, run_bounded};
use crate::ops::snapshot::SnapshotReport;

/// Time that the command has.
const TIME: Duration = Duration::from_secs(60);

/// `CABK_EVENT` before anything is read ahead.
const BEFORE: &str = "announce-before";

/// `CABK_EVENT` when the run is over, however it ended.
const AFTER: &str = "announce-after";

/// The command of a run, and whether it was told of the beginning.
pub(super) struct Announce<'a> {
    context: &'a Context,
    site: String,
    command: Option<CommandLine>,
    begun: Cell<bool>,
}

impl<'a> Announce<'a> {
    /// The command of the options, else of the configuration.
    pub(super) fn chosen(context: &'a Context, args: &SnapshotArgs, site: &str) -> Self {
        let configured = &context.loaded.config.hooks.announce;
        let command = match &args.neighbour.announce {
            Some(text) => Some(CommandLine::Shell(text.clone())).filter(|_| !text.is_empty()),
            None if configured.is_empty() => None,
            None => Some(CommandLine::Argv(configured.clone())),
        };
        Self { context, site: site.to_owned(), command, begun: Cell::new(false) }
    }

    /// Reading ahead begins.
    pub(super) fn begins(&self) {
        self.begun.set(true);
        self.run(&[("CABK_EVENT", BEFORE)]);
    }

    /// The run is over; whoever was told of the beginning is told of the end.
    pub(super) fn ends(&self, report: Option<&SnapshotReport>, ended: &Result<Exit, CliError>) {
        if !self.begun.get() {
            return;
        }
        let (exit, error) = match ended {
            Ok(exit) => (*exit, String::new()),
            Err(error) => (error.exit, whole(error)),
        };
        let id = report.map(|report| report.id.to_hex()).unwrap_or_default();
        let kind = report.map_or("", |report| match report.body.kind {
            RecordKind::Snapshot => "snapshot",
            RecordKind::Capture => "capture",
        });
        let window = report.and_then(|report| report.body.window.as_ref());
        let downtime = window.and_then(|window| window.downtime_ms);
        let downtime = downtime.map(|ms| ms.to_string()).unwrap_or_default();
        self.run(&[
            ("CABK_EVENT", AFTER),
            ("CABK_ID", &id),
            ("CABK_KIND", kind),
            ("CABK_EXIT", &exit.code().to_string()),
            ("CABK_DOWNTIME_MS", &downtime),
            // An environment holds no NUL.
            ("CABK_ERROR", &error.replace('\0', " ")),
        ]);
    }

    fn run(&self, told: &[(&str, &str)]) {
        let Some(command) = &self.command else { return };
        let site = [("CABK_SITE", self.site.as_str())];
        let env = site.iter().chain(told).map(|(key, value)| (*key, OsStr::new(value)));
        let env: Vec<(&str, &OsStr)> = env.collect();
        let done = run_bounded(command, &env, TIME, &*self.context.clock);
        let why = match done {
            Ok(done) if done.status.success() => return,
            Ok(done) => {
                let said = done.said();
                let colon = if said.is_empty() { "" } else { ": " };
                format!("{} ended with {}{colon}{said}", command.display(), done.ending())
            }
            Err(error) => whole(&CliError::from_error(Kind::Failed, &error)),
        };
        self.context.said.warn(&format!("the announce hook failed: {why}"));
    }
}

/// An error in one line.
fn whole(error: &CliError) -> String {
    let all = std::iter::once(&error.message).chain(&error.causes);
    all.map(String::as_str).collect::<Vec<_>>().join(": ")
}
