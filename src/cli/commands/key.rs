//! `key`

use std::io::{self, Read, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::base::secret::Password;
use crate::base::time::Timestamp;
use crate::cli::args::{KeyAdd, KeyArgs, KeyCommand, KeyExport, KeyImport, KeyPasswd, NewKey};
use crate::cli::exit::{CliError, Exit, Kind};
use crate::cli::global::Context;
use crate::cli::password::NEW_KEY;
use crate::ops::key::{self, KeyVerbError};
use crate::ops::session::Session;
use crate::store::repository::{Unlock, parse_master};

/// Bytes of an exported key's text that are read.
const EXPORT_MAX: u64 = 64 << 10;
/// Digits of an id that suffice.
const PREFIX_MIN: usize = 6;

#[derive(Serialize)]
struct Row {
    id: String,
    label: Option<String>,
    created: Option<Timestamp>,
    recovery: Option<bool>,
}

#[derive(Serialize)]
struct List {
    keys: Vec<Row>,
}

#[derive(Serialize)]
struct Made<'a> {
    id: String,
    label: &'a str,
    recovery: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

#[derive(Serialize)]
struct Rotated {
    epoch: u32,
}

#[derive(Serialize)]
struct Exported<'a> {
    repo_id: String,
    key: &'a str,
}

/// Runs one of the commands about keys.
///
/// # Errors
/// Those of opening the repository; exit 22 for the last key and for a repository without keys.
pub fn run(context: &Context, args: &KeyArgs) -> Result<Exit, CliError> {
    match &args.command {
        KeyCommand::List => list(context),
        KeyCommand::Add(args) => add(context, args),
        KeyCommand::Remove(args) => remove(context, &args.id),
        KeyCommand::Passwd(args) => passwd(context, args),
        KeyCommand::Rotate => rotate(context),
        KeyCommand::Export(args) => export(context, args),
        KeyCommand::Import(args) => import(context, args),
    }
}

/// Shows a recovery key, the one time that it can be shown.
pub(super) fn write_recovery(to: &mut dyn Write, key: &str) -> io::Result<()> {
    writeln!(to, "\nRecovery key, shown only now:\n\n    {key}\n")?;
    writeln!(
        to,
        "Write it down and keep it apart from this machine. It opens the repository like"
    )?;
    writeln!(to, "a password: type it as it stands, with its hyphens, where one is asked for.")
}

fn list(context: &Context) -> Result<Exit, CliError> {
    let session = context.session()?;
    let row = |slot: crate::store::repository::KeySlot| {
        let facts = slot.facts;
        Row {
            id: slot.id,
            label: facts.as_ref().map(|f| f.label.clone()),
            created: facts.as_ref().map(|f| f.created),
            recovery: facts.as_ref().map(|f| f.recovery),
        }
    };
    let mut keys: Vec<Row> = key::list(&session.repository)?.into_iter().map(row).collect();
    keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    let result = List { keys };
    context.out().finish(&result, |to| {
        if result.keys.is_empty() {
            return writeln!(to, "The repository is not encrypted: it has no keys.");
        }
        for key in &result.keys {
            let created = key.created.map_or_else(|| "(unknown)".to_owned(), |t| t.to_string());
            let label = key.label.as_deref().unwrap_or("(label does not authenticate)");
            let label = crate::base::path::printable(label.as_bytes());
            let kind = if key.recovery == Some(true) { "  recovery key" } else { "" };
            writeln!(to, "{}  {created}  {label}{kind}", key.id)?;
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

fn new_password(context: &Context, new: &NewKey) -> Result<Password, CliError> {
    let (file, command) = (new.new_password_file.as_deref(), new.new_password_command.as_deref());
    context.other_password(&NEW_KEY, file, command, true)
}

fn add(context: &Context, args: &KeyAdd) -> Result<Exit, CliError> {
    let session = context.session()?;
    key::has_keys(&session.repository)?;
    let recovery =
        if args.recovery { Some(key::draw_recovery(session.repository.entropy())?) } else { None };
    let password = match &recovery {
        Some(text) => Password::new(text.as_bytes().to_vec()),
        None => new_password(context, &args.new)?,
    };
    let standard = if args.recovery { "recovery" } else { "" };
    let label = args.label.as_deref().unwrap_or(standard);
    added(context, &session, &password, label, recovery)
}

fn added(
    context: &Context,
    session: &Session,
    password: &Password,
    label: &str,
    recovery: Option<Zeroizing<String>>,
) -> Result<Exit, CliError> {
    let now = context.clock.now();
    let id = key::add(&session.repository, password, label, recovery.is_some(), now)?;
    let result = Made {
        id: id.to_hex(),
        label,
        recovery: recovery.is_some(),
        recovery_key: recovery.as_ref().map(|text| text.as_str()),
        replaces: None,
    };
    context.out().finish(&result, |to| {
        writeln!(to, "key {} added", result.id)?;
        recovery.as_ref().map_or(Ok(()), |key| write_recovery(to, key))
    })?;
    Ok(Exit::Ok)
}

fn remove(context: &Context, prefix: &str) -> Result<Exit, CliError> {
    let prefix = prefix.to_lowercase();
    if prefix.len() < PREFIX_MIN {
        let message = format!("give at least {PREFIX_MIN} digits of the key's id");
        return Err(CliError::new(Kind::Usage, message));
    }
    let session = context.session()?;
    key::has_keys(&session.repository)?;
    let removed = session.repository.remove_slot(&prefix)?;
    let result = Removed { removed };
    context.out().finish(&result, |to| writeln!(to, "key {} removed", result.removed))?;
    Ok(Exit::Ok)
}

fn passwd(context: &Context, args: &KeyPasswd) -> Result<Exit, CliError> {
    let mut old = None;
    let session = context.session_with(|| {
        let password = context.password(false)?;
        old = Some(Password::new(password.expose().to_vec()));
        Ok(Unlock::Password(password))
    })?;
    let Some(old) = old else { return Err(KeyVerbError::NotEncrypted.into()) };
    let new = new_password(context, &args.new)?;
    let (id, before) = key::change(&session.repository, &old, &new, context.clock.now())?;
    let result = Made {
        id: id.to_hex(),
        label: "",
        recovery: false,
        recovery_key: None,
        replaces: Some(before.to_hex()),
    };
    context.out().finish(&result, |to| {
        writeln!(to, "password changed: key {} takes the place of {}", result.id, before.to_hex())
    })?;
    Ok(Exit::Ok)
}

fn rotate(context: &Context) -> Result<Exit, CliError> {
    let session = context.session()?;
    key::has_keys(&session.repository)?;
    let result = Rotated { epoch: session.repository.rotate()? };
    context.out().finish(&result, |to| {
        writeln!(to, "what is written from now on is sealed with key number {}", result.epoch)?;
        writeln!(to, "What is there stays readable, by whoever could read it before.")
    })?;
    Ok(Exit::Ok)
}

fn export(context: &Context, args: &KeyExport) -> Result<Exit, CliError> {
    let session = context.session()?;
    let key = session.repository.export_master().map(Zeroizing::new);
    let Some(key) = key else { return Err(KeyVerbError::NotEncrypted.into()) };
    let repo_id = session.repository.id().to_hex();
    let place = context.repository()?.display().to_string();
    let result = Exported { repo_id, key: &key };
    context.out().finish(&result, |to| {
        if args.paper {
            write_page(to, &key, &result.repo_id, &place, context.clock.now())
        } else {
            writeln!(to, "{}", *key)
        }
    })?;
    Ok(Exit::Ok)
}

fn write_page(
    to: &mut dyn Write,
    key: &str,
    repo_id: &str,
    place: &str,
    now: Timestamp,
) -> io::Result<()> {
    writeln!(to, "KEY OF A CABK REPOSITORY\n")?;
    writeln!(to, "  repository  {repo_id}")?;
    writeln!(to, "  place       {}", crate::base::path::printable(place.as_bytes()))?;
    writeln!(to, "  printed     {now}\n")?;
    for line in key::to_paper(key) {
        writeln!(to, "  {line}")?;
    }
    writeln!(
        to,
        "\nWhoever has this page can read everything that the repository holds, without a"
    )?;
    writeln!(to, "password. Keep it locked away, and not on the machine that is backed up.\n")?;
    writeln!(
        to,
        "When every password is lost: type the numbered lines into a file, as they stand"
    )?;
    writeln!(to, "(blanks and capitals do not matter; the two digits behind each / find typing")?;
    writeln!(to, "errors), and give the repository a new password:\n")?;
    writeln!(to, "  cabk --repo REPOSITORY key import FILE\n")?;
    writeln!(to, "Then `cabk key list` shows all keys, and `cabk key remove` drops lost ones.")
}

fn import(context: &Context, args: &KeyImport) -> Result<Exit, CliError> {
    let named = args.file.as_ref().map_or("standard input".into(), |f| f.display().to_string());
    let mut text = Zeroizing::new(String::new());
    let read = match &args.file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(EXPORT_MAX).read_to_string(&mut text)),
        None => io::stdin().lock().take(EXPORT_MAX).read_to_string(&mut text),
    };
    read.map_err(|error| {
        CliError::new(Kind::Failed, format!("cannot read the exported key from {named}"))
            .caused_by(&error)
    })?;
    let exported = key::from_text(&text).map_err(KeyVerbError::from)?;
    let master = parse_master(&exported).map_err(|_| {
        CliError::new(Kind::WrongKey, "the exported key has a typing error")
            .hint("give the text as `cabk key export` printed it")
    })?;
    let session = context.session_with(|| Ok(Unlock::Master(master)))?;
    key::has_keys(&session.repository)?;
    let password = new_password(context, &args.new)?;
    let label = args.label.as_deref().unwrap_or("imported");
    added(context, &session, &password, label, None)
}
