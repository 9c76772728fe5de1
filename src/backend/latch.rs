//! No writing after a failed write: what came before may not be durable, and whatever would be
//! built on it must not be.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Backend, BackendError, LocalFacts, ObjectName, Space};

/// Why a latched storage refuses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("refused, because an earlier change failed: {first}")]
struct Earlier {
    first: String,
}

#[derive(Clone, Copy, Debug)]
enum Variant {
    Full,
    ReadOnly,
    Other,
}

#[derive(Clone, Debug)]
struct Failure {
    variant: Variant,
    kind: io::ErrorKind,
    earlier: Earlier,
}

impl Failure {
    fn of(error: &BackendError) -> Option<Self> {
        let (variant, source) = match error {
            BackendError::Exists(_) | BackendError::NotFound(_) => return None,
            BackendError::Full { source, .. } => (Variant::Full, Some(source)),
            BackendError::ReadOnly { source, .. } => (Variant::ReadOnly, Some(source)),
            BackendError::Io { source, .. } => (Variant::Other, Some(source)),
            _ => (Variant::Other, None),
        };
        let kind = source.map_or(io::ErrorKind::Other, io::Error::kind);
        let first = match source {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Some(Self { variant, kind, earlier: Earlier { first } })
    }

    fn refuse(&self, action: &'static str, object: &ObjectName) -> BackendError {
        let object = object.to_string();
        let source = io::Error::new(self.kind, self.earlier.clone());
        match self.variant {
            Variant::Full => BackendError::Full { object, source },
            Variant::ReadOnly => BackendError::ReadOnly { object, source },
            Variant::Other => BackendError::Io { action, object, source },
        }
    }
}

/// A storage that refuses every change after the first one that failed, with an error of the same
/// kind. That an object exists or is not there is no failure. Reading goes on.
#[derive(Debug)]
pub struct Latched<B> {
    inner: B,
    failure: Mutex<Option<Failure>>,
}

impl<B: Backend> Latched<B> {
    /// Wraps a storage in which nothing has failed yet.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self { inner, failure: Mutex::new(None) }
    }

    /// The storage inside.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Whether changes are refused from now on.
    #[must_use]
    pub fn is_latched(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(
        &self,
        action: &'static str,
        object: &ObjectName,
        run: impl FnOnce() -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        if let Some(failure) = self.lock().as_ref() {
            return Err(failure.refuse(action, object));
        }
        let result = run();
        if let Some(failure) = result.as_ref().err().and_then(Failure::of) {
            self.lock().get_or_insert(failure);
        }
        result
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for Latched<B> {
    fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError> {
        self.change("write", object, || self.inner.put_new(object, parts))
    }

    fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError> {
        self.inner.get(object, max)
    }

    fn get_range(
        &self,
        object: &ObjectName,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BackendError> {
        self.inner.get_range(object, offset, len)
    }

    fn len(&self, object: &ObjectName) -> Result<u64, BackendError> {
        self.inner.len(object)
    }

    fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError> {
        self.inner.list(space)
    }

    fn delete(&self, object: &ObjectName) -> Result<(), BackendError> {
        self.change("delete", object, || self.inner.delete(object))
    }

    fn local(&self) -> Option<&dyn LocalFacts> {
        self.inner.local()
    }
}
