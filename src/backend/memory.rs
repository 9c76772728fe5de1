//! A repository in memory, for tests and simulation: as strict as a directory, and open to whoever
//! wants to damage it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, BackendError, LocalFacts, ObjectName, Space, errors};

type Objects = BTreeMap<ObjectName, Arc<[u8]>>;

/// A repository in memory. Clones share their objects.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    objects: Arc<Mutex<Objects>>,
}

impl MemoryBackend {
    /// An empty repository.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of an object, past the contract.
    #[must_use]
    pub fn raw_get(&self, object: &ObjectName) -> Option<Vec<u8>> {
        self.lock().get(object).map(|bytes| bytes.to_vec())
    }

    /// Puts or replaces an object, past the contract.
    pub fn raw_put(&self, object: &ObjectName, bytes: &[u8]) {
        self.lock().insert(object.clone(), Arc::from(bytes));
    }

    /// Takes an object away, past the contract; whether it was there.
    pub fn raw_remove(&self, object: &ObjectName) -> bool {
        self.lock().remove(object).is_some()
    }

    /// The names of all objects, by space and name.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectName> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, object: &ObjectName) -> Result<Arc<[u8]>, BackendError> {
        self.lock().get(object).cloned().ok_or_else(|| BackendError::NotFound(object.clone()))
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[deny(clippy::missing_trait_methods)]
impl Backend for MemoryBackend {
    fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError> {
        let bytes: Arc<[u8]> = parts.concat().into();
        match self.lock().entry(object.clone()) {
            std::collections::btree_map::Entry::Occupied(_) => {
                Err(BackendError::Exists(object.clone()))
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(bytes);
                Ok(())
            }
        }
    }

    fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError> {
        let bytes = self.find(object)?;
        errors::check_max(object, count(&bytes), max)?;
        Ok(bytes.to_vec())
    }

    fn get_range(
        &self,
        object: &ObjectName,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BackendError> {
        let bytes = self.find(object)?;
        errors::check_range(object, count(&bytes), offset, len)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start.checked_add(len).and_then(|end| bytes.get(start..end));
        range.map(<[u8]>::to_vec).ok_or_else(|| BackendError::Short {
            object: object.clone(),
            len: count(&bytes),
            wanted: u64::MAX,
        })
    }

    fn len(&self, object: &ObjectName) -> Result<u64, BackendError> {
        self.find(object).map(|bytes| count(&bytes))
    }

    fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError> {
        let objects = self.lock();
        let of_space = objects.iter().filter(|(object, _)| object.space() == space);
        Ok(of_space.map(|(object, bytes)| (object.clone(), count(bytes))).collect())
    }

    fn delete(&self, object: &ObjectName) -> Result<(), BackendError> {
        let gone = self.lock().remove(object);
        gone.map(|_| ()).ok_or_else(|| BackendError::NotFound(object.clone()))
    }

    fn local(&self) -> Option<&dyn LocalFacts> {
        None
    }
}
