//! Which service the options and the configuration mean, and how it is reached.

use std::ffi::OsStr;
use std::sync::Arc;

use crate::cli::args::SnapshotArgs;
use crate::cli::exit::{CliError, Kind};
use crate::cli::global::Context;
use crate::host::commands::{CommandService, Commands};
use crate::host::run::CommandLine;
use crate::host::systemd::Systemd;
use crate::window::intent::ServiceKind;
use crate::window::phases::{Mode, PlannedService};

/// What the options and the configuration name.
pub enum Chosen {
    /// Plain directories: no service is touched.
    None,
    /// Units of systemd, in the order of their stops.
    Units(Vec<String>),
    /// Commands.
    Commands(Box<Commands>),
}

/// Chooses by the options of `snapshot`, then the configuration.
///
/// # Errors
/// Exit 2 for commands that do not go together, 22 for nodes that cannot be stopped.
pub fn choose(context: &Context, args: &SnapshotArgs) -> Result<Chosen, CliError> {
    let remote = context.loaded.config.remote_nodes();
    let plain = args.source.site.is_none() && !args.source.paths.is_empty();
    let service = &args.service;
    let shell = |text: &Option<String>| text.clone().map(CommandLine::Shell);
    let typed = [&service.stop_command, &service.start_command, &service.status_command];
    if typed.iter().any(|t| t.is_some()) {
        let (Some(stop), Some(start)) =
            (shell(&service.stop_command), shell(&service.start_command))
        else {
            return Err(CliError::new(
                Kind::Usage,
                "--stop-command and --start-command go together",
            ));
        };
        let status = shell(&service.status_command);
        return Ok(Chosen::Commands(Box::new(Commands { stop, start, status })));
    }
    if !service.services.is_empty() {
        return Ok(Chosen::Units(service.services.clone()));
    }
    if plain {
        return Ok(Chosen::None);
    }
    if !remote.is_empty() && service.nodes.is_empty() {
        return Err(CliError::new(
            Kind::Refused,
            format!(
                "the configuration names other nodes ({}), which this version cannot stop: a \
                 snapshot could not be proven",
                remote.join(", ")
            ),
        ));
    }
    configured(context)
}

/// What the configuration alone names.
///
/// # Errors
/// Exit 2 where one of the commands is missing.
pub fn configured(context: &Context) -> Result<Chosen, CliError> {
    let argv = |words: &Vec<String>| CommandLine::Argv(words.clone());
    let c = &context.loaded.config.service;
    match (c.stop_command.is_empty(), c.start_command.is_empty()) {
        (true, true) => Ok(Chosen::Units(c.units.clone())),
        (false, false) => Ok(Chosen::Commands(Box::new(Commands {
            stop: argv(&c.stop_command),
            start: argv(&c.start_command),
            status: (!c.status_command.is_empty()).then(|| argv(&c.status_command)),
        }))),
        _ => Err(CliError::new(
            Kind::Config,
            "service.stop_command and service.start_command go together",
        )),
    }
}

impl Chosen {
    /// The units, for their files.
    #[must_use]
    pub fn units(&self) -> Vec<String> {
        match self {
            Self::Units(units) => units.clone(),
            _ => Vec::new(),
        }
    }

    /// The services and what the window does with them.
    ///
    /// # Errors
    /// Exit 2 for what is not the name of a unit.
    pub fn services(
        self,
        context: &Context,
        site: &str,
        already_stopped: bool,
    ) -> Result<(Vec<PlannedService>, Mode), CliError> {
        let services = match self {
            Self::None => return Ok((Vec::new(), Mode::NoService)),
            Self::Units(units) => units
                .iter()
                .map(|unit| {
                    let service = Systemd::new(unit, Arc::clone(&context.clock))
                        .map_err(|e| CliError::from_error(Kind::Usage, &e))?;
                    let how = ServiceKind::Systemd { unit: unit.clone() };
                    Ok(PlannedService { service: Arc::new(service), how })
                })
                .collect::<Result<Vec<_>, CliError>>()?,
            Self::Commands(commands) => {
                let how = ServiceKind::Commands {
                    stop: (&commands.stop).into(),
                    start: (&commands.start).into(),
                    status: commands.status.as_ref().map(Into::into),
                };
                let clock = Arc::clone(&context.clock);
                let service = CommandService::new(*commands, OsStr::new(site), "local", clock);
                vec![PlannedService { service: Arc::new(service), how }]
            }
        };
        if !already_stopped {
            return Ok((services, Mode::StopAndStart));
        }
        // What cannot be asked (no systemd in a container) is then the operator's word alone.
        let asked = services.into_iter().filter(|s| s.service.status().is_ok()).collect();
        Ok((asked, Mode::AlreadyStopped))
    }
}
