//! The plainest walk: one `getdents` a directory and one `statx` a name, by one thread.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxFlags, openat, statx};

use crate::common::time;

/// What it takes, as often as asked.
pub(crate) fn stat(top: &Path, rounds: usize) -> Vec<Duration> {
    walk(&open(CWD, top));
    (0..rounds).map(|_| time(|| walk(&open(CWD, top))).0.wall).collect()
}

fn walk(dir: &OwnedFd) -> u64 {
    let mut seen = 0;
    for entry in Dir::read_from(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        std::hint::black_box(statx(dir.as_fd(), name, flags, mask).unwrap());
        seen += 1;
        if entry.file_type() == FileType::Directory {
            seen += walk(&open(dir, name));
        }
    }
    seen
}

fn open(dir: impl AsFd, name: impl rustix::path::Arg) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).unwrap()
}
