//! Which service the options and the configuration mean, and how it is reached.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::SnapshotArgs;
use crate::cli::exit::{CliError, Kind};
use crate::cli::global::Context;
use crate::host::commands::{CommandService, Commands};
use crate::host::node::{Node, NodeAddress, Rights, Sharing, Ssh, socket_places};
use crate::host::run::CommandLine;
use crate::host::service::{Precaution, Service, ServiceError, ServiceState};
use crate::host::systemd::Systemd;
use crate::window::intent::ServiceKind;
use crate::window::observe::{Observer, OtherNode};
use crate::window::phases::{Mode, PlannedService};

/// Time for a connection to another node.
const CONNECT: Duration = Duration::from_secs(10);

/// Time for a small question to one.
const QUESTION: Duration = Duration::from_secs(30);

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
/// Exit 2 for commands that do not go together.
pub fn choose(context: &Context, args: &SnapshotArgs) -> Result<Chosen, CliError> {
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

/// The machines on which the service runs.
pub struct Nodes {
    /// Each once, in the order given; none at all means this machine.
    named: Vec<NodeAddress>,
    sudo: bool,
    ssh: Arc<Ssh>,
}

impl Nodes {
    /// This machine alone.
    #[must_use]
    pub fn local() -> Self {
        Self { named: Vec::new(), sudo: false, ssh: Arc::new(Ssh::new(CONNECT)) }
    }

    /// Those of the options, else of the configuration. Plain directories have none but those of
    /// the options, unless a service is named beside them.
    ///
    /// # Errors
    /// Exit 2 for what is no node, or where there is no state directory.
    pub fn chosen(context: &Context, args: &SnapshotArgs) -> Result<Self, CliError> {
        let config = &context.loaded.config.service;
        let plain = matches!(choose(context, args)?, Chosen::None);
        let names = match args.service.nodes.as_slice() {
            [] if plain => &[],
            [] => config.nodes.as_slice(),
            typed => typed,
        };
        Self::named(context, names)
    }

    /// Those of a list; none at all is this machine.
    ///
    /// # Errors
    /// As [`Self::chosen`].
    pub fn named(context: &Context, names: &[String]) -> Result<Self, CliError> {
        let config = &context.loaded.config.service;
        let mut nodes = Self { sudo: config.node_sudo, ..Self::local() };
        for name in names {
            let address: NodeAddress =
                name.parse().map_err(|e| CliError::from_error(Kind::Usage, &e))?;
            if !nodes.named.contains(&address) {
                nodes.named.push(address);
            }
        }
        if nodes.others().next().is_some() {
            let mut places = socket_places();
            places.push(context.state_dir()?);
            nodes.ssh = Arc::new(Ssh::new(CONNECT).sharing(&places));
        }
        Ok(nodes)
    }

    /// All of them.
    fn all(&self) -> Vec<NodeAddress> {
        if self.named.is_empty() { vec![NodeAddress::Local] } else { self.named.clone() }
    }

    fn others(&self) -> impl Iterator<Item = &NodeAddress> {
        self.named.iter().filter(|node| **node != NodeAddress::Local)
    }

    /// Whether the other nodes can be reached, and may be told to stop and start these units.
    ///
    /// # Errors
    /// Exit 22 with what the first one said that cannot.
    pub fn try_all(&self, context: &Context, units: &[String]) -> Result<(), CliError> {
        let ask = |node: &Node, words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            node.run(Rights::Own, &words, &[], Sharing::Open, QUESTION)
                .map_err(|error| CliError::from_error(Kind::Refused, &error))
        };
        for address in self.others() {
            let node = self.at(context, address);
            ask(&node, &["true"])?;
            let both = ["stop", "start"].into_iter().filter(|_| self.sudo);
            for (verb, unit) in both.flat_map(|verb| units.iter().map(move |unit| (verb, unit))) {
                let command = ["systemctl", "--no-ask-password", verb, "--", unit.as_str()];
                let done = ask(&node, &[&["sudo", "-n", "-l", "--"], &command[..]].concat())?;
                if !done.status.success() {
                    let command = command.join(" ");
                    let message =
                        format!("sudo on {address} does not allow `{command}`: {}", done.said());
                    return Err(CliError::new(Kind::Refused, message)
                        .hint("docs/nodes.md shows what sudo has to allow"));
                }
            }
        }
        Ok(())
    }

    fn at(&self, context: &Context, address: &NodeAddress) -> Node {
        Node::at(address.clone(), &self.ssh, self.sudo, Arc::clone(&context.clock))
    }

    /// Those that are not this machine.
    pub fn reached(&self, context: &Context) -> impl Iterator<Item = Node> {
        self.others().map(|address| self.at(context, address))
    }

    /// What can be seen of those that are not this machine.
    #[must_use]
    pub fn observers(&self, context: &Context) -> Vec<Arc<dyn Observer>> {
        let observer = |address| Arc::new(OtherNode::new(self.at(context, address)));
        self.others().map(observer).map(|one| one as Arc<dyn Observer>).collect()
    }

    /// The units on all nodes. Where this machine is none of them, nothing of it may run.
    fn units(&self, context: &Context, units: &[String]) -> Result<Vec<PlannedService>, CliError> {
        let usage = |e: ServiceError| CliError::from_error(Kind::Usage, &e);
        let mut all = Vec::new();
        for address in self.all() {
            for unit in units {
                let service = Systemd::on(self.at(context, &address), unit).map_err(usage)?;
                let sudo = self.sudo && address != NodeAddress::Local;
                let how = ServiceKind::Systemd { unit: unit.clone(), sudo };
                let service = Arc::new(service);
                let precaution = Some(Arc::clone(&service) as Arc<dyn Precaution>);
                all.push(PlannedService { service, how, precaution });
            }
        }
        if self.all().contains(&NodeAddress::Local) {
            return Ok(all);
        }
        for unit in units {
            let here = Systemd::new(unit, Arc::clone(&context.clock)).map_err(usage)?;
            // Where systemd is not there, or does not know the unit, nothing of it runs.
            if here.status().is_ok_and(|status| status.state == ServiceState::Running) {
                let message = format!("{unit} runs on this machine, which is not among the nodes");
                return Err(CliError::new(Kind::Refused, message)
                    .hint("name this machine too, with --node local"));
            }
        }
        Ok(all)
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

    /// The services on this machine alone and what a window would do with them.
    ///
    /// # Errors
    /// Exit 2 for what is not the name of a unit.
    pub fn services(
        self,
        context: &Context,
        site: &str,
        already_stopped: bool,
    ) -> Result<(Vec<PlannedService>, Mode), CliError> {
        self.services_on(context, &Nodes::local(), site, already_stopped)
    }

    /// The services and what the window does with them. Commands run here, once.
    ///
    /// # Errors
    /// Exit 2 for what is not the name of a unit, 22 for a unit that runs here though this machine
    /// is none of the nodes.
    pub fn services_on(
        self,
        context: &Context,
        nodes: &Nodes,
        site: &str,
        already_stopped: bool,
    ) -> Result<(Vec<PlannedService>, Mode), CliError> {
        let services = match self {
            Self::None => return Ok((Vec::new(), Mode::NoService)),
            Self::Units(units) => nodes.units(context, &units)?,
            Self::Commands(commands) => {
                let how = ServiceKind::Commands {
                    stop: (&commands.stop).into(),
                    start: (&commands.start).into(),
                    status: commands.status.as_ref().map(Into::into),
                };
                let clock = Arc::clone(&context.clock);
                let service = CommandService::new(*commands, OsStr::new(site), "local", clock);
                vec![PlannedService { service: Arc::new(service), how, precaution: None }]
            }
        };
        if !already_stopped {
            return Ok((services, Mode::StopAndStart));
        }
        // Where there is no systemd to ask, as in a container, it is the operator's word alone. What
        // else goes wrong is told when the window asks.
        let absent = |s: &PlannedService| s.service.status().is_err_and(|e| e.is_no_systemd());
        let asked = services.into_iter().filter(|s| !absent(s)).collect();
        Ok((asked, Mode::AlreadyStopped))
    }
}
