//! The file system of the tests' own is what the other tests take it for.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::fuse::{Op, Options};
use crate::two_views;

#[test]
fn everything_is_passed_to_the_directory_below() {
    let Some(views) = two_views(&Options::default()) else { return };
    let (a, below) = (&views.a, &views.below);
    std::fs::create_dir(a.path("dir")).unwrap();
    std::fs::write(a.path("dir/file"), "content").unwrap();
    std::fs::rename(a.path("dir/file"), a.path("dir/renamed")).unwrap();
    std::fs::hard_link(a.path("dir/renamed"), a.path("hard")).unwrap();
    symlink("dir/renamed", a.path("soft")).unwrap();
    std::fs::set_permissions(a.path("hard"), PermissionsExt::from_mode(0o640)).unwrap();
    let later = std::fs::OpenOptions::new().append(true).open(a.path("hard")).unwrap();
    std::io::Write::write_all(&mut &later, b" and more").unwrap();
    drop(later);
    assert_eq!(std::fs::read_to_string(below.join("dir/renamed")).unwrap(), "content and more");
    assert_eq!(std::fs::read_to_string(a.path("soft")).unwrap(), "content and more");
    let (ours, theirs) =
        (a.path("hard").metadata().unwrap(), below.join("hard").metadata().unwrap());
    assert_eq!((ours.ino(), ours.nlink(), ours.mode()), (theirs.ino(), 2, 0o100_640));
    assert_eq!((ours.ctime(), ours.ctime_nsec()), (theirs.ctime(), theirs.ctime_nsec()));
    assert_eq!((ours.mtime(), ours.mtime_nsec()), (theirs.mtime(), theirs.mtime_nsec()));
    let many: Vec<String> = (0..3000).map(|n| format!("name-{n:04}")).collect();
    many.iter().for_each(|name| std::fs::write(below.join("dir").join(name), name).unwrap());
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(a.path("dir"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names().len(), many.len() + 1);
    std::fs::remove_file(a.path("dir/renamed")).unwrap();
    assert_eq!(names(), many);
    std::fs::remove_dir_all(a.path("dir")).unwrap();
    assert!(!below.join("dir").exists());
    std::fs::File::create(a.path("hard")).unwrap();
    assert_eq!(below.join("hard").metadata().unwrap().len(), 0);
}

#[test]
fn a_view_is_stale_until_it_is_forced_or_its_time_is_over() {
    let Some(views) = two_views(&Options::stale_for(Duration::from_secs(600))) else { return };
    let (a, b) = (&views.a, &views.b);
    std::fs::write(b.path("file"), "old").unwrap();
    assert_eq!(a.path("file").metadata().unwrap().len(), 3);
    std::fs::write(b.path("file"), "much newer").unwrap();
    assert_eq!(a.path("file").metadata().unwrap().len(), 3);
    let (flags, mask) = (AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS);
    let forced = rustix::fs::statx(CWD, a.path("file"), flags, mask).unwrap();
    assert_eq!(forced.stx_size, 10);
    assert_eq!(a.path("file").metadata().unwrap().len(), 10);
}

#[test]
fn a_hundred_slow_calls_take_no_longer_than_one() {
    let Some(views) = two_views(&Options::slow(Duration::from_millis(200))) else { return };
    let a = &views.a;
    for n in 0..100 {
        std::fs::write(views.below.join(format!("f{n}")), "x").unwrap();
    }
    a.calls();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..100 {
            scope.spawn(move || a.path(&format!("f{n}")).metadata().unwrap());
        }
    });
    let took = began.elapsed();
    assert_eq!(a.calls()[&Op::Lookup], 100);
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn calls_hang_and_fail_where_they_are_told_to() {
    let Some(views) = two_views(&Options::default()) else { return };
    let a = &views.a;
    std::fs::write(views.below.join("good"), "good").unwrap();
    std::fs::write(views.below.join("bad"), "bad").unwrap();
    std::fs::write(views.below.join("slow"), "slow").unwrap();
    a.fail(Op::Read, "bad");
    assert_eq!(std::fs::read(a.path("bad")).unwrap_err().raw_os_error(), Some(5));
    a.hang(Op::Read, "slow");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| std::fs::read_to_string(a.path("slow")).unwrap());
        while a.hanging() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(std::fs::read_to_string(a.path("good")).unwrap(), "good");
        assert!(!reader.is_finished());
        a.release();
        assert_eq!(reader.join().unwrap(), "slow");
    });
    assert_eq!(std::fs::read_to_string(a.path("bad")).unwrap(), "bad");
}
