//! Whether a restore in place is safe here and now: the service, its version, the site.

use std::sync::Arc;

use crate::cli::args::RestoreArgs;
use crate::cli::exit::{CliError, Kind};
use crate::cli::global::Context;
use crate::cli::service::{self, Chosen};
use crate::host::machine;
use crate::host::service::{Service, ServiceState};
use crate::ops::sources::{SourcesInput, connect_version, gather};
use crate::record::snapshot::Snapshot;

/// Refuses what would not be safe in place.
pub(super) fn in_place(
    context: &Context,
    args: &RestoreArgs,
    snapshot: &Snapshot,
) -> Result<(), CliError> {
    let here = Here::look(context);
    let body = snapshot.body();
    let named = args.as_site.as_deref() == Some(body.site.as_str());
    if here.site != body.site && !named {
        return Err(CliError::new(
            Kind::Refused,
            format!("the snapshot is of {}, and this is {}", body.site, here.site),
        )
        .hint(format!("--as-site {} says that this is meant", body.site)));
    }
    if let (Some(then), Some(now)) = (&body.connect_version, &here.version)
        && then != now
        && !args.ignore_version
    {
        return Err(CliError::new(
            Kind::Refused,
            format!("the snapshot is of Connect {then}, and {now} is installed here"),
        )
        .hint(format!("install Connect {then}, or use --ignore-version")));
    }
    if let Some(running) = running(context, snapshot)? {
        return Err(CliError::new(Kind::Refused, format!("{running} runs here"))
            .hint("stop the service on every node first"));
    }
    Ok(())
}

/// What would be refused in place and is worth a word beside a living site.
pub(super) fn beside(context: &Context, snapshot: &Snapshot) -> Vec<String> {
    let mut remarks = Vec::new();
    let Some(then) = &snapshot.body().connect_version else { return remarks };
    if let Some(now) = Here::look(context).version.filter(|now| now != then) {
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
    fn look(context: &Context) -> Self {
        let site = &context.loaded.config.site;
        let input = SourcesInput {
            gcfg: Some(site.gcfg.clone()),
            site_name: context.site_name().map(str::to_owned),
            ..SourcesInput::default()
        };
        // A machine without a site has its own name, and no version to compare with.
        match gather(&input) {
            Ok(wanted) => Self {
                version: wanted
                    .program
                    .as_ref()
                    .and_then(|program| connect_version(program, &*context.clock).ok()),
                site: wanted.site,
            },
            Err(_) => Self {
                site: context
                    .site_name()
                    .map(str::to_owned)
                    .or_else(|| machine::hostname().ok())
                    .unwrap_or_default(),
                version: None,
            },
        }
    }
}

/// A service that the snapshot or the configuration names and that runs here.
fn running(context: &Context, snapshot: &Snapshot) -> Result<Option<String>, CliError> {
    let recorded = snapshot.body().window.iter().flat_map(|w| &w.nodes);
    let recorded = recorded.filter(|n| n.node == "local").map(|n| n.service.clone());
    let configured = service::configured(context)?;
    let mut units: Vec<String> = recorded.filter(|s| s.ends_with(".service")).collect();
    units.extend(configured.units());
    units.sort();
    units.dedup();
    let of_systemd = Chosen::Units(units).services(context, &snapshot.body().site, false)?;
    let by_commands = match configured {
        Chosen::Commands(_) => configured.services(context, &snapshot.body().site, false)?.0,
        _ => Vec::new(),
    };
    let all = of_systemd.0.into_iter().chain(by_commands);
    // Where systemd does not know the unit, or is not there, nothing of it runs; a service whose
    // commands cannot tell is the operator's to know.
    let runs = |s: &Arc<dyn Service>| s.status().is_ok_and(|s| s.state == ServiceState::Running);
    Ok(all.map(|planned| planned.service).find(runs).map(|service| service.label()))
}
