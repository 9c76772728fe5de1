//! Names of users and groups, and back.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Bytes of a passwd or group file that are read.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// A name or number could not be looked up: a directory service is away, say. Not the same as one
/// that does not exist.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot look up {what}")]
pub struct OwnersError {
    /// What was asked for: `user 33`, `group "staff"`.
    pub what: String,
    /// What the operating system said.
    pub source: Arc<io::Error>,
}

/// Who is who on a machine.
pub trait Owners: Send + Sync {
    /// The name of a user; `None` where there is none.
    ///
    /// # Errors
    /// [`OwnersError`], where that cannot be told.
    fn user_name(&self, uid: u32) -> Result<Option<String>, OwnersError>;

    /// The name of a group; `None` where there is none.
    ///
    /// # Errors
    /// [`OwnersError`], where that cannot be told.
    fn group_name(&self, gid: u32) -> Result<Option<String>, OwnersError>;

    /// The number of a user; `None` where there is none.
    ///
    /// # Errors
    /// [`OwnersError`], where that cannot be told.
    fn uid_of(&self, name: &str) -> Result<Option<u32>, OwnersError>;

    /// The number of a group; `None` where there is none.
    ///
    /// # Errors
    /// [`OwnersError`], where that cannot be told.
    fn gid_of(&self, name: &str) -> Result<Option<u32>, OwnersError>;
}

type Answer<V> = Result<Option<V>, OwnersError>;

/// Answers that were given. Failures too: with a directory service away, each question can take
/// half a minute, and a tree asks a million times.
struct Cache<K, V>(Mutex<HashMap<K, Answer<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get<Q>(&self, key: &Q, ask: impl FnOnce() -> Answer<V>) -> Answer<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        // Held while asking: the walkers' threads ask for the same few names at the same time.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(key) {
            return answer.clone();
        }
        let answer = ask();
        known.insert(key.to_owned(), answer.clone());
        answer
    }
}

/// The users and groups of this machine, through its name service, each asked once.
#[derive(Default)]
pub struct SystemOwners {
    users: Cache<u32, String>,
    groups: Cache<u32, String>,
    uids: Cache<String, u32>,
    gids: Cache<String, u32>,
}

/// An answer of the name service. Some of its sources tell with an error that nobody was found.
fn answer<T>(what: String, found: Result<Option<T>, Errno>) -> Answer<T> {
    match found {
        Ok(found) => Ok(found),
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(e) => Err(OwnersError { what, source: Arc::new(e.into()) }),
    }
}

impl Owners for SystemOwners {
    fn user_name(&self, uid: u32) -> Result<Option<String>, OwnersError> {
        let ask = || {
            let found = answer(format!("user {uid}"), User::from_uid(Uid::from_raw(uid)));
            found.map(|user| user.map(|user| user.name))
        };
        self.users.get(&uid, ask)
    }

    fn group_name(&self, gid: u32) -> Result<Option<String>, OwnersError> {
        let ask = || {
            let found = answer(format!("group {gid}"), Group::from_gid(Gid::from_raw(gid)));
            found.map(|group| group.map(|group| group.name))
        };
        self.groups.get(&gid, ask)
    }

    fn uid_of(&self, name: &str) -> Result<Option<u32>, OwnersError> {
        if !can_be_name(name) {
            return Ok(None);
        }
        let ask = || {
            let found = answer(format!("user {name:?}"), User::from_name(name));
            found.map(|user| user.map(|user| user.uid.as_raw()))
        };
        self.uids.get(name, ask)
    }

    fn gid_of(&self, name: &str) -> Result<Option<u32>, OwnersError> {
        if !can_be_name(name) {
            return Ok(None);
        }
        let ask = || {
            let found = answer(format!("group {name:?}"), Group::from_name(name));
            found.map(|group| group.map(|group| group.gid.as_raw()))
        };
        self.gids.get(name, ask)
    }
}

/// Whether it is worth asking for: names come from repositories, and no user has one with a NUL or
/// of such length.
fn can_be_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 1024 && !name.contains('\0')
}

/// Users and groups that are given one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapOwners {
    users: Vec<(String, u32)>,
    groups: Vec<(String, u32)>,
}

impl MapOwners {
    /// Adds a user. Of several with one name or one number the first counts.
    #[must_use]
    pub fn user(mut self, name: &str, uid: u32) -> Self {
        self.users.push((name.to_owned(), uid));
        self
    }

    /// Adds a group. Of several with one name or one number the first counts.
    #[must_use]
    pub fn group(mut self, name: &str, gid: u32) -> Self {
        self.groups.push((name.to_owned(), gid));
        self
    }
}

impl Owners for MapOwners {
    fn user_name(&self, uid: u32) -> Result<Option<String>, OwnersError> {
        Ok(self.users.iter().find(|one| one.1 == uid).map(|one| one.0.clone()))
    }

    fn group_name(&self, gid: u32) -> Result<Option<String>, OwnersError> {
        Ok(self.groups.iter().find(|one| one.1 == gid).map(|one| one.0.clone()))
    }

    fn uid_of(&self, name: &str) -> Result<Option<u32>, OwnersError> {
        Ok(self.users.iter().find(|one| one.0 == name).map(|one| one.1))
    }

    fn gid_of(&self, name: &str) -> Result<Option<u32>, OwnersError> {
        Ok(self.groups.iter().find(|one| one.0 == name).map(|one| one.1))
    }
}

/// The users and groups of another system whose root is a directory of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOwners {
    user_names: HashMap<u32, String>,
    group_names: HashMap<u32, String>,
    uids: HashMap<String, u32>,
    gids: HashMap<String, u32>,
}

impl FileOwners {
    /// Reads `etc/passwd` and `etc/group` below `root`; symbolic links in it lead as they would if
    /// it were the root. A file that is not there has no entries, and a line that is not understood
    /// is left out, as the name service does.
    ///
    /// # Errors
    /// What the operating system says, and a file above 64 MiB.
    pub fn from_root(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let (user_names, uids) = entries(&read_in_root(&root, "etc/passwd")?);
        let (group_names, gids) = entries(&read_in_root(&root, "etc/group")?);
        Ok(Self { user_names, group_names, uids, gids })
    }
}

fn read_in_root(root: &std::os::fd::OwnedFd, path: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_FILE) {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} is too large")));
    }
    Ok(bytes)
}

/// Names and numbers of a passwd or group file; both have them in fields 1 and 3.
fn entries(bytes: &[u8]) -> (HashMap<u32, String>, HashMap<String, u32>) {
    let (mut names, mut numbers) = (HashMap::new(), HashMap::new());
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut fields = line.split(':');
        let (name, number) = (fields.next(), fields.nth(1).and_then(|n| n.parse::<u32>().ok()));
        let (Some(name), Some(number)) = (name, number) else { continue };
        if name.is_empty() || name.starts_with(['#', '+', '-']) {
            continue;
        }
        names.entry(number).or_insert_with(|| name.to_owned());
        numbers.entry(name.to_owned()).or_insert(number);
    }
    (names, numbers)
}

impl Owners for FileOwners {
    fn user_name(&self, uid: u32) -> Result<Option<String>, OwnersError> {
        Ok(self.user_names.get(&uid).cloned())
    }

    fn group_name(&self, gid: u32) -> Result<Option<String>, OwnersError> {
        Ok(self.group_names.get(&gid).cloned())
    }

    fn uid_of(&self, name: &str) -> Result<Option<u32>, OwnersError> {
        Ok(self.uids.get(name).copied())
    }

    fn gid_of(&self, name: &str) -> Result<Option<u32>, OwnersError> {
        Ok(self.gids.get(name).copied())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn root_is_known_here_and_nobody_strange_is() {
        let owners = SystemOwners::default();
        for _ in 0..2 {
            assert_eq!(owners.user_name(0).unwrap().as_deref(), Some("root"));
            assert_eq!(owners.uid_of("root").unwrap(), Some(0));
            assert_eq!(owners.group_name(0).unwrap().as_deref(), Some("root"));
            assert_eq!(owners.gid_of("root").unwrap(), Some(0));
            assert_eq!(owners.user_name(3_999_999_999).unwrap(), None);
            assert_eq!(owners.gid_of("no such group here").unwrap(), None);
        }
        assert_eq!(owners.uid_of("a\0b").unwrap(), None);
        assert_eq!(owners.uid_of("").unwrap(), None);
    }

    #[test]
    fn failures_are_remembered_and_are_no_absence() {
        let cache = Cache::<u32, String>::default();
        let mut asked = 0;
        for _ in 0..3 {
            let given = cache.get(&7, || {
                asked += 1;
                answer("user 7".into(), Err(Errno::EIO))
            });
            assert_eq!(given.unwrap_err().to_string(), "cannot look up user 7");
        }
        assert_eq!(asked, 1);
        assert!(matches!(answer::<u32>(String::new(), Err(Errno::ENOENT)), Ok(None)));
    }

    #[test]
    fn owners_of_another_root() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let passwd = "# who\nroot:x:0:0::/root:/bin/sh\nconnect:x:991:985::/:\nagain:x:991:1::/:\n\
            connect:x:5:5::/:\n+nis\nbad:x:abc:1::/:\nbroken\n:x:9:9::/:\nbig:x:99999999999:1::/:\n";
        std::fs::create_dir(etc.join("real")).unwrap();
        std::fs::write(etc.join("real/passwd"), passwd).unwrap();
        // As in the root: this machine has another file there.
        symlink("/etc/real/passwd", etc.join("passwd")).unwrap();
        let owners = FileOwners::from_root(dir.path()).unwrap();
        assert_eq!(owners.uid_of("connect").unwrap(), Some(991));
        assert_eq!(owners.uid_of("again").unwrap(), Some(991));
        assert_eq!(owners.user_name(991).unwrap().as_deref(), Some("connect"));
        assert_eq!(owners.user_names.len(), 3);
        assert_eq!(owners.gid_of("root").unwrap(), None, "there is no group file");
        std::fs::write(etc.join("group"), "rstudio:x:985:connect\n").unwrap();
        let owners = FileOwners::from_root(dir.path()).unwrap();
        assert_eq!(owners.group_name(985).unwrap().as_deref(), Some("rstudio"));
        assert!(FileOwners::from_root(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn the_first_of_several_counts() {
        let owners = MapOwners::default().user("a", 1).user("b", 1).group("g", 2).group("g", 3);
        assert_eq!(owners.user_name(1).unwrap().as_deref(), Some("a"));
        assert_eq!(owners.uid_of("b").unwrap(), Some(1));
        assert_eq!(owners.gid_of("g").unwrap(), Some(2));
        assert_eq!(owners.group_name(4).unwrap(), None);
    }
}
