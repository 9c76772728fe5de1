//! Which paths of the snapshot are restored.

use std::collections::HashSet;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::RestoreError;
use super::left::Inode;
use crate::base::path::{components, from_bytes, is_within};
use crate::format::tree::Node;
use crate::host::fs::Stat;

/// Globs that know how many they are: one that means nothing is an error, not silence.
pub(super) fn globs(list: &[String]) -> Result<Option<Gitignore>, RestoreError> {
    if list.is_empty() {
        return Ok(None);
    }
    let mut builder = GitignoreBuilder::new("/");
    builder.allow_unclosed_class(false);
    for glob in list {
        let wrong = |why: String| {
            RestoreError::Usage(format!("the glob {glob:?} is not understood: {why}"))
        };
        builder.add_line(None, glob).map_err(|e| wrong(e.to_string()))?;
    }
    let built = builder
        .build()
        .map_err(|e| RestoreError::Usage(format!("globs are not understood: {e}")))?;
    if built.num_ignores() + built.num_whitelists() != list.len() as u64 {
        return Err(RestoreError::Usage("an empty glob, or one that is a comment".into()));
    }
    Ok(Some(built))
}

fn matches(globs: Option<&Gitignore>, path: &[u8], is_dir: bool) -> bool {
    globs.is_some_and(|g| matches!(g.matched(from_bytes(path), is_dir), Match::Ignore(_)))
}

/// What a path is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Is {
    /// No directory.
    Leaf,
    /// A directory of a source.
    Dir,
    /// A directory that only leads to sources.
    Way,
}

impl Is {
    /// Of an entry.
    pub(super) fn of(node: &Node) -> Self {
        match node {
            Node::Dir { partial: true, .. } => Self::Way,
            Node::Dir { .. } => Self::Dir,
            _ => Self::Leaf,
        }
    }
}

/// What happens to a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// Nothing: neither restored nor removed.
    Skip,
    /// Only what is chosen below it, and itself where that needs it.
    Descend,
    /// It and all below it.
    Take,
}

/// The choice.
pub(super) struct Select {
    include: Option<Gitignore>,
    exclude: Option<Gitignore>,
    /// What was left out when the snapshot was taken: it is no part of it, and so nothing that it
    /// could say is too much.
    recorded: Option<Gitignore>,
    /// Paths that are left alone with all below them.
    kept: Vec<Vec<u8>>,
    /// Directories that are left alone wherever they show.
    inodes: HashSet<Inode>,
    /// Directories above those.
    above: HashSet<Inode>,
    within: Vec<u8>,
}

impl Select {
    /// By globs, and only what is `within` a path; `kept` paths are never touched.
    pub(super) fn new(
        include: &[String],
        exclude: &[String],
        within: Vec<u8>,
        kept: Vec<Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        Ok(Self {
            include: globs(include)?,
            exclude: globs(exclude)?,
            recorded: None,
            kept,
            inodes: HashSet::new(),
            above: HashSet::new(),
            within,
        })
    }

    /// Leaves alone what the snapshot was told to leave out. A glob that this version does not
    /// understand has left nothing out that it could find.
    pub(super) fn with_recorded(mut self, excludes: &[String]) -> Self {
        let mut builder = GitignoreBuilder::new("/");
        for glob in excludes {
            let _ = builder.add_line(None, glob);
        }
        self.recorded = builder.build().ok().filter(|globs| !globs.is_empty());
        self
    }

    /// Leaves directories alone by what they are, and does not take away what holds them.
    pub(super) fn with_inodes(mut self, inodes: HashSet<Inode>, above: HashSet<Inode>) -> Self {
        (self.inodes, self.above) = (inodes, above);
        self
    }

    /// Whether anything is left alone because of what it is.
    pub(super) fn knows_inodes(&self) -> bool {
        !self.inodes.is_empty()
    }

    /// Whether a directory is left alone because of what it is.
    pub(super) fn keeps_inode(&self, stat: &Stat) -> bool {
        self.inodes.contains(&(stat.dev, stat.ino))
    }

    /// Whether a directory holds, somewhere below, what is left alone because of what it is.
    pub(super) fn keeps_below_inode(&self, stat: &Stat) -> bool {
        self.above.contains(&(stat.dev, stat.ino))
    }

    /// Whether every path below a taken directory is taken, so that none needs to be spelled out.
    pub(super) fn is_simple(&self) -> bool {
        self.exclude.is_none() && self.kept.is_empty()
    }

    /// Whether all of the snapshot is restored.
    pub(super) fn is_whole(&self) -> bool {
        self.include.is_none() && components(&self.within).next().is_none()
    }

    /// What happens to an absolute path; `taken` says whether the directory above it is taken.
    pub(super) fn choose(&self, path: &[u8], is: Is, taken: bool) -> Choice {
        let is_dir = is != Is::Leaf;
        // What only leads to sources is no part of them: `tmp` excludes no source below `/tmp`.
        if is != Is::Way && self.is_kept(path, is_dir) {
            return Choice::Skip;
        }
        if taken {
            return Choice::Take;
        }
        let inside = is_within(path, &self.within);
        if inside && (self.include.is_none() || matches(self.include.as_ref(), path, is_dir)) {
            return Choice::Take;
        }
        let on_the_way = inside || is_within(&self.within, path);
        if is_dir && on_the_way { Choice::Descend } else { Choice::Skip }
    }

    /// Whether a path that only the target has is left alone whatever else is removed.
    pub(super) fn keeps_extra(&self, path: &[u8], is_dir: bool) -> bool {
        self.is_kept(path, is_dir) || matches(self.recorded.as_ref(), path, is_dir)
    }

    fn is_kept(&self, path: &[u8], is_dir: bool) -> bool {
        matches(self.exclude.as_ref(), path, is_dir)
            || self.kept.iter().any(|kept| is_within(path, kept))
    }

    /// Whether something that is left alone lies below a path, so that it cannot go as a whole.
    pub(super) fn keeps_below(&self, path: &[u8]) -> bool {
        self.kept.iter().any(|kept| is_within(kept, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn globs_choose_as_gitignore_does() {
        let select =
            Select::new(&texts(&["*.db", "/a/apps/"]), &texts(&["tmp"]), vec![], vec![]).unwrap();
        assert_eq!(select.choose(b"/a", Is::Dir, false), Choice::Descend);
        assert_eq!(select.choose(b"/a/x.db", Is::Leaf, false), Choice::Take);
        assert_eq!(select.choose(b"/a/apps", Is::Dir, false), Choice::Take);
        assert_eq!(select.choose(b"/b/apps", Is::Dir, false), Choice::Descend);
        assert_eq!(select.choose(b"/a/apps", Is::Leaf, false), Choice::Skip);
        assert_eq!(select.choose(b"/a/apps/x\xff", Is::Leaf, true), Choice::Take);
        assert_eq!(select.choose(b"/a/apps/tmp", Is::Dir, true), Choice::Skip);
        assert_eq!(select.choose(b"/tmp", Is::Dir, false), Choice::Skip);
        assert_eq!(select.choose(b"/tmp", Is::Way, false), Choice::Descend);
        assert!(!select.is_whole() && !select.is_simple());
        for wrong in ["", "# remark", "a["] {
            assert!(Select::new(&texts(&[wrong]), &[], vec![], vec![]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_subtree_and_what_is_kept() {
        let select = Select::new(&[], &[], b"/a/b".to_vec(), vec![b"/a/b/repo".to_vec()]).unwrap();
        assert_eq!(select.choose(b"/a", Is::Dir, false), Choice::Descend);
        assert_eq!(select.choose(b"/c", Is::Dir, false), Choice::Skip);
        assert_eq!(select.choose(b"/a/b", Is::Dir, false), Choice::Take);
        assert_eq!(select.choose(b"/a/b/repo", Is::Dir, true), Choice::Skip);
        assert!(select.keeps_extra(b"/a/b/repo/packs", true));
        let select = select.with_recorded(&texts(&["*.log"]));
        assert!(select.keeps_extra(b"/a/x.log", false));
        assert_eq!(select.choose(b"/a/b/x.log", Is::Leaf, true), Choice::Take);
        assert!(select.keeps_below(b"/a/b") && !select.keeps_below(b"/a/c"));
    }
}
