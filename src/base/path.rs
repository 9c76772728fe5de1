//! Paths as bytes: Linux names are bytes without `/` and NUL, not text.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path for people and for JSON's `path`: bytes that are not UTF-8 become U+FFFD.
#[must_use]
pub fn lossy(path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// A path for a terminal: as [`lossy`], with control characters escaped so that a hostile name can
/// neither move the cursor nor forge a line.
#[must_use]
pub fn printable(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for c in lossy(path).chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// The digits for JSON's `path_hex`, only where the path is not UTF-8.
#[must_use]
pub fn hex_if_not_utf8(path: &[u8]) -> Option<String> {
    std::str::from_utf8(path).is_err().then(|| super::id::to_hex(path))
}

/// `parent` and `name` with one `/` between them.
#[must_use]
pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() && !parent.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The components of a path, without empty ones and `.`; `..` is kept for the caller to refuse.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Whether `path` is `root` or lies below it, component by component. Both are absolute.
#[must_use]
pub fn is_within(path: &[u8], root: &[u8]) -> bool {
    let mut inner = components(path);
    components(root).all(|part| inner.next() == Some(part))
}

/// Whether the bytes can be one name in a directory: not empty, not `.` or `..`, at most 255 bytes,
/// no `/`, no NUL.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && !name.iter().any(|&b| b == b'/' || b == 0)
}

/// The bytes of a path of the standard library.
#[must_use]
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Bytes as a path of the standard library.
#[must_use]
pub fn from_bytes(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_compares_components() {
        assert!(is_within(b"/a/b/c", b"/a/b"));
        assert!(is_within(b"/a/b", b"/a//b/"));
        assert!(is_within(b"/a", b"/"));
        assert!(!is_within(b"/a/bc", b"/a/b"));
        assert!(!is_within(b"/a", b"/a/b"));
    }

    #[test]
    fn hostile_names_are_made_harmless() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(hex_if_not_utf8(b"\xff"), Some("ff".into()));
        assert_eq!(hex_if_not_utf8(b"ok"), None);
        assert!(!is_name(b"..") && !is_name(b"a/b") && !is_name(b"") && is_name(b"\xff"));
    }
}
