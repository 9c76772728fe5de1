//! `discover`: what a site consists of, with the sizes that only a walk can tell.

use std::os::unix::fs::MetadataExt;

use walkdir::WalkDir;

use crate::base::path::{bytes, from_bytes};
use crate::base::progress::Progress;
use crate::host::signal::Interrupt;
use crate::intake::plan::ReadPlan;

use super::sources::Wanted;

/// A signal came while sizes were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Bytes and files below a source, as a snapshot would read them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// Bytes of regular files, holes left out; each name counts, links too.
    pub bytes: u64,
    /// Files of every kind, directories left out.
    pub files: u64,
    /// Names that could not be looked at.
    pub unreadable: u64,
}

/// The size of each source of `wanted`, in its order; `None` for a database or what is not there.
/// A source within another one is counted in both.
///
/// # Errors
/// [`Interrupted`].
pub fn sizes(
    wanted: &Wanted,
    interrupt: &Interrupt,
    progress: &dyn Progress,
) -> Result<Vec<Option<Size>>, Interrupted> {
    let plan = wanted.plan_of_what_is_there().ok();
    let mut sizes = Vec::with_capacity(wanted.sources.len());
    for source in &wanted.sources {
        if source.database.is_some() || !source.exists {
            sizes.push(None);
            continue;
        }
        sizes.push(Some(size(&source.path, plan.as_ref(), interrupt, progress)?));
    }
    Ok(sizes)
}

fn size(
    path: &[u8],
    plan: Option<&ReadPlan>,
    interrupt: &Interrupt,
    progress: &dyn Progress,
) -> Result<Size, Interrupted> {
    let one_file_system = plan.is_some_and(|plan| plan.one_file_system);
    let mut size = Size::default();
    let walk = WalkDir::new(from_bytes(path))
        .follow_root_links(false)
        .same_file_system(one_file_system)
        .into_iter();
    let kept = |entry: &walkdir::DirEntry| {
        let is_dir = entry.file_type().is_dir();
        plan.is_none_or(|plan| !plan.leaves_out(bytes(entry.path()), is_dir))
    };
    for entry in walk.filter_entry(kept) {
        if interrupt.is_set() {
            return Err(Interrupted);
        }
        let Ok(entry) = entry else {
            size.unreadable += 1;
            continue;
        };
        let kind = entry.file_type();
        if kind.is_dir() {
            continue;
        }
        size.files += 1;
        if !kind.is_file() {
            continue;
        }
        match entry.metadata() {
            Ok(meta) => {
                let allocated = meta.blocks().saturating_mul(512);
                let holes = meta.len() > 1 << 20 && allocated < meta.len();
                let counted = if holes { allocated } else { meta.len() };
                size.bytes = size.bytes.saturating_add(counted);
                progress.advance(1, counted);
            }
            Err(_) => size.unreadable += 1,
        }
    }
    Ok(size)
}
