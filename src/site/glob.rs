//! Wildcards in the name of an environment file: `*`, `?` and `[...]` within one path component.

use std::path::Path;

use super::read::{ReadError, below, names};
use crate::base::path::{components, join};

/// Paths that one pattern can mean, at each of its levels.
pub(super) const MATCHES_MAX: usize = 10_000;

/// Why a pattern was not expanded.
pub(super) enum GlobError {
    /// It means more than [`MATCHES_MAX`] paths.
    TooMany,
    /// A directory could not be listed.
    Read(ReadError),
}

/// The existing paths that an absolute pattern means, in the order of their names.
pub(super) fn expand(root: &Path, pattern: &[u8]) -> Result<Vec<Vec<u8>>, GlobError> {
    let mut found: Vec<Vec<u8>> = vec![b"/".to_vec()];
    for part in components(pattern) {
        let mut next = Vec::new();
        for parent in &found {
            if !is_pattern(part) {
                next.push(join(parent, part));
                continue;
            }
            for name in names(root, parent).map_err(GlobError::Read)? {
                let hidden = name.starts_with(b".") && !part.starts_with(b".");
                if !hidden && matches(part, &name) {
                    next.push(join(parent, &name));
                }
                if next.len() > MATCHES_MAX {
                    return Err(GlobError::TooMany);
                }
            }
        }
        next.sort_unstable();
        found = next;
    }
    found.retain(|path| below(root, path).symlink_metadata().is_ok());
    Ok(found)
}

/// Whether a path has wildcards.
pub(super) fn is_pattern(path: &[u8]) -> bool {
    path.iter().any(|b| b"*?[".contains(b))
}

/// Whether a name is what a pattern without `/` means. Takes at most the product of both lengths:
/// only the last `*` is ever tried again.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
                continue;
            }
            Some(_) => {
                if let Some(width) = single(&pattern[p..], name[n]) {
                    p += width;
                    n += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((star, from)) = retry else { return false };
        retry = Some((star, from + 1));
        p = star + 1;
        n = from + 1;
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Bytes of the pattern's first element, where it means this byte.
fn single(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', next, ..] => (*next == byte).then_some(2),
        [b'[', set @ ..] => match bracket(set) {
            Some((negated, members, width)) => {
                (contains(members, byte) != negated).then_some(width + 1)
            }
            None => (byte == b'[').then_some(1),
        },
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    }
}

/// What stands between `[` and `]`: whether it is negated, its members, and bytes up to after `]`.
fn bracket(set: &[u8]) -> Option<(bool, &[u8], usize)> {
    let skip = usize::from(matches!(set.first(), Some(b'!' | b'^')));
    let close = set.iter().skip(skip + 1).position(|&b| b == b']')? + skip + 1;
    Some((skip == 1, &set[skip..close], close + 1))
}

fn contains(mut members: &[u8], byte: u8) -> bool {
    while let Some((&first, rest)) = members.split_first() {
        if let [b'-', last, after @ ..] = rest {
            if (first..=*last).contains(&byte) {
                return true;
            }
            members = after;
        } else {
            if first == byte {
                return true;
            }
            members = rest;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns() {
        for (pattern, name, want) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "", false),
            ("connect-[0-9]", "connect-7", true),
            ("[!a-c]x", "dx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = format!("{}c", "a*".repeat(120));
        assert!(!matches(pattern.as_bytes(), "a".repeat(250).as_bytes()));
    }

    #[test]
    fn patterns_expand_in_order() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/d")).unwrap();
        for name in ["b.env", "a.env", ".c.env", "x"] {
            std::fs::write(root.path().join("etc/d").join(name), b"").unwrap();
        }
        let found = |pattern: &[u8]| expand(root.path(), pattern).ok().unwrap();
        assert_eq!(found(b"/etc/*/*.env"), [b"/etc/d/a.env".to_vec(), b"/etc/d/b.env".to_vec()]);
        assert!(found(b"/none/*").is_empty());
    }
}
