//! What runs make to hold sources still, on disk before it is made: enough for any later process to
//! remove what a run that was killed left.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chain;
use super::intent::Owner;
use crate::host::clock::Clock;
use crate::host::freeze;
use crate::host::run::{CommandLine, run_within};

/// Version of the file's form.
const VERSION: u32 = 1;
/// Bytes that a file may have.
const MAX_BYTES: u64 = 1 << 20;
/// Time for a command that removes what was frozen.
const REMOVING: Duration = Duration::from_secs(300);

/// An operator's command that removes what another one made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removal {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The directory that it runs in.
    pub directory: Option<PathBuf>,
    /// Whether the one that makes it was begun.
    pub begun: bool,
}

/// What a run makes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrozenNote {
    version: u32,
    /// The name under which it is made.
    pub name: String,
    /// Site label.
    pub site: String,
    /// The run.
    owner: Owner,
    /// File systems in which it is made, by identity.
    pub places: Vec<String>,
    /// Who removes what commands made.
    pub removal: Option<Removal>,
}

impl FrozenNote {
    /// A note of this process.
    ///
    /// # Errors
    /// Where the operating system does not say who this process is.
    pub fn new(name: &str, site: &str) -> io::Result<Self> {
        let owner = Owner::this_process()?;
        let (name, site) = (name.to_owned(), site.to_owned());
        Ok(Self { version: VERSION, name, site, owner, places: Vec::new(), removal: None })
    }

    /// Removes all that the note tells of. What is not there is no error.
    ///
    /// # Errors
    /// For people, what could not be removed.
    pub fn remove(&self, clock: &dyn Clock) -> Result<(), String> {
        let mut left = Vec::new();
        for place in &self.places {
            if let Err(error) = freeze::remove_left(place, &self.name) {
                left.push(format!("snapshots {} on {place}: {error}", self.name));
            }
        }
        if let Some(removal) = self.removal.as_ref().filter(|removal| removal.begun) {
            left.extend(removal.run(&self.name, &self.site, clock).err());
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}

impl Removal {
    fn run(&self, name: &str, site: &str, clock: &dyn Clock) -> Result<(), String> {
        if self.command.is_empty() {
            return Ok(());
        }
        let command = CommandLine::Argv(self.command.clone());
        let env = [("CABK_SITE", OsStr::new(site)), ("CABK_FREEZE", OsStr::new(name))];
        let done = run_within(&command, &env, self.directory.as_deref(), REMOVING, clock);
        match done {
            Ok(finished) if finished.status.success() => Ok(()),
            Ok(finished) => {
                let (ending, said) = (finished.ending(), finished.said());
                Err(format!("{} failed with {ending}: {said}", command.display()))
            }
            Err(error) => Err(chain(&error)),
        }
    }
}

/// The notes of a state directory.
#[derive(Clone, Debug)]
pub struct FrozenStore {
    dir: PathBuf,
}

/// What a sweep did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Names of what was removed.
    pub removed: Vec<String>,
    /// What could not be removed, for people.
    pub left: Vec<String>,
}

impl FrozenStore {
    /// The notes below a state directory. Nothing is made before something is written.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("frozen") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Writes a note; with `last` it would outlive a loss of power.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, note: &FrozenNote, last: bool) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let (path, temporary) =
            (self.path(&note.name), self.path(&note.name).with_extension("tmp"));
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(flags);
        let mut file = options.open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(note)?)?;
        if last {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, &path)?;
        if last { std::fs::File::open(&self.dir)?.sync_all() } else { Ok(()) }
    }

    /// Removes a note. One that is not there is no error.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn read(&self, path: &Path) -> io::Result<FrozenNote> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = flags.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let note: FrozenNote = serde_json::from_slice(&bytes)?;
        let fits = note.version == VERSION && self.path(&note.name) == path;
        if fits { Ok(note) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Removes what runs that are dead left. What a living one made is left alone.
    #[must_use]
    pub fn sweep(&self, clock: &dyn Clock) -> Swept {
        let mut swept = Swept::default();
        let names = match std::fs::read_dir(&self.dir) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return swept,
            Err(e) => {
                swept.left.push(format!("what was frozen cannot be listed: {e}"));
                return swept;
            }
        };
        let mut paths: Vec<PathBuf> = names.flatten().map(|one| one.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        paths.sort();
        for path in paths {
            match self.read(&path) {
                Ok(note) => self.sweep_one(&note, clock, &mut swept),
                Err(e) => swept.left.push(format!("{} cannot be read: {e}", path.display())),
            }
        }
        swept
    }

    fn sweep_one(&self, note: &FrozenNote, clock: &dyn Clock, swept: &mut Swept) {
        match note.owner.is_alive() {
            Ok(true) => return,
            Ok(false) => {}
            Err(e) => return swept.left.push(format!("{}: {e}", note.name)),
        }
        let removed = note.remove(clock);
        match removed.and_then(|()| self.forget(&note.name).map_err(|e| e.to_string())) {
            Ok(()) => swept.removed.push(note.name.clone()),
            Err(why) => swept.left.push(format!("a dead run left something frozen: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;

    #[test]
    fn what_a_dead_run_made_is_removed_and_what_a_living_one_made_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = FrozenStore::open(&dir.path().join("state"));
        assert_eq!(store.sweep(&SystemClock), Swept::default());
        let mark = dir.path().join("removed");
        let mut note = FrozenNote::new("cabk-1", "site").unwrap();
        let script = format!("echo $CABK_SITE $CABK_FREEZE >{}", mark.display());
        let command = vec!["sh".to_owned(), "-c".to_owned(), script];
        note.removal = Some(Removal { command, directory: None, begun: false });
        store.write(&note, true).unwrap();
        assert_eq!(store.sweep(&SystemClock), Swept::default(), "its owner lives");
        note.owner.start_time += 1;
        store.write(&note, false).unwrap();
        assert_eq!(store.sweep(&SystemClock).removed, ["cabk-1"]);
        assert!(!mark.exists(), "nothing was made that would have to go");
        note.removal.as_mut().unwrap().begun = true;
        store.write(&note, false).unwrap();
        assert_eq!(store.sweep(&SystemClock).removed, ["cabk-1"]);
        assert_eq!(std::fs::read_to_string(&mark).unwrap(), "site cabk-1\n");
        note.removal.as_mut().unwrap().command = vec!["false".to_owned()];
        store.write(&note, false).unwrap();
        for _ in 0..2 {
            let swept = store.sweep(&SystemClock);
            assert!(swept.removed.is_empty() && swept.left[0].contains("exit code 1"), "{swept:?}");
        }
    }
}
