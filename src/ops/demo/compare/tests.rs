//! A tree is read into a repository in memory, copied by `cp`, and compared; then the copy is
//! changed in one way after the other, and each is told.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::base::time::Timestamp;
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::signal::Interrupt;
use crate::intake::forest::{ReadInput, read};
use crate::intake::plan::ReadPlan;
use crate::ops::progress::Silent;
use crate::store::accelerator::{Accelerator, Place};
use crate::store::cut::ChunkSizes;
use crate::store::repository::{InitOptions, init};
use crate::store::writer::{Writer, WriterOptions};

/// Reads a directory; a reader of what was written, and the root's entry, encoded.
fn kept(directory: &Path) -> (Reader, Vec<u8>) {
    let options = InitOptions {
        password: None,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to: None,
        now: Timestamp::EPOCH,
    };
    let backend = Arc::new(MemoryBackend::new());
    let repository = Arc::new(init(backend, Arc::new(SystemEntropy), &options).unwrap());
    let (accelerator, _) = Accelerator::open(&Place::Memory, repository.id()).unwrap();
    let accelerator = Arc::new(accelerator);
    let options = WriterOptions { level: 3, first: true, min_free: 0 };
    let clock = Arc::new(SystemClock);
    let shared = (Arc::clone(&repository), Arc::clone(&accelerator));
    let writer = Writer::new(shared.0, shared.1, options, clock).unwrap();
    let reader = Reader::new(repository, Arc::clone(&accelerator), 8 << 20);
    let plan = ReadPlan::new(vec![bytes(directory).to_vec()], &[]).unwrap();
    let forest = read(&ReadInput {
        manners: None,
        fs: &LinuxFs,
        plan: &plan,
        reader: &reader,
        writer: &writer,
        believed: &Default::default(),
        generation: accelerator.begin_generation().unwrap(),
        synced: Timestamp::EPOCH,
        unsynced: &[],
        sort: true,
        threads: 2,
        over: &|| false,
        interrupt: &Interrupt::manual(),
        progress: &Silent,
    })
    .unwrap();
    assert!(forest.seen.problems.is_empty(), "{:?}", forest.seen.problems);
    writer.finish().unwrap();
    let mut root = Vec::new();
    forest.root.encode(&mut root);
    (reader, root)
}

fn site() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().canonicalize().unwrap().join("site");
    std::fs::create_dir_all(site.join("sub/empty")).unwrap();
    let long: Vec<u8> = (0..300_000u32).map(|n| (n % 249) as u8).collect();
    std::fs::write(site.join("sub/long"), long).unwrap();
    let sparse = std::fs::File::create(site.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 1 << 20).unwrap();
    std::fs::write(site.join("one"), "one").unwrap();
    std::fs::hard_link(site.join("one"), site.join("two")).unwrap();
    symlink("sub/long", site.join("link")).unwrap();
    (dir, site)
}

/// Changes a file's content and nothing else that can be seen.
fn falsify(path: &Path) {
    let before = path.metadata().unwrap();
    let mut content = std::fs::read(path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    std::fs::write(path, content).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(path.metadata().unwrap().mtime_nsec(), before.mtime_nsec());
}

fn apart(copy: &Path) {
    let (one, two) = (copy.join("one"), copy.join("two"));
    let changed = one.metadata().unwrap().modified().unwrap();
    std::fs::remove_file(&two).unwrap();
    std::fs::copy(&one, &two).unwrap();
    std::fs::File::options().write(true).open(&two).unwrap().set_modified(changed).unwrap();
}

fn another_link(copy: &Path) {
    std::fs::remove_file(copy.join("link")).unwrap();
    symlink("elsewhere", copy.join("link")).unwrap();
}

#[test]
fn every_change_is_told() {
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 8] = [
        ("sub/long: other content", |copy| falsify(&copy.join("sub/long"))),
        ("sparse: other content", |copy| falsify(&copy.join("sparse"))),
        ("one: 4 bytes, not 3", |copy| std::fs::write(copy.join("one"), "four").unwrap()),
        ("sub/empty: mode 751, not", |copy| {
            let mode = std::fs::Permissions::from_mode(0o751);
            std::fs::set_permissions(copy.join("sub/empty"), mode).unwrap();
        }),
        ("sub/long: is not there", |copy| std::fs::remove_file(copy.join("sub/long")).unwrap()),
        ("sub/more: is there and not", |copy| std::fs::write(copy.join("sub/more"), "").unwrap()),
        ("two: is no hard link", apart),
        ("link: points elsewhere", another_link),
    ];
    let (_dir, site) = site();
    let target = tempfile::tempdir().unwrap();
    let (reader, root) = kept(&site);
    let copy = PathBuf::from(std::ffi::OsString::from(format!(
        "{}{}",
        target.path().display(),
        site.display()
    )));
    for (told, change) in [("", (|_| ()) as fn(&Path))].into_iter().chain(changes) {
        let mut cp = Command::new("cp");
        let relative = site.strip_prefix("/").unwrap();
        cp.args(["-a", "--parents"]).arg(relative).arg(target.path()).current_dir("/");
        assert!(cp.status().unwrap().success());
        change(&copy);
        let done = compare(&reader, &root, target.path(), &site).unwrap();
        let inside = |line: &&String| line.starts_with(site.to_str().unwrap());
        let lines: Vec<&String> = done.differences.iter().filter(inside).collect();
        if told.is_empty() {
            assert!(lines.is_empty(), "{lines:?}");
            assert_eq!((done.files, done.bytes), (4, 300_000 + (1 << 20) + 3 + 6));
        } else {
            let expected = format!("{}/{told}", site.display());
            assert!(lines.iter().any(|line| line.starts_with(&expected)), "{told}: {lines:?}");
        }
        let top = std::fs::read_dir(target.path()).unwrap().next().unwrap().unwrap();
        std::fs::remove_dir_all(top.path()).unwrap();
    }
}
