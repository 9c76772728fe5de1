//! `discover`: what a site consists of, with the sizes that only a walk can tell.

use std::os::unix::fs::MetadataExt;

use walkdir::WalkDir;

use crate::base::path::{bytes, from_bytes};
use crate::base::progress::Progress;
use crate::host::clock::Clock;
use crate::host::signal::Interrupt;
use crate::intake::plan::ReadPlan;
use crate::window::visitor::Visitor;

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

/// What counting needs beside what is counted.
pub struct Around<'a> {
    /// Who counts, as windows of the site see it.
    pub visitor: &'a Visitor,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Signals.
    pub interrupt: &'a Interrupt,
    /// Where it is told how far it is.
    pub progress: &'a dyn Progress,
}

/// Names between two questions whether a window is about to open.
const ASK_EVERY: u64 = 64;

/// The size of each source of `wanted`, in its order; `None` for a database or what is not there.
/// A source within another one is counted in both. While a window of the site is open nothing is
/// counted and no directory is held open; the source that was being counted is begun again.
///
/// # Errors
/// [`Interrupted`].
pub fn sizes(wanted: &Wanted, around: &Around<'_>) -> Result<Vec<Option<Size>>, Interrupted> {
    let plan = wanted.plan_of_what_is_there().ok();
    let mut sizes = Vec::with_capacity(wanted.sources.len());
    for source in &wanted.sources {
        if source.database.is_some() || !source.exists {
            sizes.push(None);
            continue;
        }
        sizes.push(Some(size(&source.path, plan.as_ref(), around)?));
    }
    Ok(sizes)
}

fn size(path: &[u8], plan: Option<&ReadPlan>, around: &Around<'_>) -> Result<Size, Interrupted> {
    loop {
        // Directories are open only while no window of the site is.
        let entered = around.visitor.enter(around.clock, around.interrupt);
        let _inside = entered.ok_or(Interrupted)?;
        if let Some(size) = size_unless(path, plan, around)? {
            return Ok(size);
        }
    }
}

/// The size, unless a window opens meanwhile.
fn size_unless(
    path: &[u8],
    plan: Option<&ReadPlan>,
    around: &Around<'_>,
) -> Result<Option<Size>, Interrupted> {
    let one_file_system = plan.is_some_and(|plan| plan.one_file_system);
    let (mut size, mut looked) = (Size::default(), 0u64);
    let walk = WalkDir::new(from_bytes(path))
        .follow_root_links(false)
        .same_file_system(one_file_system)
        .into_iter();
    let kept = |entry: &walkdir::DirEntry| {
        let is_dir = entry.file_type().is_dir();
        plan.is_none_or(|plan| !plan.leaves_out(bytes(entry.path()), is_dir))
    };
    for entry in walk.filter_entry(kept) {
        if around.interrupt.is_set() {
            return Err(Interrupted);
        }
        looked += 1;
        if looked % ASK_EVERY == 0 && around.visitor.window_open() {
            return Ok(None);
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
                around.progress.advance(1, counted);
            }
            Err(_) => size.unreadable += 1,
        }
    }
    Ok(Some(size))
}
