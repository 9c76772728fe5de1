//! `discover`

use std::io::{self, Write};

use serde::Serialize;

use crate::base::path::printable;
use crate::base::size::human_size;
use crate::cli::args::DiscoverArgs;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::global::Context;
use crate::cli::service::{self, Nodes};
use crate::cli::view::PathView;
use crate::cli::wanted;
use crate::host::node::Node;
use crate::host::signal::Interrupt;
use crate::ops::discover::{Around, Size, sizes};
use crate::ops::sources::{NodeFiles, SourcesInput, Wanted, WantedSource, connect_version};
use crate::site::discover::Warning;
use crate::window::intent::IntentStore;
use crate::window::visitor::Visitor;

#[derive(Serialize)]
struct Row {
    role: &'static str,
    roles: Vec<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    path: Option<PathView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    setting: Option<String>,
    exists: bool,
    bytes: Option<u64>,
    files: Option<u64>,
    critical: bool,
    secret: bool,
}

#[derive(Serialize)]
struct Found {
    site: String,
    connect_version: Option<String>,
    sources: Vec<Row>,
    excludes: Vec<String>,
    warnings: Vec<Warning>,
}

/// Shows what the site consists of. Writes nothing and touches no service.
///
/// # Errors
/// Exit 2 for a configuration that cannot be read; 130 for a signal.
pub fn run(context: &Context, args: &DiscoverArgs) -> Result<Exit, CliError> {
    let failed =
        |e: io::Error| CliError::new(Kind::Failed, "cannot wait for signals").caused_by(&e);
    let interrupt = Interrupt::install().map_err(failed)?;
    // A repository is named for a snapshot; here it only says what would be left out.
    let repository = context.repository().ok();
    let units = service::configured(context)?.units();
    let mut input = wanted::input(context, &args.source, &units, repository.as_deref())?;
    let _fetched = wanted::fetched(context, &mut input, &units)?;
    let mut wanted = wanted::wanted(&input)?;
    // They go with the run.
    let _files = other_nodes(context, args, (&input, &units), &mut wanted)?;
    let version = version(context, &mut wanted);
    context.progress.phase("counting", None);
    let store = IntentStore::open(&context.state_dir()?);
    let around = Around {
        visitor: &Visitor::of(&store, &wanted.site),
        clock: &*context.clock,
        interrupt: &interrupt,
        progress: &*context.progress,
    };
    let sizes = sizes(&wanted, &around).map_err(|e| CliError::from_error(Kind::Interrupted, &e))?;
    context.progress.finish();
    for (source, size) in wanted.sources.iter().zip(&sizes) {
        if let Some(Size { unreadable: unreadable @ 1.., .. }) = size {
            let message =
                format!("{}: {unreadable} names could not be looked at", printable(&source.path));
            wanted.warnings.push(Warning { code: "unreadable", message });
        }
    }
    let found = Found {
        site: wanted.site.clone(),
        connect_version: version,
        sources: wanted.sources.iter().zip(sizes).map(|(s, size)| row(s, size)).collect(),
        excludes: wanted.excludes.clone(),
        warnings: wanted.warnings.clone(),
    };
    context.out().finish(&found, |to| write(to, &found))?;
    Ok(Exit::Ok)
}

/// The configurations of the other nodes, as far as they can be read.
fn other_nodes(
    context: &Context,
    args: &DiscoverArgs,
    (input, units): (&SourcesInput, &[String]),
    wanted: &mut Wanted,
) -> Result<Option<NodeFiles>, CliError> {
    let mut names = match args.nodes.as_slice() {
        [] => context.loaded.config.service.nodes.clone(),
        typed => typed.to_vec(),
    };
    names.extend(input.afar.iter().map(|afar| afar.node.to_string()));
    if input.gcfg.is_none() {
        return Ok(None);
    }
    let nodes = Nodes::named(context, &names)?;
    let others: Vec<Node> = nodes.reached(context).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let failed = |error: io::Error| CliError::from_error(Kind::Failed, &error);
    let Some(files) = NodeFiles::new(&context.state_dir()?, &wanted.site).map_err(failed)? else {
        let message = "another run reads the other nodes' configurations: they are not shown";
        wanted.warnings.push(Warning { code: "node-config", message: message.to_owned() });
        return Ok(None);
    };
    for node in others {
        if let Err(error) = files.add(&node, units, input, wanted) {
            let message = format!("the configuration of {} cannot be read: {error}", node.name());
            wanted.warnings.push(Warning { code: "node-config", message });
        }
    }
    Ok(Some(files))
}

fn version(context: &Context, wanted: &mut Wanted) -> Option<String> {
    match connect_version(wanted.program.as_deref()?, &*context.clock) {
        Ok(version) => Some(version),
        Err(message) => {
            wanted.warnings.push(Warning { code: "version-unknown", message });
            None
        }
    }
}

fn row(source: &WantedSource, size: Option<Size>) -> Row {
    Row {
        role: source.roles.first().map_or("extra", |role| role.as_str()),
        roles: source.roles.iter().map(|role| role.as_str()).collect(),
        path: source.database.is_none().then(|| PathView(source.path.clone())),
        database: source.database.clone(),
        setting: source.setting.clone(),
        exists: source.exists,
        bytes: size.map(|s| s.bytes),
        files: size.map(|s| s.files),
        critical: source.critical,
        secret: source.secret,
    }
}

fn write(to: &mut dyn Write, found: &Found) -> io::Result<()> {
    writeln!(to, "site {}", printable(found.site.as_bytes()))?;
    if let Some(version) = &found.connect_version {
        writeln!(to, "Connect {version}")?;
    }
    writeln!(to, "\nsources")?;
    for row in &found.sources {
        let place = match (&row.path, &row.database) {
            (Some(path), _) => printable(&path.0),
            (None, database) => printable(database.as_deref().unwrap_or("").as_bytes()),
        };
        let size = match (row.exists, row.bytes) {
            (false, _) => "missing".to_owned(),
            (true, Some(bytes)) => human_size(bytes),
            (true, None) => "-".to_owned(),
        };
        let by = row
            .setting
            .as_ref()
            .map_or(String::new(), |s| format!("  ({})", printable(s.as_bytes())));
        writeln!(to, "  {size:>9}  {place}  {}{by}", row.roles.join(", "))?;
    }
    for pattern in &found.excludes {
        writeln!(to, "\nleft out: {}", printable(pattern.as_bytes()))?;
    }
    if !found.warnings.is_empty() {
        writeln!(to, "\nwarnings")?;
    }
    for warning in &found.warnings {
        writeln!(to, "  {}", printable(warning.message.as_bytes()))?;
    }
    Ok(())
}
