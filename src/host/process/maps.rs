//! Mapped files of a process.
//!
//! A line of `maps` names the device of the superblock, which on btrfs is not the subvolume's that
//! `stat` gives, and on an overlay may be that of the layer below. There the file is looked at
//! itself, through `map_files` (root only) or through the path as the process sees it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

use super::{Device, Process, Scanner, UseKind, identity, look, open_dir};

/// One mapped file, with the first of its ranges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mapping<'a> {
    pub(super) range: &'a str,
    pub(super) writable: bool,
    pub(super) dev: Device,
    pub(super) ino: u64,
    pub(super) path: &'a [u8],
}

/// Reads a line of `maps`; `None` for memory without a file.
pub(super) fn parse_line(line: &[u8]) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let range = fields.next()?;
    let perms = fields.next()?;
    let _offset = fields.next()?;
    let dev = fields.next()?;
    let ino = fields.next()?;
    if ino == b"0" {
        return None;
    }
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let (major, minor) = std::str::from_utf8(dev).ok()?.split_once(':')?;
    Some(Mapping {
        range: std::str::from_utf8(range).ok()?,
        writable: perms.get(1) == Some(&b'w') && perms.get(3) == Some(&b's'),
        dev: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        ino: std::str::from_utf8(ino).ok()?.parse().ok()?,
        path,
    })
}

/// Whether a line of `maps` names the same device as `stat` for all of these: each is the device of
/// a mounted file system that is neither btrfs nor an overlay.
pub(super) fn tell_devices(devices: &HashSet<Device>) -> io::Result<bool> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(plain_devices(&text).is_superset(devices))
}

fn plain_devices(mountinfo: &[u8]) -> HashSet<Device> {
    let text = String::from_utf8_lossy(mountinfo);
    let plain = |line: &str| {
        let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
        let kind = line.split_once(" - ")?.1.split(' ').next()?;
        let dev = (major.parse().ok()?, minor.parse().ok()?);
        (kind != "btrfs" && kind != "overlay").then_some(dev)
    };
    text.lines().filter_map(plain).collect()
}

impl Scanner<'_> {
    /// Looks at the mappings of a process through one of its threads.
    pub(super) fn mappings(&self, task: BorrowedFd<'_>, process: &mut Process) {
        let text = match read(task) {
            Ok(text) => text,
            Err(error) => return process.shrug(error),
        };
        // A file has a mapping for each of its segments: it is looked at once.
        let mut files: HashMap<(Device, u64, &[u8]), usize> = HashMap::new();
        let mut unique: Vec<Mapping<'_>> = Vec::new();
        for mapping in text.split(|&b| b == b'\n').filter_map(parse_line) {
            if self.maps_tell_devices && !self.devices.contains(&mapping.dev) {
                continue;
            }
            let at = *files
                .entry((mapping.dev, mapping.ino, mapping.path))
                .or_insert_with(|| unique.len());
            match unique.get_mut(at) {
                Some(seen) => seen.writable |= mapping.writable,
                None => unique.push(mapping),
            }
        }
        for mapping in unique {
            let inode = if self.maps_tell_devices {
                (mapping.dev, mapping.ino)
            } else {
                self.true_inode(task, &mapping, process)
            };
            if !self.devices.contains(&inode.0) {
                continue;
            }
            let find = || self.trace_path(task, mapping.path, inode);
            if self.is_listed(inode) || self.remembered(inode, find) {
                let what = UseKind::Map { writable: mapping.writable };
                process.add(task, what, inode, mapping.path.to_vec());
            }
        }
    }

    /// The inode of a mapping as `stat` gives it. Where it cannot be found the line's is taken, and
    /// the process counts as not wholly readable.
    fn true_inode(
        &self,
        task: BorrowedFd<'_>,
        mapping: &Mapping<'_>,
        process: &mut Process,
    ) -> (Device, u64) {
        let link = format!("map_files/{}", mapping.range);
        if let Ok(stat) = look(task, link.as_str(), AtFlags::empty()) {
            return identity(&stat);
        }
        if let Some(inode) = through_path(task, mapping.path)
            && inode.1 == mapping.ino
        {
            return inode;
        }
        // A device with a number of its own is no btrfs subvolume; anonymous ones have major 0.
        if mapping.dev.0 == 0 && !mapping.path.starts_with(b"/memfd:") {
            process.unreadable = true;
        }
        (mapping.dev, mapping.ino)
    }
}

fn through_path(task: BorrowedFd<'_>, path: &[u8]) -> Option<(Device, u64)> {
    let root = open_dir(task, "root").ok()?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()?;
    look(file, "", AtFlags::EMPTY_PATH).ok().map(|stat| identity(&stat))
}

fn read(task: BorrowedFd<'_>) -> rustix::io::Result<Vec<u8>> {
    super::text::read(task, "maps")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let line = b"7f00-7f10 rw-s 00000000 fd:0a 8650756                    /a b/c (deleted)";
        let mapping = parse_line(line).unwrap();
        assert_eq!((mapping.dev, mapping.ino, mapping.writable), ((253, 10), 8_650_756, true));
        assert_eq!((mapping.range, mapping.path), ("7f00-7f10", &b"/a b/c (deleted)"[..]));
        let private = b"7f00-7f10 rw-p 00000000 00:2f 12 /x";
        assert!(!parse_line(private).unwrap().writable);
        assert!(parse_line(b"7f00-7f10 rw-p 00000000 00:00 0    [heap]").is_none());
        assert!(parse_line(b"").is_none() && parse_line(b"\xff \xff \xff \xff \xff").is_none());
    }

    #[test]
    fn btrfs_and_overlays_are_not_plain() {
        let info = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            23 22 0:44 /sub /data rw shared:2 - btrfs /dev/sdb rw\n\
            24 22 0:50 / /o rw - overlay overlay rw\n\
            25 22 0:25 / /t\\040t rw - tmpfs tmpfs rw\nnonsense\n";
        assert_eq!(plain_devices(info), HashSet::from([(8, 1), (0, 25)]));
    }
}
