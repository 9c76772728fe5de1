//! Whether a restore in place is safe here and now: the service, its version, the site.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::{RestoreArgs, SourceArgs};
use crate::cli::exit::{CliError, Kind};
use crate::cli::fault;
use crate::cli::global::Context;
use crate::cli::service::{self, Chosen, Nodes};
use crate::cli::wanted;
use crate::host::machine;
use crate::host::run::RunError;
use crate::host::service::{ServiceError, ServiceState};
use crate::host::signal::Interrupt;
use crate::host::systemd::Systemd;
use crate::ops::sources::{connect_version, gather};
use crate::record::snapshot::Snapshot;
use crate::window::intent::{IntentStore, ServiceKind};
use crate::window::phases::PlannedService;
use crate::window::site_lock::{LockError, SiteLock};

/// This machine, among nodes.
const LOCAL: &str = "local";

/// Is there where the machine was booted with systemd.
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// Refuses what would not be safe in place, and locks the site's window where anything will change.
pub(super) fn in_place(
    context: &Context,
    args: &RestoreArgs,
    snapshot: &Snapshot,
    interrupt: &Interrupt,
) -> Result<Option<SiteLock>, CliError> {
    let here = Here::look(context, true)?;
    let body = snapshot.body();
    let named = args.as_site.as_deref() == Some(body.site.as_str());
    if here.site != body.site && !named {
        return Err(CliError::new(
            Kind::Refused,
            format!("the snapshot is of {}, and this is {}", body.site, here.site),
        )
        .hint(format!("--as-site {} says that this is meant", body.site)));
    }
    match (&body.connect_version, &here.version) {
        (Some(then), Some(now)) if then != now && !args.ignore_version => {
            return Err(CliError::new(
                Kind::Refused,
                format!("the snapshot is of Connect {then}, and {now} is installed here"),
            )
            .hint(format!("install Connect {then}, or use --ignore-version")));
        }
        (Some(then), None) => context.said.warn(&format!(
            "the snapshot is of Connect {then}, and which version is installed here is not known"
        )),
        (None, Some(now)) => context.said.warn(&format!(
            "the snapshot does not say of which version of Connect it is; here it is {now}"
        )),
        _ => {}
    }
    let lock = lock(context, args, snapshot, &here.site, interrupt)?;
    not_running(context, args, snapshot)?;
    Ok(lock)
}

/// No window of the site is open, none was left open, and none opens until the lock is given up.
fn lock(
    context: &Context,
    args: &RestoreArgs,
    snapshot: &Snapshot,
    site: &str,
    interrupt: &Interrupt,
) -> Result<Option<SiteLock>, CliError> {
    let store = IntentStore::open(&context.state_dir()?);
    let lock = match args.dry_run {
        true => None,
        false => {
            let clock = &*context.clock;
            let taken = SiteLock::acquire(&store, site, Duration::ZERO, clock, interrupt);
            Some(taken.map_err(|error| not_locked(&error))?)
        }
    };
    for site in [site, snapshot.body().site.as_str()] {
        if store.read(site).map_err(|error| fault::intent(&error))?.is_some() {
            let said = format!("a window of {site} is open, or was left open by a run that died");
            return Err(CliError::new(Kind::Refused, said)
                .hint("`cabk window status` shows it; `cabk window recover` ends what was left"));
        }
    }
    Ok(lock)
}

fn not_locked(error: &LockError) -> CliError {
    match error {
        LockError::Busy { .. } => {
            CliError::from_error(Kind::InUse, error).hint("try again when the other run has ended")
        }
        LockError::Interrupted => CliError::from_error(Kind::Interrupted, error),
        LockError::State(intent) => fault::intent(intent),
        LockError::Io { .. } => CliError::from_error(Kind::Failed, error),
    }
}

/// What would be refused in place and is worth a word beside a living site.
pub(super) fn beside(context: &Context, snapshot: &Snapshot) -> Vec<String> {
    let mut remarks = Vec::new();
    let Some(then) = &snapshot.body().connect_version else { return remarks };
    let here = Here::look(context, false).ok();
    if let Some(now) = here.and_then(|here| here.version).filter(|now| now != then) {
        remarks.push(format!("the snapshot is of Connect {then}, and {now} is installed here"));
    }
    remarks
}

/// What this machine is.
struct Here {
    site: String,
    version: Option<String>,
}

impl Here {
    /// Describes this machine as `snapshot` does; `tells` says what could not be found out.
    fn look(context: &Context, tells: bool) -> Result<Self, CliError> {
        let warn = |why: &str| {
            if tells {
                context.said.warn(why);
            }
        };
        let units = service::configured(context)?.units();
        let mut input = wanted::input(context, &SourceArgs::default(), &units, None)?;
        let fetched = wanted::fetched(context, &mut input, &units);
        let _fetched = fetched.inspect_err(|error| warn(&error.message)).ok();
        // A machine without a site, or whose configuration is what shall come back, has its own
        // name, and no version to compare with.
        match gather(&input) {
            Ok(wanted) => {
                let asked = wanted.program.as_ref().map(|p| connect_version(p, &*context.clock));
                let version = asked.and_then(|asked| asked.map_err(|why| warn(&why)).ok());
                Ok(Self { version, site: wanted.site })
            }
            Err(error) => {
                if input.gcfg.as_ref().is_some_and(|path| path.exists()) {
                    warn(&wanted::failed(&error).message);
                }
                let own = || machine::hostname().ok();
                let site = context.site_name().map(str::to_owned).or_else(own).unwrap_or_default();
                Ok(Self { site, version: None })
            }
        }
    }
}

/// Refuses where a service that the snapshot or the configuration names runs on one of their nodes,
/// or where nobody can tell.
fn not_running(context: &Context, args: &RestoreArgs, snapshot: &Snapshot) -> Result<(), CliError> {
    let site = &snapshot.body().site;
    let recorded: Vec<_> = snapshot.body().window.iter().flat_map(|w| &w.nodes).collect();
    let mut names = vec![LOCAL.to_owned()];
    names.extend(recorded.iter().map(|n| n.node.clone()));
    names.extend(context.loaded.config.service.nodes.iter().cloned());
    names.extend(args.nodes.iter().cloned());
    let nodes = Nodes::named(context, &names)?;
    // What is no name of a unit is the word for commands, which only the configuration has.
    let is_unit = |name: &String| Systemd::new(name, Arc::clone(&context.clock)).is_ok();
    let configured = service::configured(context)?;
    let mut units: Vec<String> =
        recorded.iter().map(|n| n.service.clone()).filter(is_unit).collect();
    units.extend(configured.units());
    units.sort();
    units.dedup();
    let (mut all, _) = Chosen::Units(units).services_on(context, &nodes, site, false)?;
    if matches!(configured, Chosen::Commands(_)) {
        all.extend(configured.services(context, site, false)?.0);
    }
    all.iter().try_for_each(is_stopped)
}

fn is_stopped(planned: &PlannedService) -> Result<(), CliError> {
    let (label, node) = (planned.service.label(), planned.service.node());
    let place = if node == LOCAL { "here".to_owned() } else { format!("on {node}") };
    let unknown = |why: &str| {
        let said = format!("whether {label} runs {place} cannot be told: {why}");
        CliError::new(Kind::Refused, said).hint(
            "see what `systemctl status` says of it there; service.status_command in the \
             configuration tells it of a service that is not systemd's",
        )
    };
    match planned.service.status() {
        Ok(status) => match status.state {
            ServiceState::Stopped => Ok(()),
            ServiceState::Running => {
                Err(CliError::new(Kind::Refused, format!("{label} runs {place}"))
                    .hint("stop the service on every node first"))
            }
            ServiceState::Unknown(seen) => Err(unknown(&seen)),
        },
        Err(ServiceError::UnknownUnit(_)) => Ok(()),
        Err(error) if node == LOCAL && nothing_runs(&planned.how, &error) => Ok(()),
        Err(error) => Err(unknown(&CliError::from_error(Kind::Refused, &error).message)),
    }
}

/// Where systemd does not know the unit, or is not there, nothing of it runs.
fn nothing_runs(how: &ServiceKind, error: &ServiceError) -> bool {
    match (how, error) {
        (ServiceKind::Commands { .. }, _) => false,
        (_, ServiceError::Run { source: RunError::Spawn { source, .. }, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            true
        }
        _ => !Path::new(SYSTEMD_RUNS).exists(),
    }
}
