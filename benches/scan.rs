//! A read of an unchanged tree with a warm scan cache, and the second look; beside it a plain walk
//! by one thread: `getdents` and `statx`, nothing else.

mod common;
#[path = "common/repository.rs"]
mod repository;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use cabk::host::clock::{Clock, SystemClock};
use common::{Table, Work, scratch, sized, text, time};
use repository::Reads;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxFlags, openat, statx};

/// Files of one directory.
const PER_DIR: u64 = 50;

/// As an unpacked application has them: small files in many directories.
fn make_tree(root: &Path, files: u64) {
    let words = text(64 << 10, 1);
    for n in 0..files {
        let dir = root.join(format!("{}/{}", n / PER_DIR / 40, n / PER_DIR));
        if n % PER_DIR == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        let from = (n as usize * 97) % (48 << 10);
        let len = 200 + (n as usize * 131) % 4_000;
        fs::write(dir.join(format!("file-{n}.js")), &words[from..from + len]).unwrap();
    }
}

/// One `getdents` a directory and one `statx` a name, by one thread.
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

fn main() {
    let files = sized(50_000, 1_000_000);
    let dir = scratch();
    let tree = dir.path().join("tree");
    let (made, ()) = time(|| make_tree(&tree, files));
    println!("\nscan, {files} files; making them took {:.1} s", made.wall.as_secs_f64());
    // Times must be older than the clock's grain to be believed.
    SystemClock.sleep(Duration::from_millis(100));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut reads = Reads::new(repository::make(dir.path()), &tree, threads);
    let (first, forest) = time(|| reads.read(true));
    println!("  the first read, which keeps all: {:.1} s", first.wall.as_secs_f64());
    assert_eq!(forest.seen.files_new, files);

    let mut table = Table::new(&format!("an unchanged tree, {threads} threads"));
    let work = Work::Items(files);
    table.floor("getdents and statx, one thread", work, || {
        assert!(walk(&open(CWD, &tree)) > files);
    });
    table.line("read with a warm scan cache", work, || {
        let forest = reads.read(false);
        assert_eq!((forest.seen.files, forest.seen.bytes_read), (files, 0));
    });
    table.line("look again", work, || assert!(reads.look_again(&forest).is_same()));
    table.line("both, as a snapshot does", work, || {
        let forest = reads.read(false);
        assert!(reads.look_again(&forest).is_same());
    });
}
