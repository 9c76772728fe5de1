//! Hostile things in the place of a small file.

use super::*;

#[test]
fn a_file_is_read_up_to_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"12345").unwrap();
    assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
    let e = read_bounded(&path, 4).unwrap_err();
    assert!(matches!(e, ReadError::TooLong { found: 5, max: 4, .. }), "{e}");
}

#[test]
fn a_hundred_megabytes_are_refused_by_their_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let e = read_bounded(&path, crate::base::limits::SITE_FILE_MAX).unwrap_err();
    assert!(matches!(e, ReadError::TooLong { found, .. } if found == 100 << 20), "{e}");
}

#[test]
fn pipes_devices_and_directories_are_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    let text = |path: &Path| read_bounded(path, 10).unwrap_err().to_string();
    assert!(text(&pipe).ends_with("is a pipe, not a regular file"));
    assert!(text(Path::new("/dev/zero")).ends_with("is a device, not a regular file"));
    assert!(text(dir.path()).ends_with("is a directory, not a regular file"));
}

#[test]
fn a_file_whose_length_the_kernel_does_not_tell_is_bounded_too() {
    let e = read_bounded(Path::new("/proc/self/status"), 16).unwrap_err();
    assert!(matches!(e, ReadError::TooLong { found: 17, .. }), "{e}");
}

#[test]
fn missing_is_told_from_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    let e = read_bounded(&dir.path().join("none\n"), 10).unwrap_err();
    assert!(e.is_missing());
    assert!(!e.to_string().contains('\n'));
}

#[test]
fn paths_are_looked_up_below_a_root() {
    assert_eq!(below(Path::new("/"), b"/etc/x"), Path::new("/etc/x"));
    assert_eq!(below(Path::new("/r"), b"/etc//x/"), Path::new("/r/etc/x"));
}
