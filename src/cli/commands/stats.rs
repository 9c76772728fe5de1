//! `stats`

use std::io::{self, Write};
use std::time::Duration;

use crate::base::size::human_size;
use crate::base::time::human_duration;
use crate::cli::args::StatsArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::global::Context;
use crate::ops::stats::{Stats, stats};

/// Shows what the repository holds and what it takes.
///
/// # Errors
/// Those of opening the repository.
pub fn run(context: &Context, args: &StatsArgs) -> Result<Exit, CliError> {
    let mut session = context.session()?;
    let repository = std::sync::Arc::clone(&session.repository);
    let (found, damaged) = context.reading(&repository, args.read, "stats", Vec::new(), || {
        context.sync(&mut session)?;
        let catalogue = context.catalogue(&session.repository)?;
        let found = stats(&session, &catalogue, context.args.site_name.as_deref())?;
        Ok((found, !catalogue.damaged.is_empty()))
    })?;
    context.out().finish(&found, |to| write(to, &found))?;
    Ok(if damaged { Exit::Damage } else { Exit::Ok })
}

fn write(to: &mut dyn Write, stats: &Stats) -> io::Result<()> {
    writeln!(to, "{} snapshots, {} captures", stats.snapshots, stats.captures)?;
    writeln!(to, "  kept         {}, each counted in full", human_size(stats.logical_bytes))?;
    writeln!(to, "  unique       {} in {} chunks", human_size(stats.unique_bytes), stats.chunks)?;
    writeln!(to, "  repository   {} in {} packs", human_size(stats.repo_bytes), stats.packs)?;
    if stats.repo_bytes > 0 && stats.logical_bytes > 0 {
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        let ratio = stats.logical_bytes as f64 / stats.repo_bytes as f64;
        writeln!(to, "  ratio        {ratio:.1} bytes kept for each byte stored")?;
    }
    let time = |ms: Option<u64>| {
        ms.map_or_else(|| "-".to_owned(), |ms| human_duration(Duration::from_millis(ms)))
    };
    if stats.windows > 0 {
        writeln!(
            to,
            "  downtime     last {}, median {}, longest {} of {} windows",
            time(stats.last_downtime_ms),
            time(stats.median_downtime_ms),
            time(stats.max_downtime_ms),
            stats.windows
        )?;
    }
    Ok(())
}
