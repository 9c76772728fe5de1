//! A tree and what can happen to it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
    mknodat, renameat_with, setxattr, utimensat,
};

/// A tree that is read, and a directory beside it, on the same file system, that is not.
pub(crate) struct Place {
    pub(crate) top: PathBuf,
    outside: PathBuf,
}

impl Place {
    pub(crate) fn new(top: &Path) -> Self {
        let outside = top.with_file_name("outside");
        fs::create_dir_all(top).unwrap();
        fs::create_dir_all(&outside).unwrap();
        Self { top: top.to_owned(), outside }
    }

    fn all(&self, wanted: impl Fn(&walkdir::DirEntry) -> bool) -> Vec<PathBuf> {
        let walk = walkdir::WalkDir::new(&self.top).sort_by_file_name();
        let all = walk.into_iter().filter_map(Result::ok).filter(wanted);
        all.map(walkdir::DirEntry::into_path).collect()
    }

    fn file(&self, dice: &mut Dice) -> io::Result<PathBuf> {
        dice.of(self.all(|e| e.file_type().is_file()))
    }

    fn dir(&self, dice: &mut Dice) -> io::Result<PathBuf> {
        dice.of(self.all(|e| e.file_type().is_dir()))
    }

    /// A directory, but not the top, and with few below it.
    fn inner(&self, dice: &mut Dice) -> io::Result<PathBuf> {
        dice.of(self.all(|e| e.file_type().is_dir() && e.depth() > 1))
    }

    fn new_in(&self, dice: &mut Dice) -> io::Result<PathBuf> {
        Ok(self.dir(dice)?.join(format!("n{:x}", dice.next() % 1_000_000)))
    }

    fn new_outside(&self, dice: &mut Dice) -> PathBuf {
        self.outside.join(format!("o{:x}", dice.next()))
    }
}

/// Numbers from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn of(&mut self, mut all: Vec<PathBuf>) -> io::Result<PathBuf> {
        if all.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let at = self.below(all.len());
        Ok(all.swap_remove(at))
    }

    fn text(&mut self) -> String {
        format!("{:x}", self.next()).repeat(1 + self.below(300))
    }
}

/// Fills a place.
pub(crate) fn grow(place: &Place) {
    let at = |name: &str| place.top.join(name);
    for outer in ["a", "b", "c", "d", "e"] {
        for inner in ["a", "b", "c", "d", "e"] {
            fs::create_dir_all(at(outer).join(inner).join("deep/deeper")).unwrap();
            for name in ["one", "two", "three", "deep/four", "deep/deeper/five", "not.tmp"] {
                let path = at(outer).join(inner).join(name);
                fs::write(&path, format!("{outer} {inner} {name}").repeat(20)).unwrap();
            }
        }
    }
    fs::create_dir(at("empty")).unwrap();
    fs::hard_link(at("a/a/one"), at("b/b/linked")).unwrap();
    fs::hard_link(at("a/a/two"), place.outside.join("linked")).unwrap();
    symlink("one", at("c/c/symlink")).unwrap();
    fs::write(place.outside.join("file"), "outside").unwrap();
}

/// What can happen.
pub(crate) const KINDS: &[&str] = &[
    "create",
    "write",
    "append",
    "truncate",
    "chmod",
    "chown",
    "touch back",
    "xattr",
    "xattr of a directory",
    "chmod of a directory",
    "touch of a directory",
    "remove",
    "rename",
    "rename across",
    "rename over",
    "swap",
    "save by rename",
    "remove and make again",
    "move out",
    "move in",
    "make directories",
    "remove a directory",
    "rename a directory",
    "move a directory across",
    "move a directory out",
    "move a directory in",
    "a directory out and back",
    "empty directory again",
    "link inside",
    "link outside",
    "write through outside",
    "remove outside link",
    "symlink replaced",
    "special files",
    "made and removed",
    "directory made and removed",
    "file becomes directory",
    "directory becomes file",
    "open for writing only",
    "hole",
    "mapped",
    "excluded",
    "swap of directories",
    "outside only",
];

/// Lets something happen; false where that was not possible.
pub(crate) fn change(kind: &str, place: &Place, dice: &mut Dice) -> bool {
    let done = of_files(kind, place, dice)
        .or_else(|| of_names(kind, place, dice))
        .or_else(|| of_directories(kind, place, dice))
        .unwrap_or_else(|| of_others(kind, place, dice));
    done.is_ok()
}

fn of_files(kind: &str, place: &Place, dice: &mut Dice) -> Option<io::Result<()>> {
    let mut on = |act: &dyn Fn(&Path, &mut Dice) -> io::Result<()>| {
        let path = place.file(dice)?;
        act(&path, dice)
    };
    Some(match kind {
        "write" => on(&|path, dice| fs::write(path, dice.text())),
        "append" => on(&|path, dice| {
            OpenOptions::new().append(true).open(path)?.write_all(dice.text().as_bytes())
        }),
        "truncate" => on(&|path, _| OpenOptions::new().write(true).open(path)?.set_len(3)),
        "chmod" => on(&|path, dice| {
            fs::set_permissions(path, Permissions::from_mode(0o600 + dice.below(64) as u32))
        }),
        "chown" => on(&|path, dice| chown(path, Some(dice.below(50) as u32), Some(77))),
        "touch back" => on(&|path, dice| {
            let was = fs::metadata(path)?.modified()?;
            fs::write(path, dice.text())?;
            File::options().write(true).open(path)?.set_modified(was)
        }),
        "xattr" => on(&|path, dice| {
            let value = dice.text();
            let value = &value.as_bytes()[..value.len().min(60)];
            Ok(setxattr(path, "user.x", value, XattrFlags::empty())?)
        }),
        "open for writing only" => {
            on(&|path, _| OpenOptions::new().write(true).open(path).map(drop))
        }
        "hole" => on(&|path, _| {
            let file = OpenOptions::new().write(true).open(path)?;
            file.write_all_at(b"end", 1 << 20)?;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&file, flags, 0, 1 << 16)?)
        }),
        "mapped" => on(&|path, _| mapped(path)),
        "remove" => on(&|path, _| fs::remove_file(path)),
        "remove and make again" => on(&|path, dice| {
            fs::remove_file(path)?;
            fs::write(path, dice.text())
        }),
        "save by rename" => on(&|path, dice| {
            let beside = path.with_extension("saved");
            fs::write(&beside, dice.text())?;
            fs::rename(beside, path)
        }),
        _ => return None,
    })
}

/// Stores through a mapping, which the kernel tells of at the end only.
fn mapped(path: &Path) -> io::Result<()> {
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\n\
        m[0:1]=bytes([m[0]^255])\nm.close()\nf.close()\n";
    let done = Command::new("python3").args(["-c", script]).arg(path).output()?;
    if done.status.success() { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
}

fn of_names(kind: &str, place: &Place, dice: &mut Dice) -> Option<io::Result<()>> {
    let exchange = |a: &Path, b: &Path| -> io::Result<()> {
        Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
    };
    let done = |place: &Place, dice: &mut Dice| -> io::Result<()> {
        match kind {
            "create" => fs::write(place.new_in(dice)?, dice.text()),
            "excluded" => fs::write(place.new_in(dice)?.with_extension("tmp"), dice.text()),
            "rename" => {
                let path = place.file(dice)?;
                fs::rename(&path, path.with_extension("renamed"))
            }
            "rename across" => fs::rename(place.file(dice)?, place.new_in(dice)?),
            "rename over" => fs::rename(place.file(dice)?, place.file(dice)?),
            "swap" => exchange(&place.file(dice)?, &place.file(dice)?),
            "swap of directories" => exchange(&place.inner(dice)?, &place.inner(dice)?),
            "move out" => fs::rename(place.file(dice)?, place.new_outside(dice)),
            "move in" => {
                let from = place.new_outside(dice);
                fs::write(&from, dice.text())?;
                fs::rename(from, place.new_in(dice)?)
            }
            "link inside" => fs::hard_link(place.file(dice)?, place.new_in(dice)?),
            "link outside" => fs::hard_link(place.file(dice)?, place.new_outside(dice)),
            "write through outside" => {
                let outside = place.new_outside(dice);
                fs::hard_link(place.file(dice)?, &outside)?;
                fs::write(outside, dice.text())
            }
            "remove outside link" => {
                let outside = place.new_outside(dice);
                fs::hard_link(place.file(dice)?, &outside)?;
                fs::remove_file(outside)
            }
            "symlink replaced" => {
                let path = place.new_in(dice)?;
                symlink("somewhere", &path)?;
                fs::remove_file(&path)?;
                symlink(dice.text(), &path)
            }
            "made and removed" => {
                let path = place.new_in(dice)?;
                fs::write(&path, dice.text())?;
                fs::remove_file(path)
            }
            "outside only" => fs::write(place.outside.join("file"), dice.text()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    match done(place, dice) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => None,
        other => Some(other),
    }
}

fn fill(path: &Path, dice: &mut Dice) -> io::Result<()> {
    fs::create_dir_all(path.join("x/y/z"))?;
    fs::create_dir(path.join("w"))?;
    for name in ["f", "x/f", "x/y/f", "x/y/z/f"] {
        fs::write(path.join(name), dice.text())?;
    }
    Ok(())
}

fn of_directories(kind: &str, place: &Place, dice: &mut Dice) -> Option<io::Result<()>> {
    let done = |place: &Place, dice: &mut Dice| -> io::Result<()> {
        match kind {
            "make directories" => fill(&place.new_in(dice)?, dice),
            "remove a directory" => fs::remove_dir_all(place.inner(dice)?),
            "rename a directory" => {
                let path = place.inner(dice)?;
                fs::rename(&path, path.with_extension("renamed"))
            }
            "move a directory across" => fs::rename(place.inner(dice)?, place.new_in(dice)?),
            "move a directory out" => fs::rename(place.inner(dice)?, place.new_outside(dice)),
            "move a directory in" => {
                let from = place.new_outside(dice);
                fill(&from, dice)?;
                fs::rename(from, place.new_in(dice)?)
            }
            "a directory out and back" => {
                let (path, outside) = (place.inner(dice)?, place.new_outside(dice));
                fs::rename(&path, &outside)?;
                fs::write(outside.join("while it was away"), dice.text())?;
                fs::rename(outside, path)
            }
            "empty directory again" => {
                let path = place.new_in(dice)?;
                fs::create_dir(&path)?;
                fs::remove_dir(&path)?;
                fs::create_dir(&path)?;
                fs::remove_dir_all(place.top.join("empty"))
                    .and_then(|()| fs::create_dir(place.top.join("empty")))
            }
            "directory made and removed" => {
                let path = place.new_in(dice)?;
                fill(&path, dice)?;
                fs::remove_dir_all(path)
            }
            "file becomes directory" => {
                let path = place.file(dice)?;
                fs::remove_file(&path)?;
                fill(&path, dice)
            }
            "directory becomes file" => {
                let path = place.inner(dice)?;
                fs::remove_dir_all(&path)?;
                fs::write(path, dice.text())
            }
            "xattr of a directory" => {
                Ok(setxattr(place.dir(dice)?, "user.d", b"1", XattrFlags::empty())?)
            }
            "chmod of a directory" => {
                let mode = 0o700 + dice.below(64) as u32;
                fs::set_permissions(place.dir(dice)?, Permissions::from_mode(mode))
            }
            "touch of a directory" => {
                let time =
                    Timespec { tv_sec: 1_000_000_000 + dice.below(1_000) as i64, tv_nsec: 5 };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(utimensat(CWD, place.dir(dice)?, &times, AtFlags::empty())?)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    match done(place, dice) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => None,
        other => Some(other),
    }
}

fn of_others(kind: &str, place: &Place, dice: &mut Dice) -> io::Result<()> {
    assert_eq!(kind, "special files");
    let dir = place.dir(dice)?;
    let bits = Mode::from_raw_mode(0o640);
    for (name, kind) in [("fifo", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(CWD, dir.join(format!("{name}{:x}", dice.next())), kind, bits, 0)?;
    }
    Ok(())
}
