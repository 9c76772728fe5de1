//! Where objects lie. The trait below is all that cabk asks of a storage; a directory and an object
//! store hold the same repository.

pub mod conformance;
mod errors;
pub mod faulty;
mod forward;
pub mod latch;
pub mod local;
pub mod memory;

use std::fmt;

use crate::base::id::{KeyId, LeaseId, ManifestId, NoteId, PackId, SegmentId, to_hex};

/// The kinds of objects, each below a prefix of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// `config/`: the repository's configuration, the highest number counts.
    Config,
    /// `keys/`: key slots.
    Keys,
    /// `packs/`: sealed chunks.
    Packs,
    /// `index/`: which pack holds what.
    Index,
    /// `snapshots/`: manifests of snapshots.
    Snapshots,
    /// `captures/`: manifests of captures.
    Captures,
    /// `leases/`: who is at work, and how their work ended.
    Leases,
    /// `condemned/`: generations of what is to be deleted.
    Condemned,
    /// `notes/`: what was learnt later about a manifest.
    Notes,
    /// `parity/`: for mending.
    Parity,
}

impl Space {
    /// All spaces, in the order in which `init` makes them.
    pub const ALL: [Self; 10] = [
        Self::Config,
        Self::Keys,
        Self::Packs,
        Self::Index,
        Self::Snapshots,
        Self::Captures,
        Self::Leases,
        Self::Condemned,
        Self::Notes,
        Self::Parity,
    ];

    /// The prefix, without a slash.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Keys => "keys",
            Self::Packs => "packs",
            Self::Index => "index",
            Self::Snapshots => "snapshots",
            Self::Captures => "captures",
            Self::Leases => "leases",
            Self::Condemned => "condemned",
            Self::Notes => "notes",
            Self::Parity => "parity",
        }
    }
}

/// The name of one object: its space and a name of 1 to 100 characters out of `0-9 a-z - .`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    space: Space,
    name: String,
}

impl ObjectName {
    /// A name as found in a listing; `None` where it cannot be one of ours.
    #[must_use]
    pub fn new(space: Space, name: &str) -> Option<Self> {
        let fits = (1..=100).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'.'));
        fits.then(|| Self { space, name: name.to_owned() })
    }

    fn made(space: Space, name: String) -> Self {
        Self { space, name }
    }

    /// A pack.
    #[must_use]
    pub fn pack(id: &PackId) -> Self {
        Self::made(Space::Packs, to_hex(id.as_bytes()))
    }

    /// An index segment.
    #[must_use]
    pub fn segment(id: &SegmentId) -> Self {
        Self::made(Space::Index, to_hex(id.as_bytes()))
    }

    /// A snapshot's manifest.
    #[must_use]
    pub fn snapshot(id: &ManifestId) -> Self {
        Self::made(Space::Snapshots, to_hex(id.as_bytes()))
    }

    /// A capture's manifest.
    #[must_use]
    pub fn capture(id: &ManifestId) -> Self {
        Self::made(Space::Captures, to_hex(id.as_bytes()))
    }

    /// A note.
    #[must_use]
    pub fn note(id: &NoteId) -> Self {
        Self::made(Space::Notes, to_hex(id.as_bytes()))
    }

    /// A lease.
    #[must_use]
    pub fn lease(id: &LeaseId) -> Self {
        Self::made(Space::Leases, to_hex(id.as_bytes()))
    }

    /// The record that ends a lease.
    #[must_use]
    pub fn lease_end(id: &LeaseId) -> Self {
        Self::made(Space::Leases, format!("{}.end", to_hex(id.as_bytes())))
    }

    /// One of the two copies of a key slot.
    #[must_use]
    pub fn key(id: &KeyId, copy: Copy2) -> Self {
        Self::made(Space::Keys, format!("{}.{}", to_hex(id.as_bytes()), copy.suffix()))
    }

    /// One of the two copies of the configuration of number `n`.
    #[must_use]
    pub fn config(n: u64, copy: Copy2) -> Self {
        Self::made(Space::Config, format!("{n:08}.{}", copy.suffix()))
    }

    /// A generation of what is to be deleted.
    #[must_use]
    pub fn condemned(n: u64) -> Self {
        Self::made(Space::Condemned, format!("{n:08}"))
    }

    /// The space.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space
    }

    /// The name below the prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.space.prefix(), self.name)
    }
}

/// Which of two copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copy2 {
    /// The first copy.
    A,
    /// The second copy.
    B,
}

impl Copy2 {
    /// Both, in the order in which they are written and read.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The end of the object's name.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// What kept a storage from doing what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The object is not there.
    #[error("{0} is not in the repository")]
    NotFound(ObjectName),
    /// The object is there already (of `put_new`).
    #[error("{0} is in the repository already")]
    Exists(ObjectName),
    /// There is no repository at the place.
    #[error("there is no repository at {0}")]
    NoRepository(String),
    /// There is something at the place that is not an empty directory.
    #[error("{0} is not empty")]
    NotEmpty(String),
    /// The storage has no room left.
    #[error("no space left for {object}")]
    Full {
        /// What was to be written.
        object: String,
        /// What the storage said.
        source: std::io::Error,
    },
    /// The storage is read-only or refuses writing.
    #[error("cannot write {object}")]
    ReadOnly {
        /// What was to be written.
        object: String,
        /// What the storage said.
        source: std::io::Error,
    },
    /// A range beyond the end of the object.
    #[error("{object} has {len} bytes, {wanted} were expected")]
    Short {
        /// The object.
        object: ObjectName,
        /// Its length.
        len: u64,
        /// The end of the range that was asked for.
        wanted: u64,
    },
    /// Anything else that the storage said.
    #[error("cannot {action} {object}")]
    Io {
        /// What was tried: `read`, `write`, `list`, `delete` ...
        action: &'static str,
        /// What it was tried on.
        object: String,
        /// What the storage said.
        source: std::io::Error,
    },
}

/// A storage of objects that are written once under their own name and never changed.
///
/// The contract, held for every implementation by one conformance suite:
/// - **Atomic.** An object is there whole or not at all, for every reader, also after a crash.
/// - **Durable and visible on return.** When `put_new` has returned, the object survives a power cut
///   and every later `get`, `len` and `list` by anybody shows it.
/// - **New means new.** Of several `put_new` of one name exactly one succeeds; the others get
///   [`BackendError::Exists`] and change nothing.
/// - **A listing is complete or an error.** It shows each object that was there before it began and
///   was not deleted while it ran. Foreign names are left out.
/// - **Deleting is durable on return** as well; deleting what is not there is `NotFound`.
/// - After a failed `put_new` the name may be there whole, or not be there; never in part.
pub trait Backend: Send + Sync {
    /// Writes a new object: the concatenation of `parts`.
    ///
    /// # Errors
    /// [`BackendError::Exists`], [`BackendError::Full`], [`BackendError::ReadOnly`], or another.
    fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError>;

    /// Reads a whole object of at most `max` bytes; a larger one is an error before it is read.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] or another.
    fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError>;

    /// Reads `len` bytes at `offset`: all of them or an error.
    ///
    /// # Errors
    /// [`BackendError::NotFound`], [`BackendError::Short`] or another.
    fn get_range(
        &self,
        object: &ObjectName,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BackendError>;

    /// Bytes of an object.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] or another.
    fn len(&self, object: &ObjectName) -> Result<u64, BackendError>;

    /// All objects of a space with their lengths, sorted by name.
    ///
    /// # Errors
    /// A listing that may be incomplete is an error.
    fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError>;

    /// Deletes an object.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] or another.
    fn delete(&self, object: &ObjectName) -> Result<(), BackendError>;

    /// What a storage on this machine can say beyond objects; `None` where it lies elsewhere.
    fn local(&self) -> Option<&dyn LocalFacts>;
}

/// What only a storage that is a directory of this machine can tell.
pub trait LocalFacts: Send + Sync {
    /// Bytes free for this process.
    ///
    /// # Errors
    /// What the operating system says.
    fn free_bytes(&self) -> Result<u64, BackendError>;

    /// Marks a lease as held by this process until the guard is dropped or the process dies
    /// (`flock`). Called before the lease itself is put.
    ///
    /// # Errors
    /// What the operating system says.
    fn hold(&self, lease: &LeaseId) -> Result<Box<dyn Hold>, BackendError>;

    /// Whether a living process of a machine that shares this directory's locks holds the lease.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_held(&self, lease: &LeaseId) -> Result<bool, BackendError>;

    /// Removes what is left of a lease that nobody holds any more.
    ///
    /// # Errors
    /// What the operating system says.
    fn forget_hold(&self, lease: &LeaseId) -> Result<(), BackendError>;

    /// Removes what writers that died have left unfinished; how many files that were.
    ///
    /// # Errors
    /// The storage's.
    fn sweep(&self) -> Result<u64, BackendError>;

    /// The directory, absolute: a source that contains it leaves it out.
    fn root(&self) -> &std::path::Path;
}

/// Held until dropped.
pub trait Hold: Send + Sync {}
