//! `unlock`

use std::io::{self, Write};

use serde::Serialize;

use crate::base::time::Timestamp;
use crate::cli::args::UnlockArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::global::Context;
use crate::format::control::LeaseBody;
use crate::ops::unlock;

#[derive(Serialize)]
struct Row {
    id: String,
    host: String,
    pid: u32,
    operation: String,
    taken: Timestamp,
}

#[derive(Serialize)]
struct Done {
    removed: Vec<Row>,
    alive: Vec<Row>,
    unknown: Vec<Row>,
    unreadable: Vec<String>,
}

fn rows(leases: Vec<LeaseBody>) -> Vec<Row> {
    let row = |lease: LeaseBody| Row {
        id: lease.id.to_hex(),
        host: lease.holder.host,
        pid: lease.holder.pid,
        operation: lease.operation,
        taken: lease.taken,
    };
    leases.into_iter().map(row).collect()
}

/// Removes stale leases.
///
/// # Errors
/// Those of opening the repository, and of its storage.
pub fn run(context: &Context, args: &UnlockArgs) -> Result<Exit, CliError> {
    let session = context.session()?;
    let done = unlock::unlock(&session.repository, args.host.as_deref())?;
    let result = Done {
        removed: rows(done.removed),
        alive: rows(done.alive),
        unknown: rows(done.unknown),
        unreadable: done.unreadable.iter().map(|id| id.to_hex()).collect(),
    };
    context.out().finish(&result, |to| {
        write_rows(to, "removed", &result.removed)?;
        write_rows(to, "in use, left alone", &result.alive)?;
        write_rows(to, "of another machine, left alone (see --host)", &result.unknown)?;
        for id in &result.unreadable {
            writeln!(to, "removed {id}, which could not be read")?;
        }
        if result.removed.is_empty() && result.unreadable.is_empty() {
            writeln!(to, "There was nothing to remove.")?;
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

fn write_rows(to: &mut dyn Write, what: &str, rows: &[Row]) -> io::Result<()> {
    for row in rows {
        let host = crate::base::path::printable(row.host.as_bytes());
        writeln!(
            to,
            "{what}: {} of {host} (process {}), {} since {}",
            row.id, row.pid, row.operation, row.taken
        )?;
    }
    Ok(())
}
