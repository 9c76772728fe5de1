//! Directories known by the chain of their names, each sharing what leads to it with its siblings.
//!
//! Whole paths of all directories that are at hand would take the square of a tree's depth, and a
//! tree may be deeper than the longest path that the kernel takes.

use std::sync::Arc;

use super::path::join;

/// A directory: its name, the one above, and what its user keeps with it.
#[derive(Debug)]
pub struct Chain<T> {
    above: Option<Arc<Chain<T>>>,
    /// Its name; of a root its whole path.
    name: Box<[u8]>,
    own: T,
}

impl<T> Chain<T> {
    /// A root by its path, which is taken as it is.
    #[must_use]
    pub fn root(path: &[u8], own: T) -> Arc<Self> {
        Arc::new(Self { above: None, name: path.into(), own })
    }

    /// A directory in this one.
    #[must_use]
    pub fn below(self: &Arc<Self>, name: &[u8], own: T) -> Arc<Self> {
        Arc::new(Self { above: Some(Arc::clone(self)), name: name.into(), own })
    }

    /// The directory above; none above a root.
    #[must_use]
    pub fn above(&self) -> Option<&Arc<Self>> {
        self.above.as_ref()
    }

    /// The name in the directory above; of a root its path.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What its user keeps with it.
    #[must_use]
    pub fn own(&self) -> &T {
        &self.own
    }

    /// The path: that of the root, and the names behind it.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(above) = &at.above {
            names.push(&at.name);
            at = above;
        }
        let mut path = at.name.to_vec();
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
    #[must_use]
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path(), name)
    }
}

impl<T> Drop for Chain<T> {
    /// One after the other: a chain as deep as a tree may be would overflow the stack.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut one) = above.and_then(Arc::into_inner) {
            above = one.above.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_out_as_they_went_in() {
        let root = Chain::root(b"/srv/site", ());
        let below = root.below(b"apps", ()).below(b"1", ());
        assert_eq!((below.path(), below.name()), (b"/srv/site/apps/1".to_vec(), &b"1"[..]));
        assert_eq!(below.above().unwrap().path(), b"/srv/site/apps");
        assert_eq!(Chain::root(b"/", ()).below(b"etc", ()).path_of(b"x"), b"/etc/x");
        assert_eq!(Chain::root(b"", ()).path(), b"");
    }

    #[test]
    fn a_very_deep_one_is_let_go() {
        let mut chain = Chain::root(b"/", 0);
        for depth in 1..=1_000_000 {
            chain = chain.below(b"d", depth);
        }
        assert_eq!(*chain.own(), 1_000_000);
    }
}
