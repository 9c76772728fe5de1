//! The way to a directory that is looked at: its name, and the way to the one above.

use std::sync::Arc;

use crate::base::path::{components, join};

/// The way from the top of the machine to a directory, shared with all that lies below it. Whole
/// paths of all directories that are not complete would take the square of a tree's depth.
pub(super) struct Trail {
    above: Option<Arc<Trail>>,
    /// Its name; of a root its whole path.
    name: Box<[u8]>,
    depth: usize,
}

impl Trail {
    /// Of a root.
    pub(super) fn root(path: &[u8]) -> Arc<Self> {
        let depth = components(path).count();
        Arc::new(Self { above: None, name: path.into(), depth })
    }

    /// Of a directory in this one.
    pub(super) fn below(self: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self { above: Some(Arc::clone(self)), name: name.into(), depth: self.depth + 1 })
    }

    /// How many names lead to it.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The names that lead here from the directory at this depth; none where it is that one.
    pub(super) fn way_from(&self, depth: usize) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::with_capacity(self.depth.saturating_sub(depth));
        let mut at = self;
        while let Some(above) = at.above.as_ref().filter(|_| at.depth > depth) {
            names.push(&at.name);
            at = above;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The absolute path.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names: Vec<&[u8]> = vec![&self.name];
        let mut at = self;
        while let Some(above) = &at.above {
            names.push(&above.name);
            at = above;
        }
        let Some(root) = names.pop() else { return Vec::new() };
        let mut path = root.to_vec();
        path.reserve(names.iter().map(|name| name.len() + 1).sum());
        for name in names.into_iter().rev() {
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }

    /// The path of a name in it.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path(), name)
    }
}

impl Drop for Trail {
    /// One after the other: a chain as deep as a tree may be would overflow the stack.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut trail) = above.and_then(Arc::into_inner) {
            above = trail.above.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_out_as_they_went_in() {
        let root = Trail::root(b"/srv/site");
        let below = root.below(b"apps").below(b"1");
        assert_eq!((below.path(), below.depth()), (b"/srv/site/apps/1".to_vec(), 4));
        assert_eq!(below.way_from(2), b"apps/1");
        assert_eq!((below.way_from(3), below.way_from(4)), (b"1".to_vec(), Vec::new()));
        assert_eq!(Trail::root(b"/").below(b"etc").path_of(b"x"), b"/etc/x");
    }

    #[test]
    fn a_very_deep_one_is_let_go() {
        let mut trail = Trail::root(b"/");
        for _ in 0..1_000_000 {
            trail = trail.below(b"d");
        }
        assert_eq!(trail.depth(), 1_000_000);
    }
}
