//! The outermost paths among the sources: what is read, each once.

use std::collections::BTreeSet;

use super::{Source, SourceKind};
use crate::base::path::{components, is_within};
use crate::site::resources::Role;

/// A path that is read once, with all that it and what lies in it is to the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The path.
    pub path: Vec<u8>,
    /// Roles of the path itself and of all sources in it, sorted.
    pub roles: Vec<Role>,
    /// Whether the path itself is one that holds secrets.
    pub secret: bool,
    /// The sources within it, sorted by path, each path once.
    pub inner: Vec<Inner>,
}

/// A source that lies within another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// The path.
    pub path: Vec<u8>,
    /// Its own roles, sorted.
    pub roles: Vec<Role>,
    /// Whether it holds secrets.
    pub secret: bool,
}

/// The outermost paths of the sources that are directories or files, sorted. Paths are compared
/// component by component as they are written: whoever wants symbolic links (or `..`) to be
/// understood resolves them in the sources before.
#[must_use]
pub fn merged_roots(sources: &[Source]) -> Vec<Root> {
    let readable = |s: &&Source| s.exists && matches!(s.kind, SourceKind::Dir | SourceKind::File);
    let mut paths: Vec<(&[u8], &Source)> = sources
        .iter()
        .filter(readable)
        .filter_map(|s| s.locator.path().map(|path| (path, s)))
        .collect();
    // By components, so that everything within a path follows it at once.
    paths.sort_by(|(one, _), (other, _)| components(one).cmp(components(other)));
    let mut roots: Vec<Root> = Vec::new();
    for (path, source) in paths {
        let root = match roots.last_mut() {
            Some(root) if is_within(path, &root.path) => root,
            _ => {
                roots.push(Root {
                    path: path.to_vec(),
                    roles: Vec::new(),
                    secret: false,
                    inner: Vec::new(),
                });
                let Some(root) = roots.last_mut() else { continue };
                root
            }
        };
        add_roles(&mut root.roles, &source.roles);
        if is_within(&root.path, path) {
            root.secret |= source.secret;
            continue;
        }
        match root.inner.last_mut() {
            Some(inner) if components(&inner.path).eq(components(path)) => {
                add_roles(&mut inner.roles, &source.roles);
                inner.secret |= source.secret;
            }
            _ => root.inner.push(Inner {
                path: path.to_vec(),
                roles: sorted(&source.roles),
                secret: source.secret,
            }),
        }
    }
    roots
}

fn sorted(roles: &[Role]) -> Vec<Role> {
    roles.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn add_roles(to: &mut Vec<Role>, roles: &[Role]) {
    to.extend(roles);
    to.sort_unstable();
    to.dedup();
}
