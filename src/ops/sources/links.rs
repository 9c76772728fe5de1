//! Following a source's path, symbolic link by symbolic link.

use std::collections::VecDeque;
use std::io;

use crate::base::path::{bytes, components, from_bytes, join};

/// Symbolic links that one path may pass through, as the kernel has it.
const LINKS_MAX: usize = 40;

/// Where a path leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Followed {
    /// The path without symbolic links.
    pub(super) canonical: Vec<u8>,
    /// Every link met on the way, as the path of the link itself without links above it.
    pub(super) links: Vec<Vec<u8>>,
}

/// Follows an absolute path, component by component.
///
/// # Errors
/// What the operating system says; too many links; `NotFound` also for a link to nothing.
pub(super) fn follow(path: &[u8]) -> io::Result<Followed> {
    let mut ahead: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
    let mut at: Vec<u8> = b"/".to_vec();
    let mut links = Vec::new();
    while let Some(name) = ahead.pop_front() {
        if name == b".." {
            at = parent(&at);
            continue;
        }
        let next = join(&at, &name);
        let found = from_bytes(&next).symlink_metadata()?;
        if !found.file_type().is_symlink() {
            at = next;
            continue;
        }
        if links.len() == LINKS_MAX {
            return Err(io::Error::from(rustix::io::Errno::LOOP));
        }
        let target = std::fs::read_link(from_bytes(&next))?;
        let target = bytes(&target);
        if target.starts_with(b"/") {
            at = b"/".to_vec();
        }
        for part in components(target).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(part.to_vec());
        }
        links.push(next);
    }
    Ok(Followed { canonical: at, links })
}

fn parent(path: &[u8]) -> Vec<u8> {
    match path.iter().rposition(|&b| b == b'/') {
        None | Some(0) => b"/".to_vec(),
        Some(at) => path[..at].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_dots_are_understood_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("real/inner")).unwrap();
        symlink("real", top.join("one")).unwrap();
        symlink(top.join("one/inner"), top.join("two")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        let path = |name: &str| bytes(&top.join(name)).to_vec();
        let found = follow(&path("two")).unwrap();
        assert_eq!(found.canonical, path("real/inner"));
        assert_eq!(found.links, [path("two"), path("one")]);
        // Above a link's target, not above the link.
        let found = follow(&path("two/../..")).unwrap();
        assert_eq!(found.canonical, bytes(&top));
        assert!(follow(&path("real")).unwrap().links.is_empty());
        assert!(follow(&path("loop")).is_err());
        assert_eq!(follow(&path("none/x")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
