//! Typed arguments to intent to one file per command; rendering, progress, exit codes.

pub mod args;
pub mod commands;
pub mod complete;
pub mod config;
pub mod env;
pub mod exit;
pub mod fault;
pub mod global;
pub mod output;
pub mod password;
pub mod progress;
pub mod service;
pub mod session;
pub mod view;
pub mod wanted;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;

use crate::host::clock::{Clock, SystemClock};
use args::{Cli, Command, GlobalArgs};
use env::Env;
use exit::{CliError, Exit, Kind};
use global::Context;
use output::{Level, Out, Warnings};
use progress::{Reporter, Style};

/// Runs a command line, the program's name first, and gives what the process ends with.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(code) = commands::demo::as_service(&arguments) {
        return code;
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, &arguments).code(),
    };
    let global = &cli.global;
    let level = Level::from_flags(global.quiet, global.verbose);
    let said = Arc::new(Warnings::stderr(global.json, level));
    let aside = match &cli.command {
        Command::Snapshot(args) => args.aside.clone(),
        _ => None,
    };
    let telling = match aside.map(|aside| aside.begin()).transpose() {
        Ok(telling) => telling,
        Err(error) => {
            said.error(&CliError::from_error(Kind::Failed, &error));
            return Exit::Failed.code();
        }
    };
    let code = match dispatch(cli, &said) {
        Ok(exit) => exit.code(),
        Err(error) => {
            said.error(&error);
            error.exit.code()
        }
    };
    if let Some(telling) = telling {
        telling.tell(code);
    }
    code
}

/// One line for each command; what needs neither configuration nor repository has no context.
fn dispatch(cli: Cli, said: &Arc<Warnings>) -> Result<Exit, CliError> {
    let json = cli.global.json;
    let global = cli.global;
    match cli.command {
        Command::Completions(args) => commands::completions::run(Out::stdout(json), args),
        Command::Man(args) => commands::man::run(Out::stdout(json), &args),
        Command::Init(args) => with_context(global, said, |c| commands::init::run(c, &args)),
        Command::Discover(args) => {
            with_context(global, said, |c| commands::discover::run(c, &args))
        }
        Command::Snapshots(args) => {
            with_context(global, said, |c| commands::snapshots::run(c, &args))
        }
        Command::Show(args) => with_context(global, said, |c| commands::show::run(c, &args)),
        Command::Ls(args) => with_context(global, said, |c| commands::ls::run(c, &args)),
        Command::Stats(args) => with_context(global, said, |c| commands::stats::run(c, &args)),
        Command::Key(args) => with_context(global, said, |c| commands::key::run(c, &args)),
        Command::Window(args::WindowArgs { command: args::WindowCommand::Guard(args) }) => {
            commands::guard::run(&args)
        }
        Command::Window(args) => with_context(global, said, |c| commands::window::run(c, &args)),
        Command::Unlock(args) => with_context(global, said, |c| commands::unlock::run(c, &args)),
        Command::Check(args) => with_context(global, said, |c| commands::check::run(c, &args)),
        Command::Restore(args) => with_context(global, said, |c| commands::restore::run(c, &args)),
        Command::Demo(args) => with_context(global, said, |c| commands::demo::run(c, &args)),
        Command::Snapshot(args) => {
            with_context(global, said, |c| commands::snapshot::run(c, &args))
        }
    }
}

/// Runs a command with all that stands around a verb, and takes progress away at its end.
fn with_context(
    args: GlobalArgs,
    said: &Arc<Warnings>,
    run: impl FnOnce(&Context) -> Result<Exit, CliError>,
) -> Result<Exit, CliError> {
    let context = context(args, said)?;
    let done = run(&context);
    context.progress.finish();
    done
}

/// Joins what was typed with the process, its environment and the configuration.
fn context(args: GlobalArgs, said: &Arc<Warnings>) -> Result<Context, CliError> {
    let env = Env::Process;
    let loaded = global::configuration(&args, &env, said)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let terminal = std::io::stderr().is_terminal();
    let style = Style::choose(args.progress, args.json, args.quiet, terminal);
    Ok(Context {
        args,
        env,
        is_root: rustix::process::geteuid().is_root(),
        loaded,
        prompt: Box::new(password::Terminal),
        said: Arc::clone(said),
        progress: Arc::new(Reporter::new(style, Arc::clone(&clock), Arc::clone(said))),
        clock,
    })
}

/// What a command line that is none gets: help and version on stdout, an error on stderr.
fn not_parsed(error: &clap::Error, arguments: &[OsString]) -> Exit {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that went away has seen what it wanted to see.
        let _ = error.print();
        return Exit::Ok;
    }
    // Everything after `--` is no option.
    let json = arguments.iter().take_while(|a| *a != "--").any(|a| a == "--json");
    if json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or("wrong usage");
        let message = message.strip_prefix("error: ").unwrap_or(message);
        Warnings::stderr(true, Level::Normal).error(&CliError::new(Kind::Usage, message));
    } else {
        // clap's own text, with usage and suggestions, begins with our name like all others.
        let text = error.render().to_string();
        let named = if text.starts_with("error: ") { "cabk: " } else { "" };
        let _ = std::io::stderr().write_all(format!("{named}{text}").as_bytes());
    }
    Exit::Usage
}
