//! A storage behind a pointer is a storage, so that wrappers take what a caller chose at run time.

use std::sync::Arc;

use super::{Backend, BackendError, LocalFacts, ObjectName, Space};

macro_rules! forward {
    ($pointer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<B: Backend + ?Sized> Backend for $pointer<B> {
            fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError> {
                (**self).put_new(object, parts)
            }

            fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError> {
                (**self).get(object, max)
            }

            fn get_range(
                &self,
                object: &ObjectName,
                offset: u64,
                len: usize,
            ) -> Result<Vec<u8>, BackendError> {
                (**self).get_range(object, offset, len)
            }

            fn len(&self, object: &ObjectName) -> Result<u64, BackendError> {
                (**self).len(object)
            }

            fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError> {
                (**self).list(space)
            }

            fn delete(&self, object: &ObjectName) -> Result<(), BackendError> {
                (**self).delete(object)
            }

            fn local(&self) -> Option<&dyn LocalFacts> {
                (**self).local()
            }
        }
    };
}

forward!(Box);
forward!(Arc);
