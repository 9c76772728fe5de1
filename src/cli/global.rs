//! What was typed, joined with environment, configuration and defaults.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::GlobalArgs;
use super::config::{self, Loaded};
use super::env::Env;
use super::exit::{CliError, Kind};
use super::output::{Out, Warnings};
use super::password::{self, Given, Prompt};
use crate::base::secret::Password;
use crate::host::clock::Clock;
use crate::ops::progress::Progress;

/// What a command has at hand: everything around the verb.
pub struct Context {
    /// The global options as typed.
    pub args: GlobalArgs,
    /// The environment.
    pub env: Env,
    /// Whether the process runs as root, which moves the default directories.
    pub is_root: bool,
    /// The configuration.
    pub loaded: Loaded,
    /// Who asks for passwords.
    pub prompt: Box<dyn Prompt>,
    /// What is said on the way.
    pub said: Arc<Warnings>,
    /// How far it is.
    pub progress: Arc<dyn Progress>,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
}

impl Context {
    /// Where the one result goes.
    pub fn out(&self) -> Out<'static> {
        Out::stdout(self.args.json)
    }

    /// The repository's directory.
    ///
    /// # Errors
    /// Exit 2 where none is named, or where it is a URL.
    pub fn repository(&self) -> Result<PathBuf, CliError> {
        let typed = self.args.repo.clone().or_else(|| self.env.get("CABK_REPO"));
        let named = typed.or_else(|| self.loaded.config.repository.url.clone().map(Into::into));
        let Some(named) = named.filter(|name| !name.is_empty()) else {
            return Err(CliError::new(Kind::NoRepositoryNamed, "no repository is named"));
        };
        local_repository(&named)
    }

    /// The repository's password; `confirm` asks twice, for a repository that is being made.
    ///
    /// # Errors
    /// As [`password::choose`] and [`password::read`].
    pub fn password(&self, confirm: bool) -> Result<Password, CliError> {
        let flags = Given {
            file: self.args.password_file.clone(),
            shell: self.args.password_command.clone(),
            argv: Vec::new(),
        };
        let repository = &self.loaded.config.repository;
        let config = Given {
            file: repository.password_file.clone(),
            shell: None,
            argv: repository.password_command.clone(),
        };
        let prompt = self.prompt.as_ref();
        let source = password::choose(&password::REPOSITORY, &flags, &self.env, &config, prompt)?;
        password::read(&password::REPOSITORY, source, confirm, prompt, &self.said)
    }

    /// A second password that only flags or a prompt give: of a new key, of a related repository.
    ///
    /// # Errors
    /// As [`password::choose`] and [`password::read`].
    pub fn other_password(
        &self,
        names: &password::Names,
        file: Option<&Path>,
        command: Option<&str>,
        confirm: bool,
    ) -> Result<Password, CliError> {
        let flags = Given {
            file: file.map(Path::to_owned),
            shell: command.map(str::to_owned),
            argv: Vec::new(),
        };
        let prompt = self.prompt.as_ref();
        let source = password::choose(names, &flags, &self.env, &Given::default(), prompt)?;
        password::read(names, source, confirm, prompt, &self.said)
    }

    /// The label that was typed or configured; without one the site's own configuration decides.
    #[must_use]
    pub fn site_name(&self) -> Option<&str> {
        self.args.site_name.as_deref().or(self.loaded.config.site.name.as_deref())
    }

    /// The directory of what can be rebuilt; absent with `--no-cache`, or where there is no home.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        if self.args.no_cache {
            return None;
        }
        cache_dir(self.args.cache_dir.as_deref(), &self.env, self.is_root)
    }

    /// The directory of the intent file and of what this client remembers.
    ///
    /// # Errors
    /// Exit 2 where nothing says where it is.
    pub fn state_dir(&self) -> Result<PathBuf, CliError> {
        state_dir(&self.env, self.is_root).ok_or_else(|| {
            CliError::new(Kind::Usage, "there is no directory to keep state in")
                .hint("set CABK_STATE_DIR, XDG_STATE_HOME or HOME to an absolute path")
        })
    }
}

/// The file that `--config` or `CABK_CONFIG` names, else the default one, with a warning for each
/// key that has no effect yet.
///
/// # Errors
/// Exit 2 for whatever is wrong with it.
pub fn configuration(args: &GlobalArgs, env: &Env, said: &Warnings) -> Result<Loaded, CliError> {
    let named = args.config.clone().or_else(|| env.get("CABK_CONFIG").map(PathBuf::from));
    let loaded = config::load(named.as_deref())
        .map_err(|error| CliError::from_error(Kind::Config, &error))?;
    for warning in loaded.config.without_effect() {
        said.warn(&warning);
    }
    Ok(loaded)
}

/// A repository that is a directory of this machine.
///
/// # Errors
/// Exit 2 for a URL.
pub fn local_repository(named: &OsStr) -> Result<PathBuf, CliError> {
    if let Some(scheme) = scheme(named.as_bytes()) {
        let message = format!("repositories at {scheme}:// can be used from a later version on");
        return Err(CliError::new(Kind::Usage, message).hint("name a local directory"));
    }
    Ok(PathBuf::from(named))
}

/// The scheme of a URL: a letter, then letters, digits, `+`, `-`, `.`, before `://`.
fn scheme(named: &[u8]) -> Option<&str> {
    let end = named.windows(3).position(|three| three == b"://")?;
    let scheme = std::str::from_utf8(&named[..end]).ok()?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let first = scheme.bytes().next()?;
    (first.is_ascii_alphabetic() && scheme.bytes().all(allowed)).then_some(scheme)
}

fn cache_dir(typed: Option<&Path>, env: &Env, is_root: bool) -> Option<PathBuf> {
    if let Some(typed) = typed {
        return Some(typed.to_owned());
    }
    if let Some(named) = env.get("CABK_CACHE_DIR") {
        return Some(named.into());
    }
    match env.absolute("XDG_CACHE_HOME") {
        Some(base) => Some(base.join("cabk")),
        None if is_root => Some("/var/cache/cabk".into()),
        None => env.absolute("HOME").map(|home| home.join(".cache/cabk")),
    }
}

fn state_dir(env: &Env, is_root: bool) -> Option<PathBuf> {
    if let Some(named) = env.get("CABK_STATE_DIR") {
        // By an absolute path, so that a recovery from another directory finds it.
        let named = PathBuf::from(named);
        return Some(std::path::absolute(&named).unwrap_or(named));
    }
    if is_root {
        return Some("/var/lib/cabk".into());
    }
    match env.absolute("XDG_STATE_HOME") {
        Some(base) => Some(base.join("cabk")),
        None => env.absolute("HOME").map(|home| home.join(".local/state/cabk")),
    }
}

/// Why what is written at `path` would not survive a reboot or the container, where that is so. Of a
/// path that is not there yet the nearest directory above it counts.
///
/// # Errors
/// What the operating system says.
pub fn volatile(path: &Path) -> io::Result<Option<&'static str>> {
    for candidate in path.ancestors() {
        let candidate = if candidate.as_os_str().is_empty() { Path::new(".") } else { candidate };
        match rustix::fs::statfs(candidate) {
            Ok(found) => return Ok(volatile_type(i128::from(found.f_type))),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

const fn volatile_type(magic: i128) -> Option<&'static str> {
    match magic {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58f6 => Some("ramfs"),
        0x794c_7630 => Some("overlay"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for url in ["s3://bucket/prefix", "gs://b", "az://c", "sftp://host/x", "rest+http://h/"] {
            let error = local_repository(OsStr::new(url)).unwrap_err();
            assert_eq!(error.exit.code(), 2, "{url}");
            assert!(error.message.contains("later version"), "{}", error.message);
        }
        for path in ["/srv/backup", "backup", "./s3://x", "/srv/a://b", "://", "C:\\x", "1s://x"] {
            assert_eq!(local_repository(OsStr::new(path)).unwrap(), PathBuf::from(path));
        }
    }

    #[test]
    fn cache_directories_follow_the_rules() {
        let xdg = Env::fixed(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/home/a")]);
        let home = Env::fixed(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/home/a")]);
        let named = Env::fixed(&[("CABK_CACHE_DIR", "/c"), ("XDG_CACHE_HOME", "/x")]);
        let typed = Some(Path::new("/typed"));
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(cache_dir(typed, &named, true), path("/typed"));
        assert_eq!(cache_dir(None, &named, true), path("/c"));
        assert_eq!(cache_dir(None, &xdg, true), path("/x/cabk"));
        assert_eq!(cache_dir(None, &home, true), path("/var/cache/cabk"));
        assert_eq!(cache_dir(None, &home, false), path("/home/a/.cache/cabk"));
        assert_eq!(cache_dir(None, &Env::fixed(&[]), false), None);
    }

    #[test]
    fn state_directories_follow_the_rules() {
        let xdg = Env::fixed(&[("XDG_STATE_HOME", "/x"), ("HOME", "/home/a")]);
        let named = Env::fixed(&[("CABK_STATE_DIR", "/s"), ("XDG_STATE_HOME", "/x")]);
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(state_dir(&named, true), path("/s"));
        assert_eq!(state_dir(&xdg, true), path("/var/lib/cabk"));
        assert_eq!(state_dir(&xdg, false), path("/x/cabk"));
        let home = Env::fixed(&[("HOME", "/home/a")]);
        assert_eq!(state_dir(&home, false), path("/home/a/.local/state/cabk"));
        assert_eq!(state_dir(&Env::fixed(&[]), false), None);
    }

    #[test]
    fn memory_is_volatile_and_the_nearest_directory_counts() {
        assert_eq!(volatile_type(0x0102_1994), Some("tmpfs"));
        assert_eq!(volatile_type(0xef53), None);
        assert_eq!(volatile(Path::new("/proc/none/such")).unwrap(), None);
        match volatile(Path::new("/dev/shm/none/such")) {
            Ok(Some(kind)) => assert!(kind == "tmpfs" || kind == "overlay"),
            other => eprintln!("skipped: /dev/shm is no tmpfs here ({other:?})"),
        }
    }
}
