//! The way to a directory that is looked at: its name, and the way to the one above.

use std::sync::Arc;

use crate::base::chain::Chain;
use crate::base::path::components;

/// The way from the top of the machine to a directory, with how many names lead to it.
#[derive(Clone)]
pub(super) struct Trail(Arc<Chain<usize>>);

impl Trail {
    /// Of a root.
    pub(super) fn root(path: &[u8]) -> Self {
        Self(Chain::root(path, components(path).count()))
    }

    /// Of a directory in this one.
    pub(super) fn below(&self, name: &[u8]) -> Self {
        Self(self.0.below(name, self.depth() + 1))
    }

    /// How many names lead to it.
    pub(super) fn depth(&self) -> usize {
        *self.0.own()
    }

    /// The names that lead here from the directory at this depth; none where it is that one.
    pub(super) fn way_from(&self, depth: usize) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::with_capacity(self.depth().saturating_sub(depth));
        let mut at = &self.0;
        while let Some(above) = at.above().filter(|_| *at.own() > depth) {
            names.push(at.name());
            at = above;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The absolute path.
    pub(super) fn path(&self) -> Vec<u8> {
        self.0.path()
    }

    /// The path of a name in it.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.0.path_of(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_two_depths_is_known() {
        let below = Trail::root(b"/srv/site").below(b"apps").below(b"1");
        assert_eq!((below.path(), below.depth()), (b"/srv/site/apps/1".to_vec(), 4));
        assert_eq!(below.way_from(2), b"apps/1");
        assert_eq!((below.way_from(3), below.way_from(4)), (b"1".to_vec(), Vec::new()));
        assert_eq!(Trail::root(b"/").below(b"etc").path_of(b"x"), b"/etc/x");
    }
}
