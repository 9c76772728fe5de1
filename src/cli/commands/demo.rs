//! `demo`

mod shown;
mod verbs;

use std::ffi::OsString;
use std::io::Write;
use std::sync::Arc;

use crate::cli::args::DemoArgs;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::global::Context;
use crate::cli::output::Out;
use crate::host::clock::SystemClock;
use crate::host::signal::Interrupt;
use crate::ops::demo::{DemoError, DemoEvent, DemoInput, demo, toy_command};

/// The word with which this program is called as a part of the toy service: `demo-service WHAT
/// DIR`. No command of its own, so that no help, completion or manual page shows it.
const HIDDEN: &str = "demo-service";

/// Shows the main job step by step; with `--json` one document at the end.
///
/// # Errors
/// Exit 1 where a step did not show what it should, 130 after a signal.
pub fn run(context: &Context, DemoArgs {}: &DemoArgs) -> Result<Exit, CliError> {
    let failed = |error: &std::io::Error| CliError::from_error(Kind::Failed, error);
    let interrupt = Interrupt::install().map_err(|e| failed(&e))?;
    let program = std::env::current_exe().map_err(|e| failed(&e))?;
    let json = context.args.json;
    let told = |event: &DemoEvent| {
        context.progress.finish();
        if json || context.args.quiet {
            return;
        }
        // A reader that went away does not end the demonstration; a full disk shows at its end.
        let _ = Out::stdout(false).raw(shown::event(event).as_bytes());
    };
    let verbs = verbs::Own { clock: Arc::clone(&context.clock), interrupt: interrupt.clone() };
    let input = DemoInput {
        program,
        temporary: std::env::temp_dir(),
        verbs: &verbs,
        told: &told,
        clock: Arc::clone(&context.clock),
        interrupt,
        progress: &*context.progress,
    };
    let report = demo(&input).map_err(|error| {
        let kind = match &error {
            DemoError::Interrupted => Kind::Interrupted,
            _ => Kind::Failed,
        };
        CliError::from_error(kind, &error)
    })?;
    context.out().finish(&report, |to| shown::end(to, &report))?;
    Ok(Exit::Ok)
}

/// Plays a part of the toy service where the command line asks for one.
#[must_use]
pub fn as_service(arguments: &[OsString]) -> Option<u8> {
    let [_, word, what, root] = arguments else { return None };
    if word != HIDDEN {
        return None;
    }
    let what = what.to_string_lossy();
    match toy_command(&what, root.into(), &SystemClock) {
        Ok(answer) => match Out::stdout(false).raw(answer.says.as_bytes()) {
            Ok(()) => Some(answer.exit),
            Err(error) => Some(error.exit.code()),
        },
        Err(error) => {
            let shown = CliError::from_error(Kind::Failed, &error);
            // Nobody may be there to read it; the exit code says it too.
            let _ = shown.write(&mut std::io::stderr() as &mut dyn Write, false);
            Some(shown.exit.code())
        }
    }
}
