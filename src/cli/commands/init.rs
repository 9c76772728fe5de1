//! `init`

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::backend::local::LocalBackend;
use crate::base::path::{bytes, printable};
use crate::base::secret::Password;
use crate::cli::args::InitArgs;
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::global::{Context, local_repository};
use crate::cli::password::RELATED;
use crate::host::entropy::SystemEntropy;
use crate::ops::{init, key};
use crate::store::repository::{self, Repository, RepositoryError, Unlock};

#[derive(Serialize)]
struct Made<'a> {
    repo: &'a str,
    id: String,
    encrypted: bool,
    related_to: Option<String>,
}

/// Makes a repository, and on a terminal offers a recovery key.
///
/// # Errors
/// Exit 22 where something is there already; those of passwords and of the storage.
pub fn run(context: &Context, args: &InitArgs) -> Result<Exit, CliError> {
    let path = context.repository()?;
    init::probe(&path)?;
    let related = match &args.related_to {
        Some(named) => Some(open_related(context, args, &local_repository(named)?)?),
        None => None,
    };
    if args.parity.is_some() {
        context.said.warn("--parity is recorded and has no effect yet in this version");
    }
    let parity = args.parity.map_or(0, |p| p.hundredths().div_ceil(100));
    let parity_percent = u8::try_from(parity).unwrap_or(u8::MAX);
    if parity_percent > 50 {
        return Err(CliError::new(Kind::Usage, "--parity is at most 50 %"));
    }
    let password = if args.no_encryption { None } else { Some(context.password(true)?) };
    let made = init::init(&init::Init {
        path: &path,
        password: password.as_ref(),
        compression: args.compression.unwrap_or(init::COMPRESSION),
        parity_percent,
        related_to: related.as_ref(),
        now: context.clock.now(),
    })?;
    let recovery = if made.is_encrypted() { offer_recovery(context, &made)? } else { None };
    let whole = std::fs::canonicalize(&path).unwrap_or(path);
    let repo = printable(bytes(&whole));
    let result = Made {
        repo: &repo,
        id: made.id().to_hex(),
        encrypted: made.is_encrypted(),
        related_to: related.as_ref().map(|r| r.id().to_hex()),
    };
    context.out().finish(&result, |to| {
        writeln!(to, "repository {} made at {repo}", result.id)?;
        if !result.encrypted {
            return writeln!(to, "It is NOT encrypted: whoever can read it can read all of it.");
        }
        match &recovery {
            Some(key) => super::key::write_recovery(to, key),
            None => writeln!(
                to,
                "Without its password nobody can read it: `cabk key add --recovery` makes a \
                 recovery key."
            ),
        }
    })?;
    Ok(Exit::Ok)
}

fn open_related(context: &Context, args: &InitArgs, path: &Path) -> Result<Repository, CliError> {
    let backend = Arc::new(LocalBackend::open(path)?);
    let file = args.related_password_file.as_deref();
    let command = args.related_password_command.as_deref();
    let mut no_password = None;
    let opened = repository::open(backend, Arc::new(SystemEntropy), || {
        match context.other_password(&RELATED, file, command, false) {
            Ok(password) => Some(Unlock::Password(password)),
            Err(error) => {
                no_password = Some(error);
                None
            }
        }
    });
    match (opened, no_password) {
        (Err(RepositoryError::NeedsKey), Some(error)) => Err(error),
        (opened, _) => Ok(opened?.repository),
    }
}

/// Asks whether a recovery key is wanted, where there is somebody to ask, and makes it.
fn offer_recovery(
    context: &Context,
    made: &Repository,
) -> Result<Option<Zeroizing<String>>, CliError> {
    if context.args.json || !context.prompt.possible() {
        return Ok(None);
    }
    let question = "Make a recovery key, to be kept on paper, for the day the password is lost? \
                    [Y/n] ";
    // A terminal that goes away now says no; the repository is made.
    let answer = context.prompt.answer(question).unwrap_or_else(|_| "n".to_owned());
    if !matches!(answer.to_lowercase().as_str(), "" | "y" | "yes") {
        return Ok(None);
    }
    let text = key::draw_recovery(made.entropy())?;
    let password = Password::new(text.as_bytes().to_vec());
    key::add(made, &password, "recovery", true, context.clock.now())?;
    Ok(Some(text))
}
