//! `window install` and `uninstall`: the drop-ins that heed a hold, and the unit that recovers at
//! boot.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::path::{bytes, printable};
use crate::host::clock::Clock;
use crate::host::run::{RunError, run_words};
use crate::host::systemd::{DROP_IN, hold_name};
use crate::window::guard::{HOLDS, sweep_holds};

/// Where units of the administrator are.
const UNITS: &str = "etc/systemd/system";

/// The unit that recovers at boot.
const BOOT_UNIT: &str = "cabk-window-recover.service";

/// What wants it.
const WANTS: &str = "multi-user.target.wants";

/// The first line of whatever is written here, by which it is known again.
const MARK: &str = "# Written by `cabk window install`; `cabk window uninstall` takes it away.\n";

/// There is systemd where this is.
const BOOTED: &str = "/run/systemd/system";

/// Time for reading all units again.
const RELOAD: Duration = Duration::from_secs(90);

/// What is to be put in place.
pub struct Install<'a> {
    /// The units that a window stops.
    pub units: &'a [String],
    /// A directory in the place of `/`, whose systemd is not told.
    pub root: Option<&'a Path>,
    /// This program.
    pub program: &'a Path,
    /// Where intents are.
    pub state_dir: &'a Path,
    /// Time.
    pub clock: &'a dyn Clock,
}

/// Why it could not be put in place or taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// systemd does not run this machine.
    #[error("systemd does not run this machine")]
    NoSystemd,
    /// A unit, path or program that cannot stand in a unit file.
    #[error("{0:?} cannot stand in a file of systemd's")]
    Name(String),
    /// There is a file of somebody else's.
    #[error("{} is not of cabk's making", printable(bytes(.0)))]
    Foreign(PathBuf),
    /// A call failed.
    #[error("cannot {what} {}", printable(bytes(path)))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// systemd could not be told.
    #[error("systemd could not be told to read its units again")]
    Reload(#[source] RunError),
    /// systemd did not do it.
    #[error("systemd did not read its units again: {0}")]
    NotReloaded(String),
}

/// Writes what is not there yet. The files, and whether anything had to be changed.
///
/// # Errors
/// [`InstallError`].
pub fn install(input: &Install<'_>) -> Result<(Vec<PathBuf>, bool), InstallError> {
    let base = base(input)?;
    let mut files = Vec::new();
    for unit in input.units {
        let hold = Path::new(HOLDS).join(hold_name(plain(unit)?));
        let text = format!("{MARK}[Unit]\nConditionPathExists=!{}\n", hold.display());
        files.push((base.join(format!("{unit}.d")).join(DROP_IN), text));
    }
    files.push((base.join(BOOT_UNIT), boot_unit(input)?));
    for (path, _) in &files {
        foreign(path)?;
    }
    let mut changed = false;
    for (path, text) in &files {
        changed |= put(path, text)?;
    }
    let link = base.join(WANTS).join(BOOT_UNIT);
    if fs::symlink_metadata(&link).is_err() {
        make_parent(&link)?;
        symlink(Path::new("..").join(BOOT_UNIT), &link).map_err(failed("link", &link))?;
        changed = true;
    }
    if changed {
        reload(input)?;
    }
    Ok((files.into_iter().map(|(path, _)| path).chain([link]).collect(), changed))
}

/// Takes away what was written for any unit, and the holds that are left. What was taken away.
///
/// # Errors
/// [`InstallError`].
pub fn uninstall(input: &Install<'_>) -> Result<Vec<PathBuf>, InstallError> {
    let base = base(input)?;
    let mut gone = Vec::new();
    let link = base.join(WANTS).join(BOOT_UNIT);
    let is_link = fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink());
    for path in drop_ins(&base)?.into_iter().chain([base.join(BOOT_UNIT)]) {
        if !ours(&path)? {
            continue;
        }
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        if let Some(parent) = path.parent().filter(|parent| *parent != base) {
            // A directory with somebody else's drop-ins stays.
            let _ = fs::remove_dir(parent);
        }
        gone.push(path);
    }
    if is_link {
        fs::remove_file(&link).map_err(failed("remove", &link))?;
        gone.push(link);
    }
    if !gone.is_empty() {
        reload(input)?;
    }
    if input.root.is_none() {
        gone.extend(sweep_holds(&HOLDS.into(), input.clock));
    }
    Ok(gone)
}

fn base(input: &Install<'_>) -> Result<PathBuf, InstallError> {
    match input.root {
        Some(root) => Ok(root.join(UNITS)),
        None if Path::new(BOOTED).is_dir() => Ok(Path::new("/").join(UNITS)),
        None => Err(InstallError::NoSystemd),
    }
}

/// After the units, and not before: what it starts would wait for its own end otherwise. Holds are
/// gone after a boot anyway.
fn boot_unit(input: &Install<'_>) -> Result<String, InstallError> {
    let text = |path: &Path| {
        let text = path.to_str().unwrap_or_default().to_owned();
        plain(&text).map(str::to_owned)
    };
    let (program, state) = (text(input.program)?, text(input.state_dir)?);
    let units = input.units.join(" ");
    Ok(format!(
        "{MARK}[Unit]\nDescription=Start what a killed run of cabk had stopped\n\
         Wants=network-online.target\nAfter=local-fs.target network-online.target {units}\n\
         ConditionDirectoryNotEmpty={state}/windows\n\n\
         [Service]\nType=oneshot\nTimeoutStartSec=infinity\nEnvironment=CABK_STATE_DIR={state}\n\
         ExecStart={program} window recover\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    ))
}

/// A word that systemd reads as it is written.
fn plain(word: &str) -> Result<&str, InstallError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-@:+".contains(c);
    let good = !word.is_empty() && !word.starts_with(['-', '.']) && word.chars().all(fits);
    if good { Ok(word) } else { Err(InstallError::Name(word.to_owned())) }
}

fn drop_ins(base: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let names = match fs::read_dir(base) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", base)(e)),
    };
    let mut found = Vec::new();
    for name in names {
        let path = name.map_err(failed("list", base))?.path();
        if path.extension().is_some_and(|ending| ending == "d") {
            found.push(path.join(DROP_IN));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file is there and was written here.
fn ours(path: &Path) -> Result<bool, InstallError> {
    match fs::read(path) {
        Ok(text) => Ok(text.starts_with(MARK.as_bytes())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed("read", path)(e)),
    }
}

fn foreign(path: &Path) -> Result<(), InstallError> {
    if path.exists() && !ours(path)? {
        return Err(InstallError::Foreign(path.to_owned()));
    }
    Ok(())
}

/// Writes a file unless it is there as it should be; whether it was not.
fn put(path: &Path, text: &str) -> Result<bool, InstallError> {
    if fs::read(path).is_ok_and(|have| have == text.as_bytes()) {
        return Ok(false);
    }
    make_parent(path)?;
    let new = path.with_extension("cabk-new");
    fs::write(&new, text).map_err(failed("write", &new))?;
    fs::rename(&new, path).map_err(failed("put in place", path))?;
    Ok(true)
}

fn make_parent(path: &Path) -> Result<(), InstallError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(failed("make", parent))
}

fn reload(input: &Install<'_>) -> Result<(), InstallError> {
    if input.root.is_some() {
        return Ok(());
    }
    let words = ["systemctl", "daemon-reload"].map(Into::into);
    let done = run_words(&words, &[], RELOAD, input.clock).map_err(InstallError::Reload)?;
    if done.status.success() { Ok(()) } else { Err(InstallError::NotReloaded(done.said())) }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;

    fn files(root: &Path) -> Vec<String> {
        let all = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(Result::unwrap);
        let all = all.filter(|one| !one.file_type().is_dir());
        all.map(|one| one.path().strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn what_is_installed_is_written_once_and_taken_away_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let units = ["rsc.service".to_owned(), "worker@1.service".to_owned()];
        let (program, state) = (Path::new("/usr/bin/cabk"), Path::new("/var/lib/cabk"));
        let mut input = Install {
            units: &units,
            root: Some(root),
            program,
            state_dir: state,
            clock: &SystemClock,
        };
        let other = root.join("etc/systemd/system/rsc.service.d/limits.conf");
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, "[Service]\n").unwrap();
        let (paths, changed) = install(&input).unwrap();
        assert!(changed && paths.len() == 4);
        let drop_in = fs::read_to_string(&paths[0]).unwrap();
        let line = "[Unit]\nConditionPathExists=!/run/cabk/hold-rsc.service\n";
        assert!(drop_in.ends_with(line), "{drop_in}");
        let unit = fs::read_to_string(&paths[2]).unwrap();
        for part in ["ExecStart=/usr/bin/cabk window recover", "rsc.service worker@1.service\n"] {
            assert!(unit.contains(part), "{unit}");
        }
        assert_eq!(fs::read_to_string(&paths[3]).unwrap(), unit, "the link leads there");
        assert!(!install(&input).unwrap().1, "nothing is left to do");
        assert_eq!(uninstall(&input).unwrap().len(), 4);
        assert_eq!(files(root), ["etc/systemd/system/rsc.service.d/limits.conf"]);
        assert!(!root.join("etc/systemd/system/worker@1.service.d").exists());
        assert!(uninstall(&input).unwrap().is_empty());

        fs::write(root.join("etc/systemd/system").join(BOOT_UNIT), "mine").unwrap();
        assert!(matches!(install(&input), Err(InstallError::Foreign(_))));
        assert!(uninstall(&input).unwrap().is_empty());
        let odd = ["a%n.service".to_owned()];
        input.units = &odd;
        assert!(matches!(install(&input), Err(InstallError::Name(_))));
    }
}
