//! Where the tree lies: an image of a file system, or a directory that was named.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::options::Options;

/// A place for the tree; what was mounted for it is unmounted in the end.
pub(crate) struct Disk {
    at: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes one; `None`, and told, where that cannot be done here.
    pub(crate) fn make(options: &Options, fs: &str, scratch: &Path) -> Option<Self> {
        if let Some(dir) = &options.dir {
            let at = dir.join(format!("cabk-bench-{}", std::process::id()));
            std::fs::create_dir_all(&at).unwrap();
            return Some(Self { at, mounted: false });
        }
        let image = scratch.join("image");
        // Room for each file with its inode, and for journals; the image is as long as what it holds.
        let bytes = ((options.files * 16) << 10) + (2 << 30);
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let mut make = Command::new(format!("mkfs.{fs}"));
        make.arg("-q").arg(&image);
        if !done(&mut make) {
            println!("\n{fs}: mkfs.{fs} is not there");
            return None;
        }
        let at = scratch.join("disk");
        std::fs::create_dir(&at).unwrap();
        if !done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)) {
            println!("\n{fs}: an image cannot be mounted here");
            return None;
        }
        Some(Self { at, mounted: true })
    }

    /// Its top.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Who still stands in it is gone by then.
            done(Command::new("umount").arg("-l").arg(&self.at));
        } else {
            // What cannot be removed lies in a directory with a name of its own.
            let _ = std::fs::remove_dir_all(&self.at);
        }
    }
}

/// The same tree through an overlay, of which the kernel tells no events.
pub(crate) fn overlay(lower: &Path, scratch: &Path) -> Option<Disk> {
    let [upper, work, at] = ["upper", "work", "overlay"].map(|name| scratch.join(name));
    for dir in [&upper, &work, &at] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let (lower, upper, work) = (lower.display(), upper.display(), work.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&at);
    done(&mut mount).then_some(Disk { at, mounted: true })
}

fn done(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
