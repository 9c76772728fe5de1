//! `completions SHELL`

use crate::cli::args::CompletionsArgs;
use crate::cli::complete;
use crate::cli::exit::{CliError, Exit};
use crate::cli::output::Out;

/// Prints the script, which is the result with `--json` too.
///
/// # Errors
/// What stdout says.
pub fn run(out: Out<'_>, args: CompletionsArgs) -> Result<Exit, CliError> {
    out.raw(&complete::script(args.shell))?;
    Ok(Exit::Ok)
}
