//! The map of a file: data, unwritten extents, holes.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::host::fs::ioctl::{self, FiemapExtent};
use crate::host::fs::{Extent, ExtentKind, ExtentMap, Stat};

const LAST: u32 = 0x1;
const UNKNOWN: u32 = 0x2;
const DELALLOC: u32 = 0x4;
const UNWRITTEN: u32 = 0x800;
/// `XFS_SUPER_MAGIC`.
const XFS: u64 = 0x5846_5342;

/// Finds the map of an open regular file.
pub(super) fn map(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<ExtentMap> {
    if stat.size == 0 && stat.allocated == 0 {
        return Ok(ExtentMap { extents: Vec::new(), exact: true });
    }
    let mut batch = Vec::new();
    match ioctl::fiemap(fd, 0, false, &mut batch) {
        // Data all the way needs no writing back: nothing that is still in memory could change it.
        Ok(()) if all_data(&batch, stat.size) => {
            return Ok(ExtentMap { extents: vec![data(0, stat.size)], exact: true });
        }
        Ok(()) => {}
        Err(e) if ioctl::unsupported(&e) => return by_seeking(fd, stat.size),
        Err(e) => return Err(e),
    }
    by_fiemap(fd, stat.size)
}

const fn data(offset: u64, len: u64) -> Extent {
    Extent { offset, len, kind: ExtentKind::Data }
}

fn all_data(batch: &[FiemapExtent], size: u64) -> bool {
    let mut end = 0;
    for extent in batch {
        let odd = extent.flags & (UNKNOWN | DELALLOC | UNWRITTEN) != 0;
        if odd || extent.logical != end {
            return false;
        }
        end = end.saturating_add(extent.length);
    }
    size > 0 && end >= size && batch.last().is_some_and(|last| last.flags & LAST != 0)
}

fn by_fiemap(fd: BorrowedFd<'_>, size: u64) -> io::Result<ExtentMap> {
    let mut builder = Builder { extents: Vec::new(), size, beyond: None };
    let mut batch = Vec::new();
    let mut start = 0;
    let mut sync = true;
    loop {
        ioctl::fiemap(fd, start, sync, &mut batch)?;
        sync = false;
        let Some(last) = batch.last() else { break };
        let next = last.logical.checked_add(last.length).ok_or(Errno::OVERFLOW)?;
        for extent in &batch {
            builder.add(fd, extent)?;
        }
        if last.flags & LAST != 0 || next == u64::MAX {
            break;
        }
        if next <= start {
            return Err(Errno::IO.into());
        }
        start = next;
    }
    Ok(ExtentMap { extents: builder.extents, exact: true })
}

struct Builder {
    extents: Vec<Extent>,
    size: u64,
    /// Where the last block that holds content ends, and whether what is allocated behind it was
    /// asked for; found when first needed.
    beyond: Option<(u64, bool)>,
}

impl Builder {
    fn add(&mut self, fd: BorrowedFd<'_>, found: &FiemapExtent) -> io::Result<()> {
        let mut end = found.logical.checked_add(found.length).ok_or(Errno::OVERFLOW)?;
        let unwritten = found.flags & UNWRITTEN != 0;
        if end > self.size {
            let keep = unwritten && {
                let (content_end, asked) = self.beyond(fd)?;
                asked && end > content_end
            };
            if !keep {
                end = self.size;
            }
        }
        // An extent that grew while the map was read may come twice.
        let from = self.extents.last().map_or(0, |last| last.offset + last.len);
        let offset = found.logical.max(from);
        if offset >= end {
            return Ok(());
        }
        let kind = if unwritten { ExtentKind::Unwritten } else { ExtentKind::Data };
        match self.extents.last_mut() {
            Some(last) if last.kind == kind && from == offset => last.len += end - offset,
            _ => self.extents.push(Extent { offset, len: end - offset, kind }),
        }
        Ok(())
    }

    fn beyond(&mut self, fd: BorrowedFd<'_>) -> io::Result<(u64, bool)> {
        if let Some(known) = self.beyond {
            return Ok(known);
        }
        let fs = rustix::fs::fstatfs(fd)?;
        let block = u64::try_from(fs.f_bsize).unwrap_or(0).max(512);
        // XFS allocates behind the end on its own account too, and says by a flag who did it.
        let asked = !u64::try_from(fs.f_type).is_ok_and(|magic| magic == XFS)
            || ioctl::fsxattr(fd)?.xflags & ioctl::XFLAG_PREALLOC != 0;
        let content_end = self.size.checked_next_multiple_of(block).unwrap_or(u64::MAX);
        self.beyond = Some((content_end, asked));
        Ok((content_end, asked))
    }
}

fn by_seeking(fd: BorrowedFd<'_>, size: u64) -> io::Result<ExtentMap> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                extents = vec![data(0, size)];
                break;
            }
            Err(other) => return Err(other.into()),
        };
        let end = match rustix::fs::seek(fd, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            // The file shrank meanwhile.
            Err(Errno::NXIO) => size,
            Err(other) => return Err(other.into()),
        };
        if end <= at || start >= end {
            break;
        }
        extents.push(data(start, end - start));
        at = end;
    }
    Ok(ExtentMap { extents, exact: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn seeking_finds_holes_or_takes_all_for_data() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        let size = 16 << 20;
        file.set_len(size)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 8192], 8 << 20)?;
        let map = by_seeking(file.as_fd(), size)?;
        assert!(!map.exact);
        let covers = |at: u64| map.extents.iter().any(|e| e.offset <= at && at < e.offset + e.len);
        assert!(covers(8 << 20) && covers((8 << 20) + 8191));
        assert!(map.extents.windows(2).all(|w| w[0].offset + w[0].len <= w[1].offset));
        assert!(map.extents.iter().all(|e| e.offset + e.len <= size));
        Ok(())
    }
}
