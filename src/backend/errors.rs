//! How all storages here word what went wrong, so that callers see one language.

use std::io;

use super::{BackendError, ObjectName};

/// An object longer than the reader allows.
#[derive(Debug, thiserror::Error)]
#[error("it has {len} bytes, at most {max} are allowed")]
struct TooLarge {
    len: u64,
    max: u64,
}

/// A failed reading of one object.
pub(super) fn reading(object: &ObjectName, source: io::Error) -> BackendError {
    if source.kind() == io::ErrorKind::NotFound {
        return BackendError::NotFound(object.clone());
    }
    BackendError::Io { action: "read", object: object.to_string(), source }
}

/// A failed change: the kinds that callers act on apart, everything else as it is.
pub(super) fn changing(action: &'static str, object: String, source: io::Error) -> BackendError {
    use io::ErrorKind as Kind;
    match source.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => BackendError::Full { object, source },
        Kind::ReadOnlyFilesystem | Kind::PermissionDenied => {
            BackendError::ReadOnly { object, source }
        }
        _ => BackendError::Io { action, object, source },
    }
}

/// Refuses an object of `len` bytes where at most `max` are wanted.
pub(super) fn check_max(object: &ObjectName, len: u64, max: u64) -> Result<(), BackendError> {
    if len <= max {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::InvalidData, TooLarge { len, max });
    Err(BackendError::Io { action: "read", object: object.to_string(), source })
}

/// Refuses a range that an object of `size` bytes does not have.
pub(super) fn check_range(
    object: &ObjectName,
    size: u64,
    offset: u64,
    len: usize,
) -> Result<(), BackendError> {
    let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
    match end {
        Some(end) if end <= size => Ok(()),
        _ => Err(BackendError::Short {
            object: object.clone(),
            len: size,
            wanted: end.unwrap_or(u64::MAX),
        }),
    }
}

/// Memory for `len` bytes, or an error where there is none: a length that a storage reports must
/// not end the process.
pub(super) fn buffer(len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(len, 0);
    Ok(bytes)
}
