//! What is to be read: outermost paths without symbolic links, what is left out, what is secret.

use std::path::PathBuf;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::base::path::{from_bytes, is_within};
use crate::format::pack::Class;

/// What cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A glob that has no meaning.
    #[error("the pattern {pattern:?} is not valid")]
    Glob {
        /// The glob.
        pattern: String,
        /// What is wrong with it.
        source: ignore::Error,
    },
}

/// What is read, by one run.
pub struct ReadPlan {
    /// Outermost absolute paths, none below another, no component of them a symbolic link (the
    /// last may be one: it is then kept as a link).
    pub roots: Vec<Vec<u8>>,
    /// Absolute paths whose content is secret: blocks of their own.
    pub secret: Vec<Vec<u8>>,
    /// Absolute paths that no pattern leaves out.
    pub protected: Vec<Vec<u8>>,
    /// Absolute paths that are left out whatever is said: the repository.
    pub left_out: Vec<Vec<u8>>,
    /// Directories whose bytes are counted, each on its own: the sources.
    pub counted: Vec<Vec<u8>>,
    /// Stay on the file systems of the roots.
    pub one_file_system: bool,
    patterns: Gitignore,
    given: Vec<String>,
}

impl ReadPlan {
    /// A plan for these roots; nested and repeated ones are read once.
    ///
    /// # Errors
    /// [`PlanError::Glob`].
    pub fn new(roots: Vec<Vec<u8>>, excludes: &[String]) -> Result<Self, PlanError> {
        let mut builder = GitignoreBuilder::new("/");
        for pattern in excludes {
            builder
                .add_line(None::<PathBuf>, pattern)
                .map_err(|source| PlanError::Glob { pattern: pattern.clone(), source })?;
        }
        let whole = || excludes.join(" ");
        let patterns =
            builder.build().map_err(|source| PlanError::Glob { pattern: whole(), source })?;
        Ok(Self {
            roots: outermost(roots),
            secret: Vec::new(),
            protected: Vec::new(),
            left_out: Vec::new(),
            counted: Vec::new(),
            one_file_system: false,
            patterns,
            given: excludes.to_vec(),
        })
    }

    /// The same plan for some of the roots.
    #[must_use]
    pub fn only(&self, roots: Vec<Vec<u8>>) -> Self {
        Self {
            roots,
            secret: self.secret.clone(),
            protected: self.protected.clone(),
            left_out: self.left_out.clone(),
            counted: self.counted.clone(),
            one_file_system: self.one_file_system,
            patterns: self.patterns.clone(),
            given: self.given.clone(),
        }
    }

    /// The patterns as they were given.
    #[must_use]
    pub fn excludes(&self) -> &[String] {
        &self.given
    }

    /// Whether anything directly in a directory could be left out: most directories need not ask for
    /// each of their names.
    #[must_use]
    pub fn may_leave_out_in(&self, dir: &[u8]) -> bool {
        !self.patterns.is_empty() || self.left_out.iter().any(|p| is_within(p, dir))
    }

    /// Whether a path is left out. Its parents have been asked before.
    #[must_use]
    pub fn leaves_out(&self, path: &[u8], is_dir: bool) -> bool {
        if self.left_out.iter().any(|p| is_within(path, p)) {
            return true;
        }
        if self.patterns.is_empty() || !self.patterns.matched(from_bytes(path), is_dir).is_ignore()
        {
            return false;
        }
        // What must not be left out keeps the directories that lead to it, too.
        !self.protected.iter().any(|p| is_within(path, p) || (is_dir && is_within(p, path)))
    }

    /// The class of a file's content, by its path alone.
    #[must_use]
    pub fn class(&self, path: &[u8]) -> Class {
        if self.secret.iter().any(|p| is_within(path, p)) { Class::Secret } else { Class::Data }
    }
}

/// Paths of which none lies below another, sorted.
#[must_use]
pub fn outermost(mut paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    paths.sort();
    paths.dedup();
    let mut out: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        if !out.iter().any(|p| is_within(&path, p)) {
            out.push(path);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_roots_are_read_once() {
        let paths = ["/a/b", "/a", "/a", "/ab", "/a/b/c"].map(|p| p.as_bytes().to_vec());
        assert_eq!(outermost(paths.to_vec()), [b"/a".to_vec(), b"/ab".to_vec()]);
    }

    #[test]
    fn patterns_work_like_gitignore_but_never_take_what_is_protected() {
        let globs = ["*.log".to_owned(), "/data/cache/".into(), "!keep.log".into(), "db".into()];
        let mut plan = ReadPlan::new(vec![b"/data".to_vec()], &globs).unwrap();
        plan.protected = vec![b"/data/db".to_vec()];
        plan.left_out = vec![b"/data/repo".to_vec()];
        assert!(plan.leaves_out(b"/data/x/y.log", false));
        assert!(!plan.leaves_out(b"/data/keep.log", false));
        assert!(plan.leaves_out(b"/data/cache", true));
        assert!(!plan.leaves_out(b"/data/cache", false), "a pattern for directories only");
        assert!(!plan.leaves_out(b"/data/db", true));
        assert!(!plan.leaves_out(b"/data/db/x.log", false));
        assert!(plan.leaves_out(b"/data/repo", true));
        assert!(ReadPlan::new(vec![], &["a{b".to_owned()]).is_err());
    }

    #[test]
    fn secrets_have_blocks_of_their_own() {
        let mut plan = ReadPlan::new(vec![b"/data".to_vec()], &[]).unwrap();
        plan.secret = vec![b"/etc/rstudio-connect".to_vec()];
        assert_eq!(plan.class(b"/etc/rstudio-connect/x.gcfg"), Class::Secret);
        assert_eq!(plan.class(b"/etc/rstudio-connect-2"), Class::Data);
    }
}
