//! Extended attributes, inode flags and project ids.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::base::limits;
use crate::host::fs::{Attributes, ioctl};

/// Bytes that a pair's lengths take at most where attributes are kept.
const PAIR_MAX: usize = 16;

/// How often a list that moved under the reader is read again.
const TRIES: u32 = 16;

/// Bytes of a list of names, the kernel's own bound.
const LIST_MAX: usize = 64 << 10;

/// Bytes of one value, the kernel's own bound.
const VALUE_MAX: usize = 64 << 10;

/// Where extended attributes hang.
#[derive(Clone, Copy)]
pub(in crate::host::fs) enum Holder<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in an open directory, whatever its kind: not followed, not opened.
    Named(&'a [u8]),
}

impl Holder<'_> {
    /// The names, each ended by a zero byte.
    fn list(self, buf: &mut [u8]) -> Result<&[u8], Errno> {
        let len = match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, &mut *buf),
            Self::Named(path) => rustix::fs::llistxattr(path, &mut *buf),
        }?;
        Ok(&buf[..len])
    }

    /// The names, sorted; none where the file system has no extended attributes.
    pub(in crate::host::fs) fn names(self) -> io::Result<Vec<Vec<u8>>> {
        let mut buf = vec![0; LIST_MAX];
        let list = match rustix::io::retry_on_intr(|| self.list(&mut buf).map(<[u8]>::len)) {
            Ok(len) => &buf[..len],
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
            Err(other) => return Err(other.into()),
        };
        let names = list.split(|&b| b == 0).filter(|name| !name.is_empty());
        let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn get(self, name: &[u8], buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buf),
            Self::Named(path) => rustix::fs::lgetxattr(path, name, buf),
        }
    }

    /// Sets or replaces one attribute.
    pub(in crate::host::fs) fn set(self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let flags = rustix::fs::XattrFlags::empty();
        Ok(match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
            Self::Named(path) => rustix::fs::lsetxattr(path, name, value, flags),
        }?)
    }

    /// Removes one attribute.
    pub(in crate::host::fs) fn remove(self, name: &[u8]) -> io::Result<()> {
        Ok(match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Named(path) => rustix::fs::lremovexattr(path, name),
        }?)
    }
}

/// The path by which calls that know no directory descriptor reach a name: short however deep the
/// directory lies.
pub(in crate::host::fs) fn path_of(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Reads the extended attributes into `found`; those that cannot be read are named there.
pub(in crate::host::fs) fn read(holder: Holder<'_>, found: &mut Attributes) -> io::Result<()> {
    let mut last = Errno::RANGE;
    for _ in 0..TRIES {
        found.xattrs.clear();
        found.unread.clear();
        match read_once(holder, found) {
            Ok(()) => return Ok(()),
            Err(moved @ (Errno::NODATA | Errno::RANGE | Errno::INTR)) => last = moved,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(other) => return Err(other.into()),
        }
    }
    // It moves faster than it can be read, or the file system lists what it does not have.
    found.xattrs.clear();
    found.unread.push(("extended attributes".to_owned(), io::Error::from(last).kind()));
    Ok(())
}

fn read_once(holder: Holder<'_>, found: &mut Attributes) -> Result<(), Errno> {
    let mut small = [0; 1024];
    let mut large;
    let names = match holder.list(&mut small) {
        Ok([]) => return Ok(()),
        Ok(names) => names,
        Err(Errno::RANGE) => {
            large = vec![0; LIST_MAX];
            holder.list(&mut large)?
        }
        Err(other) => return Err(other),
    };
    let mut buf = vec![0; 4096];
    let mut total = 0;
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let got = match holder.get(name, &mut buf) {
            Err(Errno::RANGE) if buf.len() < VALUE_MAX => {
                buf.resize(VALUE_MAX, 0);
                holder.get(name, &mut buf)
            }
            other => other,
        };
        match got {
            Ok(len) if total + name.len() + len + PAIR_MAX > limits::XATTR_TOTAL_MAX => {
                found.unread.push((
                    format!("extended attribute {}", String::from_utf8_lossy(name)),
                    io::ErrorKind::FileTooLarge,
                ));
            }
            Ok(len) => {
                total += name.len() + len + PAIR_MAX;
                found.xattrs.push((name.to_vec(), buf[..len].to_vec()));
            }
            Err(moved @ (Errno::NODATA | Errno::INTR)) => return Err(moved),
            Err(other) => found.unread.push((
                format!("extended attribute {}", String::from_utf8_lossy(name)),
                io::Error::from(other).kind(),
            )),
        }
    }
    found.xattrs.sort_unstable();
    Ok(())
}

/// All attributes of an open regular file or directory.
pub(super) fn of_open(fd: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    read(Holder::Open(fd), &mut found)?;
    match ioctl::flags(fd) {
        Ok(flags) => found.flags = Some(flags & ioctl::SETTABLE_FLAGS),
        Err(e) if ioctl::unsupported(&e) => return Ok(found),
        Err(e) => found.unread.push(("inode flags".to_owned(), e.kind())),
    }
    match ioctl::fsxattr(fd) {
        Ok(attributes) => found.project = Some(attributes.project).filter(|&id| id != 0),
        Err(e) if ioctl::unsupported(&e) => {}
        Err(e) => found.unread.push(("project id".to_owned(), e.kind())),
    }
    Ok(found)
}

/// The attributes of a name that cannot be opened: only extended ones.
pub(super) fn of_name(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    read(Holder::Named(&path_of(dir, name)), &mut found)?;
    Ok(found)
}
