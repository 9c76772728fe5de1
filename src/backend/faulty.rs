//! A storage that fails where it is told to and remembers what it was asked: for tests, for the
//! simulation, and for budgets of effects.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, BackendError, LocalFacts, ObjectName, Space};

/// `ENOSPC` and `EIO`, as the operating system numbers them.
const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// What a storage was asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// `put_new`.
    Put,
    /// `delete`.
    Delete,
    /// `get` or `get_range`.
    Get,
    /// `len`.
    Len,
    /// `list`.
    List,
}

impl Op {
    const fn action(self) -> &'static str {
        match self {
            Self::Put => "write",
            Self::Delete => "delete",
            Self::Get | Self::Len => "read",
            Self::List => "list",
        }
    }
}

/// Which calls are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum On {
    /// Calls of one kind.
    Op(Op),
    /// Puts and deletes: whatever changes the repository.
    Change,
    /// All calls.
    Any,
}

impl On {
    fn covers(self, op: Op) -> bool {
        match self {
            Self::Op(own) => own == op,
            Self::Change => matches!(op, Op::Put | Op::Delete),
            Self::Any => true,
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Nothing is done; an input/output error is reported.
    Io,
    /// Nothing is done; no space is left. For a reading call the same as [`Fault::Io`].
    Full,
    /// It is done, and reported as timed out.
    DoneButReported,
    /// Nothing is done, and nothing ever again: this call and every later one fails, as though the
    /// process had been killed here.
    Abort,
}

/// One call, in the order of their beginnings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// What was asked.
    pub op: Op,
    /// The object, or the prefix of the space that was listed.
    pub object: String,
    /// Bytes written or read; of a listing, the objects in it.
    pub bytes: u64,
    /// Whether the caller was told of success.
    pub ok: bool,
}

#[derive(Debug, Default)]
struct State {
    planned: Vec<(On, u64, Fault)>,
    calls: Vec<Recorded>,
    aborted: bool,
}

/// Plans faults and reads the record. Clones speak of the same storage.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// Lets the `nth` call from now on (1 is the next one) that `on` covers meet a fault. Of
    /// several plans for one call the one made first counts.
    pub fn fail(&self, on: On, nth: u64, fault: Fault) {
        self.lock().planned.push((on, nth, fault));
    }

    /// Forgets all plans, the record, and an abort.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// All calls since the beginning or the last [`Faults::clear`].
    #[must_use]
    pub fn calls(&self) -> Vec<Recorded> {
        self.lock().calls.clone()
    }

    /// How many calls `on` covers.
    #[must_use]
    pub fn count(&self, on: On) -> usize {
        self.lock().calls.iter().filter(|call| on.covers(call.op)).count()
    }

    /// Whether an abort has been met.
    #[must_use]
    pub fn aborted(&self) -> bool {
        self.lock().aborted
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the beginning of a call: its place in the record, and its fault.
    fn begin(&self, op: Op, object: String, bytes: u64) -> (usize, Option<Fault>) {
        let mut state = self.lock();
        state.calls.push(Recorded { op, object, bytes, ok: false });
        let place = state.calls.len() - 1;
        if state.aborted {
            return (place, Some(Fault::Abort));
        }
        let mut due = None;
        state.planned.retain_mut(|(on, left, fault)| {
            if !on.covers(op) {
                return true;
            }
            *left = left.saturating_sub(1);
            if *left == 0 {
                due.get_or_insert(*fault);
            }
            *left > 0
        });
        state.aborted = due == Some(Fault::Abort);
        (place, due)
    }

    fn end(&self, place: usize, bytes: u64, ok: bool) {
        // A record that was cleared meanwhile has no such place any more.
        if let Some(call) = self.lock().calls.get_mut(place) {
            call.bytes = bytes;
            call.ok = ok;
        }
    }
}

/// A storage with faults.
#[derive(Debug)]
pub struct Faulty<B> {
    inner: B,
    faults: Faults,
}

impl<B: Backend> Faulty<B> {
    /// Wraps a storage; without plans it only records.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self { inner, faults: Faults::default() }
    }

    /// Where faults are planned and the record is read.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The storage inside, without faults.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn run<T>(
        &self,
        op: Op,
        object: String,
        bytes: u64,
        work: impl FnOnce() -> Result<T, BackendError>,
        size: impl FnOnce(&T) -> u64,
    ) -> Result<T, BackendError> {
        let (place, fault) = self.faults.begin(op, object.clone(), bytes);
        let failed =
            |source| BackendError::Io { action: op.action(), object: object.clone(), source };
        let result = match fault {
            None => work(),
            Some(Fault::Full) if matches!(op, Op::Put | Op::Delete) => {
                let source = io::Error::from_raw_os_error(ENOSPC);
                Err(BackendError::Full { object: object.clone(), source })
            }
            Some(Fault::Io | Fault::Full) => Err(failed(io::Error::from_raw_os_error(EIO))),
            Some(Fault::DoneButReported) => {
                work().and_then(|_| Err(failed(io::ErrorKind::TimedOut.into())))
            }
            Some(Fault::Abort) => Err(failed(io::ErrorKind::ConnectionAborted.into())),
        };
        match &result {
            Ok(value) => self.faults.end(place, size(value), true),
            Err(_) => self.faults.end(place, bytes, false),
        }
        result
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for Faulty<B> {
    fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError> {
        let bytes = parts.iter().map(|part| count(part.len())).sum();
        let work = || self.inner.put_new(object, parts);
        self.run(Op::Put, object.to_string(), bytes, work, |()| bytes)
    }

    fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError> {
        let work = || self.inner.get(object, max);
        self.run(Op::Get, object.to_string(), 0, work, |found| count(found.len()))
    }

    fn get_range(
        &self,
        object: &ObjectName,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BackendError> {
        let work = || self.inner.get_range(object, offset, len);
        self.run(Op::Get, object.to_string(), 0, work, |found| count(found.len()))
    }

    fn len(&self, object: &ObjectName) -> Result<u64, BackendError> {
        self.run(Op::Len, object.to_string(), 0, || self.inner.len(object), |_| 0)
    }

    fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError> {
        let work = || self.inner.list(space);
        self.run(Op::List, space.prefix().to_owned(), 0, work, |found| count(found.len()))
    }

    fn delete(&self, object: &ObjectName) -> Result<(), BackendError> {
        self.run(Op::Delete, object.to_string(), 0, || self.inner.delete(object), |()| 0)
    }

    fn local(&self) -> Option<&dyn LocalFacts> {
        self.inner.local()
    }
}
