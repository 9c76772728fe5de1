//! `man DIR`

use serde::Serialize;

use crate::cli::args::ManArgs;
use crate::cli::complete;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::output::Out;

#[derive(Serialize)]
struct Written<'a> {
    dir: std::borrow::Cow<'a, str>,
    pages: &'a [String],
}

/// Writes the pages and says how many there are.
///
/// # Errors
/// Exit 1 where the directory cannot be written.
pub fn run(out: Out<'_>, args: &ManArgs) -> Result<Exit, CliError> {
    let pages = complete::write_pages(&args.dir).map_err(|error| {
        let message = format!("cannot write manual pages to {}", args.dir.display());
        CliError::new(Kind::Failed, message).caused_by(&error)
    })?;
    let result = Written { dir: args.dir.to_string_lossy(), pages: &pages };
    out.finish(&result, |to| {
        writeln!(to, "{} manual pages written to {}", pages.len(), args.dir.display())
    })?;
    Ok(Exit::Ok)
}
