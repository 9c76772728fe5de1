//! A tree of many small files in directories of a hundred, as unpacked applications have them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::common::text;
use crate::options::Options;

const PER_DIR: u64 = 100;
const PER_OUTER: u64 = 100;

/// The tree.
pub(crate) struct Tree {
    pub(crate) top: PathBuf,
    pub(crate) dirs: u64,
    files: u64,
}

impl Tree {
    /// Makes it below a place.
    pub(crate) fn make(place: &Path, options: &Options) -> Self {
        let tree = Self {
            top: place.join("tree"),
            dirs: options.files.div_ceil(PER_DIR) + options.files.div_ceil(PER_DIR * PER_OUTER) + 1,
            files: options.files,
        };
        let words = text(1 << 20, 1);
        for number in 0..options.files {
            let path = tree.path(number);
            if number % PER_DIR == 0 {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            let from = (number as usize * 97) % (1 << 19);
            let len = 200 + (number as usize * 131) % 4_000;
            let mut content = format!("{number}\n").into_bytes();
            content.extend_from_slice(&words[from..from + len]);
            fs::write(path, content).unwrap();
        }
        tree
    }

    fn path(&self, number: u64) -> PathBuf {
        let dir = number / PER_DIR;
        self.top.join(format!("{:03}/{:02}/file-{number}.js", dir / PER_OUTER, dir % PER_OUTER))
    }

    /// Files, chosen at random and the same for a seed; each but a few in a directory of its own.
    pub(crate) fn some(&self, count: u64, seed: u64) -> Vec<PathBuf> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut numbers = Vec::new();
        for _ in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            numbers.push((state >> 20) % self.files);
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| self.path(number)).collect()
    }
}

/// Changes a file.
pub(crate) fn append(path: &Path) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"changed\n").unwrap();
}
