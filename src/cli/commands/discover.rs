//! `discover`

use std::io::{self, Write};

use serde::Serialize;

use crate::base::path::printable;
use crate::base::size::human_size;
use crate::cli::args::DiscoverArgs;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::global::Context;
use crate::cli::view::PathView;
use crate::cli::{service, wanted};
use crate::host::signal::Interrupt;
use crate::ops::discover::{Size, sizes};
use crate::ops::sources::{Wanted, WantedSource, connect_version};
use crate::site::discover::Warning;

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
    let input = wanted::input(context, &args.source, &units, repository.as_deref())?;
    let mut wanted = wanted::wanted(&input)?;
    let version = version(context, &mut wanted);
    context.progress.phase("counting", None);
    let sizes = sizes(&wanted, &interrupt, &*context.progress)
        .map_err(|e| CliError::from_error(Kind::Interrupted, &e))?;
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
