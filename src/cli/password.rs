//! Where the key comes from: flag, environment, configuration, or a prompt, in this order.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use zeroize::{Zeroize, Zeroizing};

use super::env::Env;
use super::exit::{CliError, Kind};
use super::output::Warnings;
use crate::base::secret::Password;

/// Bytes that a password file or command may give.
const PASSWORD_MAX: usize = 64 << 10;

/// Which password is meant: the names of its options and variables.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// What the prompt calls it.
    pub what: &'static str,
    /// The option for a file.
    pub file_flag: &'static str,
    /// The option for a command.
    pub command_flag: &'static str,
    /// The variable for the password itself; with `_FILE` and `_COMMAND` for the others. Absent
    /// where the environment does not count.
    pub variable: Option<&'static str>,
}

/// The repository's password.
pub const REPOSITORY: Names = Names {
    what: "password of the repository",
    file_flag: "--password-file",
    command_flag: "--password-command",
    variable: Some("CABK_PASSWORD"),
};

/// The password of a key that is made or changed.
pub const NEW_KEY: Names = Names {
    what: "new password",
    file_flag: "--new-password-file",
    command_flag: "--new-password-command",
    variable: None,
};

/// The password of the repository that `init --related-to` names.
pub const RELATED: Names = Names {
    what: "password of the related repository",
    file_flag: "--related-password-file",
    command_flag: "--related-password-command",
    variable: None,
};

/// What flags or the configuration say.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// A file.
    pub file: Option<PathBuf>,
    /// A command as typed, for the shell.
    pub shell: Option<String>,
    /// A command as an array; empty where there is none.
    pub argv: Vec<String>,
}

/// Where a password will be read from.
pub enum Source {
    /// A file, and who named it.
    File(PathBuf, String),
    /// A command for `/bin/sh -c`, and who named it.
    Shell(OsString, String),
    /// A command as it is, and who named it.
    Argv(Vec<String>, String),
    /// The environment itself.
    Value(Password, String),
    /// A question on the terminal.
    Prompt,
}

/// Asks a person. A seam, so that tests need no terminal.
pub trait Prompt {
    /// Whether there is a terminal to ask on.
    fn possible(&self) -> bool;
    /// Asks, without showing what is typed.
    ///
    /// # Errors
    /// What the terminal says.
    fn ask(&self, question: &str) -> std::io::Result<Zeroizing<String>>;
    /// Asks a question that has a plain answer, which is shown.
    ///
    /// # Errors
    /// What the terminal says.
    fn answer(&self, question: &str) -> std::io::Result<String>;
}

/// The process's terminal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminal;

impl Prompt for Terminal {
    fn possible(&self) -> bool {
        std::io::stdin().is_terminal()
    }

    fn ask(&self, question: &str) -> std::io::Result<Zeroizing<String>> {
        rpassword::prompt_password(question).map(Zeroizing::new)
    }

    fn answer(&self, question: &str) -> std::io::Result<String> {
        use std::io::Write;
        let mut to = std::io::stderr();
        to.write_all(question.as_bytes()).and_then(|()| to.flush())?;
        let mut line = String::new();
        std::io::stdin().lock().take(1024).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

/// Chooses where the password comes from: flags before environment before configuration before a
/// prompt.
///
/// # Errors
/// [`Kind::NoPassword`] where nothing is given and nobody can be asked; [`Kind::Config`] where the
/// configuration names a file and a command.
pub fn choose(
    names: &Names,
    flags: &Given,
    env: &Env,
    config: &Given,
    prompt: &dyn Prompt,
) -> Result<Source, CliError> {
    if let Some(file) = &flags.file {
        return Ok(Source::File(file.clone(), names.file_flag.to_owned()));
    }
    if let Some(command) = &flags.shell {
        return Ok(Source::Shell(command.into(), names.command_flag.to_owned()));
    }
    if let Some(found) = names.variable.and_then(|variable| from_environment(variable, env)) {
        return Ok(found);
    }
    match (&config.file, config.argv.is_empty()) {
        (Some(_), false) => Err(CliError::new(
            Kind::Config,
            "the configuration names both a password file and a password command",
        )),
        (Some(file), true) => {
            Ok(Source::File(file.clone(), "[repository] password_file".to_owned()))
        }
        (None, false) => {
            Ok(Source::Argv(config.argv.clone(), "[repository] password_command".to_owned()))
        }
        (None, true) if prompt.possible() => Ok(Source::Prompt),
        (None, true) => Err(CliError::new(
            Kind::NoPassword,
            format!("no {} was given, and there is no terminal to ask on", names.what),
        )
        .hint(names.hint())),
    }
}

fn from_environment(variable: &str, env: &Env) -> Option<Source> {
    let (file, command) = (format!("{variable}_FILE"), format!("{variable}_COMMAND"));
    if let Some(path) = env.get(&file) {
        return Some(Source::File(path.into(), file));
    }
    if let Some(text) = env.get(&command) {
        return Some(Source::Shell(text, command));
    }
    // Set but empty is a mistake that must be told, not passed over.
    let value = env.raw(variable)?;
    Some(Source::Value(Password::new(value.into_vec()), variable.to_owned()))
}

impl Names {
    fn hint(&self) -> String {
        let flags = format!("use {} or {}", self.file_flag, self.command_flag);
        match self.variable {
            Some(variable) => format!("{flags}, or set {variable}_FILE"),
            None => flags,
        }
    }
}

/// Reads the password. `confirm` asks twice, where a person is asked for a new one.
///
/// # Errors
/// [`Kind::NoPassword`] for an empty one or two that differ, [`Kind::Config`] for a file that cannot
/// be read or a command that failed.
pub fn read(
    names: &Names,
    source: Source,
    confirm: bool,
    prompt: &dyn Prompt,
    said: &Warnings,
) -> Result<Password, CliError> {
    let (password, from) = match source {
        Source::File(path, from) => (read_file(&path, &from, said)?, from),
        Source::Shell(text, from) => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(text);
            (read_command(command, &from, names)?, from)
        }
        Source::Argv(argv, from) => {
            let mut words = argv.iter();
            let mut command = Command::new(words.next().map_or("", String::as_str));
            command.args(words);
            (read_command(command, &from, names)?, from)
        }
        Source::Value(password, from) => (password, from),
        Source::Prompt => (ask(names, confirm, prompt)?, "the terminal".to_owned()),
    };
    if password.expose().is_empty() {
        let message = format!("the {} from {from} is empty", names.what);
        return Err(CliError::new(Kind::NoPassword, message).hint(names.hint()));
    }
    Ok(password)
}

fn ask(names: &Names, confirm: bool, prompt: &dyn Prompt) -> Result<Password, CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(Kind::NoPassword, "cannot ask for the password").caused_by(&error)
    };
    let mut first = prompt.ask(&format!("{}: ", names.what)).map_err(failed)?;
    if confirm {
        let second = prompt.ask(&format!("{}, again: ", names.what)).map_err(failed)?;
        if *first != *second {
            let error = CliError::new(Kind::NoPassword, "the two passwords are not the same");
            return Err(error.hint("try again"));
        }
    }
    Ok(Password::new(std::mem::take(&mut *first).into_bytes()))
}

fn read_file(path: &Path, from: &str, said: &Warnings) -> Result<Password, CliError> {
    let failed = |error: std::io::Error| {
        let message = format!("cannot read the password file {} ({from})", path.display());
        CliError::new(Kind::Config, message).caused_by(&error)
    };
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        said.warn(&format!(
            "the password file {} can be read by others (mode {:04o}); `chmod 600` mends that",
            path.display(),
            meta.mode() & 0o7777
        ));
    }
    match read_bounded(file) {
        Ok(Some(bytes)) => Ok(trimmed(bytes)),
        Ok(None) => {
            let message = format!("{} ({from}) is too large for a password", path.display());
            Err(CliError::new(Kind::Config, message))
        }
        Err(error) => Err(failed(error)),
    }
}

fn read_command(mut command: Command, from: &str, names: &Names) -> Result<Password, CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(Kind::Config, format!("cannot run the command from {from}")).caused_by(&error)
    };
    // A manager of secrets may ask its user: it keeps stdin and stderr. It does not get ours.
    for other in [&REPOSITORY, names] {
        other.variable.map(|variable| command.env_remove(variable));
    }
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let read = match child.stdout.take() {
        Some(stdout) => read_bounded(stdout),
        None => Ok(None),
    };
    match read {
        Ok(Some(bytes)) => {
            let password = trimmed(bytes);
            let status = child.wait().map_err(failed)?;
            if status.success() {
                Ok(password)
            } else {
                let message = format!("the command from {from} failed: {status}");
                Err(CliError::new(Kind::Config, message))
            }
        }
        Ok(None) => {
            stop(child);
            let message = format!("the command from {from} printed too much for a password");
            Err(CliError::new(Kind::Config, message))
        }
        Err(error) => {
            stop(child);
            Err(failed(error))
        }
    }
}

/// Ends a command whose answer is of no use. That it may be gone already is no error.
fn stop(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// All there is, or nothing where it is more than a password can be. The buffer never moves, so
/// that no copy is left behind.
fn read_bounded(mut from: impl Read) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut buffer = Zeroizing::new(vec![0_u8; PASSWORD_MAX + 1]);
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled > PASSWORD_MAX {
        return Ok(None);
    }
    buffer[filled..].zeroize();
    buffer.truncate(filled);
    Ok(Some(buffer))
}

/// Without the one newline at the end that editors and `echo` leave.
fn trimmed(bytes: Zeroizing<Vec<u8>>) -> Password {
    let mut end = bytes.len();
    if bytes.last() == Some(&b'\n') {
        end -= 1;
        if bytes[..end].last() == Some(&b'\r') {
            end -= 1;
        }
    }
    Password::new(bytes[..end].to_vec())
}

#[cfg(test)]
mod tests;
