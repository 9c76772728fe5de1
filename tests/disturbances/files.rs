//! Changes of a tree.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown as chown_to, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, RenameFlags, Timespec, Timestamps,
    XattrFlags, mknodat, renameat_with, setxattr, utimensat,
};

use crate::kinds::{Acted, Undo};
use crate::place::Spot;

/// What was done to a path, which is what has to be named.
#[allow(clippy::unnecessary_wraps, reason = "as all acts are")]
fn to(path: &Path) -> Option<Acted> {
    Some(Acted { named: vec![path.display().to_string()], ..Acted::default() })
}

fn file(spot: &Spot<'_>) -> PathBuf {
    spot.dir.join("file")
}

fn opened(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

pub(crate) fn append(spot: &Spot<'_>) -> Option<Acted> {
    let mut open = OpenOptions::new().append(true).open(file(spot)).unwrap();
    open.write_all(b"more").unwrap();
    to(&file(spot))
}

pub(crate) fn touched_back(spot: &Spot<'_>) -> Option<Acted> {
    let was = fs::metadata(file(spot)).unwrap();
    opened(&file(spot)).write_all_at(b"X", 7).unwrap();
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(was.atime(), was.atime_nsec()),
        last_modification: time(was.mtime(), was.mtime_nsec()),
    };
    utimensat(CWD, file(spot), &times, AtFlags::empty()).unwrap();
    let now = fs::metadata(file(spot)).unwrap();
    assert_eq!((was.mtime_nsec(), was.len()), (now.mtime_nsec(), now.len()));
    to(&file(spot))
}

pub(crate) fn mapped(spot: &Spot<'_>) -> Option<Acted> {
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nf.close()\n\
                  m[0:1]=bytes([m[0]^255])\nm.close()\n";
    let done = Command::new("python3").args(["-c", script]).arg(file(spot)).output().ok()?;
    done.status.success().then_some(())?;
    to(&file(spot))
}

pub(crate) fn same_size(spot: &Spot<'_>) -> Option<Acted> {
    let open = opened(&file(spot));
    open.set_len(open.metadata().unwrap().len()).unwrap();
    to(&file(spot))
}

pub(crate) fn hole(spot: &Spot<'_>) -> Option<Acted> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(opened(&file(spot)), flags, 0, 4096).ok()?;
    to(&file(spot))
}

pub(crate) fn chmod(spot: &Spot<'_>) -> Option<Acted> {
    fs::set_permissions(file(spot), Permissions::from_mode(0o600)).unwrap();
    to(&file(spot))
}

pub(crate) fn chmod_and_back(spot: &Spot<'_>) -> Option<Acted> {
    let was = fs::metadata(file(spot)).unwrap().permissions();
    fs::set_permissions(file(spot), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(file(spot), was).unwrap();
    to(&file(spot))
}

pub(crate) fn chown(spot: &Spot<'_>) -> Option<Acted> {
    chown_to(file(spot), Some(12_345), None).unwrap();
    to(&file(spot))
}

pub(crate) fn xattr(spot: &Spot<'_>) -> Option<Acted> {
    setxattr(file(spot), "user.cabk", b"1", XattrFlags::empty()).ok()?;
    to(&file(spot))
}

pub(crate) fn xattr_of_directory(spot: &Spot<'_>) -> Option<Acted> {
    setxattr(spot.dir.join("sub"), "user.cabk", b"1", XattrFlags::empty()).ok()?;
    to(&spot.dir.join("sub"))
}

/// Another user may read it, by a list and not by the mode.
pub(crate) fn acl(spot: &Spot<'_>) -> Option<Acted> {
    const NOBODY: u32 = u32::MAX;
    let entries =
        [(1, 6, NOBODY), (2, 4, 12_345), (4, 4, NOBODY), (16, 4, NOBODY), (32, 4, NOBODY)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        value.extend_from_slice(&u16::to_le_bytes(tag));
        value.extend_from_slice(&u16::to_le_bytes(bits));
        value.extend_from_slice(&u32::to_le_bytes(id));
    }
    setxattr(file(spot), "system.posix_acl_access", &value, XattrFlags::empty()).ok()?;
    to(&file(spot))
}

pub(crate) fn flags(spot: &Spot<'_>) -> Option<Acted> {
    let open = File::open(file(spot)).unwrap();
    let was = rustix::fs::ioctl_getflags(&open).ok()?;
    rustix::fs::ioctl_setflags(&open, was | IFlags::NODUMP).ok()?;
    to(&file(spot))
}

pub(crate) fn directory_times(spot: &Spot<'_>) -> Option<Acted> {
    let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, spot.dir.join("sub"), &times, AtFlags::empty()).unwrap();
    to(&spot.dir.join("sub"))
}

pub(crate) fn rename(spot: &Spot<'_>) -> Option<Acted> {
    fs::rename(file(spot), spot.dir.join("renamed")).unwrap();
    to(&spot.dir)
}

pub(crate) fn rename_and_back(spot: &Spot<'_>) -> Option<Acted> {
    fs::rename(file(spot), spot.outside.join("away")).unwrap();
    fs::rename(spot.outside.join("away"), file(spot)).unwrap();
    to(&spot.dir)
}

pub(crate) fn save_by_rename(spot: &Spot<'_>) -> Option<Acted> {
    let beside = spot.outside.join("saved");
    fs::copy(file(spot), &beside).unwrap();
    fs::rename(beside, file(spot)).unwrap();
    to(&spot.dir)
}

pub(crate) fn exchange(spot: &Spot<'_>) -> Option<Acted> {
    renameat_with(CWD, file(spot), CWD, spot.dir.join("other"), RenameFlags::EXCHANGE).ok()?;
    to(&spot.dir)
}

pub(crate) fn create(spot: &Spot<'_>) -> Option<Acted> {
    fs::write(spot.dir.join("new"), "new").unwrap();
    to(&spot.dir)
}

pub(crate) fn create_and_delete(spot: &Spot<'_>) -> Option<Acted> {
    fs::write(spot.dir.join("new"), "new").unwrap();
    fs::remove_file(spot.dir.join("new")).unwrap();
    to(&spot.dir)
}

pub(crate) fn delete(spot: &Spot<'_>) -> Option<Acted> {
    fs::remove_file(file(spot)).unwrap();
    to(&spot.dir)
}

pub(crate) fn special(spot: &Spot<'_>) -> Option<Acted> {
    let bits = Mode::from_raw_mode(0o640);
    mknodat(CWD, spot.dir.join("fifo"), FileType::Fifo, bits, 0).unwrap();
    to(&spot.dir)
}

pub(crate) fn symlink_replaced(spot: &Spot<'_>) -> Option<Acted> {
    fs::remove_file(spot.dir.join("link")).unwrap();
    symlink("other", spot.dir.join("link")).unwrap();
    to(&spot.dir)
}

pub(crate) fn link_inside(spot: &Spot<'_>) -> Option<Acted> {
    fs::hard_link(file(spot), spot.dir.join("again")).unwrap();
    to(&spot.dir)
}

pub(crate) fn link_outside(spot: &Spot<'_>) -> Option<Acted> {
    fs::hard_link(file(spot), spot.outside.join("again")).unwrap();
    to(&file(spot))
}

pub(crate) fn link_removed(spot: &Spot<'_>) -> Option<Acted> {
    fs::remove_file(spot.outside.join("linked")).unwrap();
    to(&spot.dir.join("linked"))
}

pub(crate) fn write_through_link(spot: &Spot<'_>) -> Option<Acted> {
    opened(&spot.outside.join("linked")).write_all_at(b"X", 0).unwrap();
    to(&spot.dir.join("linked"))
}

/// Mounts something; it goes away with the window.
fn mounted(args: &[&str], at: &Path) -> Option<Acted> {
    let done = Command::new("mount").args(args).arg(at).output().ok()?;
    done.status.success().then_some(())?;
    let at = at.to_owned();
    let undo = move || {
        assert!(Command::new("umount").arg(at).status().unwrap().success());
    };
    Some(Acted { kept: Undo::by(undo), ..Acted::default() })
}

pub(crate) fn write_through_bind(spot: &Spot<'_>) -> Option<Acted> {
    let at = spot.outside.join("bound");
    fs::create_dir_all(&at).unwrap();
    let mut acted = mounted(&["--bind", spot.dir.to_str().unwrap()], &at)?;
    opened(&at.join("file")).write_all_at(b"X", 0).unwrap();
    acted.named.push(file(spot).display().to_string());
    Some(acted)
}

pub(crate) fn directory_in(spot: &Spot<'_>) -> Option<Acted> {
    fs::rename(spot.outside.join("moved"), spot.dir.join("moved")).unwrap();
    to(&spot.dir)
}

pub(crate) fn directory_out(spot: &Spot<'_>) -> Option<Acted> {
    fs::rename(spot.dir.join("sub"), spot.outside.join("sub")).unwrap();
    to(&spot.dir)
}

pub(crate) fn mount_inside(spot: &Spot<'_>) -> Option<Acted> {
    let mut acted = mounted(&["-t", "tmpfs", "none"], &spot.dir.join("sub"))?;
    acted.named.push(spot.dir.join("sub").display().to_string());
    Some(acted)
}

/// The whole of a source is another one.
pub(crate) fn root_exchanged(spot: &Spot<'_>) -> Option<Acted> {
    let (root, other) = (spot.site.path("extra"), spot.site.path("extra.other"));
    renameat_with(CWD, &root, CWD, &other, RenameFlags::EXCHANGE).ok()?;
    let named = vec![root.display().to_string()];
    let undo = move || renameat_with(CWD, root, CWD, other, RenameFlags::EXCHANGE).unwrap();
    Some(Acted { named, kept: Undo::by(undo) })
}

/// The gate's file is open, and nothing of it was read.
pub(crate) fn written_while_read(spot: &Spot<'_>) -> Option<Acted> {
    let gate = spot.site.path("zz/gate");
    opened(&gate).write_all_at(b"X", 0).unwrap();
    to(&gate)
}

pub(crate) fn outside_only(spot: &Spot<'_>) -> Option<Acted> {
    fs::write(spot.outside.join("file"), "outside").unwrap();
    to(&spot.outside)
}
