//! The calls that no library wraps with what is needed here.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::decode::{HANDLE_MAX, Handle};

/// What is asked for: all that changes content, names or attributes.
const MASK: u64 = libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_DELETE_SELF
    | libc::FAN_MOVE_SELF
    | libc::FAN_ONDIR;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the caller got this descriptor from the kernel just now, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A group that reports handles instead of descriptors, without a limit of its queue. Kernels before
/// 5.17 do not name what is made or removed, only its directory.
pub(super) fn group() -> io::Result<OwnedFd> {
    let base =
        libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_UNLIMITED_QUEUE;
    let without_target = libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID;
    let init = |report| {
        let flags = (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC).cast_unsigned();
        // SAFETY: takes two numbers and gives a descriptor or an error.
        checked(unsafe { libc::fanotify_init(base | report, flags) })
    };
    match init(libc::FAN_REPORT_DFID_NAME_TARGET) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => init(without_target).map(owned),
        other => other.map(owned),
    }
}

/// Marks the whole file system on which an open directory lies.
pub(super) fn mark(group: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    // SAFETY: both descriptors are open for as long as they are borrowed; no path is given, which
    // means the directory itself.
    let done = unsafe {
        libc::fanotify_mark(group.as_raw_fd(), flags, MASK, dir.as_raw_fd(), std::ptr::null())
    };
    checked(done).map(drop)
}

/// `struct file_handle` with room for the longest.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    data: [u8; HANDLE_MAX],
}

/// Device and inode of what a handle names. `ESTALE` where it is gone.
pub(super) fn resolve(mount: BorrowedFd<'_>, handle: Handle<'_>) -> io::Result<((u32, u32), u64)> {
    let room = handle.bytes.len().min(HANDLE_MAX);
    let mut given = FileHandle { bytes: room as u32, kind: handle.kind, data: [0; HANDLE_MAX] };
    given.data[..room].copy_from_slice(&handle.bytes[..room]);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the pointer is to a structure laid out as the kernel's, with `bytes` of data behind
    // its head; it lives until the call returns.
    let opened = unsafe {
        let pointer = std::ptr::from_mut(&mut given).cast::<libc::file_handle>();
        libc::open_by_handle_at(mount.as_raw_fd(), pointer, flags)
    };
    let fd = owned(checked(opened)?);
    let found = rustix::fs::fstat(&fd)?;
    let dev = found.st_dev;
    Ok(((rustix::fs::major(dev), rustix::fs::minor(dev)), found.st_ino))
}

/// Waits until one of the groups has events, or until `end` is closed: then false.
pub(super) fn wait(groups: &[BorrowedFd<'_>], end: BorrowedFd<'_>) -> io::Result<bool> {
    let one =
        |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut all: Vec<libc::pollfd> = groups.iter().chain([&end]).map(one).collect();
    loop {
        // SAFETY: the pointer and the number are those of one vector, which lives on.
        let done = unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, -1) };
        match checked(done) {
            Ok(_) => return Ok(all.last().is_none_or(|last| last.revents == 0)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Mounts the top of a btrfs without giving it a place, and opens it: a mark is refused on what is
/// mounted as a subvolume.
pub(in crate::host) fn btrfs_top(device: &CStr, writable: bool) -> io::Result<OwnedFd> {
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    let call = |result: libc::c_long| {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
    };
    // SAFETY: the type's name ends with a zero.
    let opened = unsafe { libc::syscall(libc::SYS_fsopen, c"btrfs".as_ptr(), 1 as libc::c_uint) };
    let context = owned(call(opened)?);
    let set = |key: &CStr, value: &CStr| {
        // SAFETY: both strings end with a zero and outlive the call.
        let done = unsafe {
            let fd = context.as_raw_fd();
            libc::syscall(libc::SYS_fsconfig, fd, SET_STRING, key.as_ptr(), value.as_ptr(), 0)
        };
        call(done).map(drop)
    };
    set(c"source", device)?;
    set(c"subvolid", c"5")?;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) };
    call(made)?;
    const RDONLY: libc::c_uint = 1;
    let how = if writable { 0 } else { RDONLY };
    // SAFETY: takes a descriptor and two numbers.
    let mounted =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1 as libc::c_uint, how) };
    let mount = owned(call(mounted)?);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(mount.as_fd(), c".", flags, Mode::empty());
    top.map_err(|e: Errno| e.into())
}
