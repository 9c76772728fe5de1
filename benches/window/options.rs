//! What the bench is asked for.

use std::path::PathBuf;

use crate::common::sized;

const HELP: &str = "\
cargo bench --bench window -- [OPTIONS]
  --files N          files of the tree (20,000; with CABK_BENCH_FULL=1 500,000)
  --changed N        files that change in each window's last moment (1,000)
  --rounds N         windows of each kind (5)
  --fs LIST          file systems of images, by commas (ext4,xfs,btrfs)
  --dir DIR          a directory there instead of images
  --processes N      idle processes of others (1,000)
  --descriptors N    descriptors of each (25)
  --freeze X         what cabk is told by --freeze
  --program FILE     another build of cabk, to compare
  --far              nothing but looks at a tree through a FUSE file system that adds 1 ms to each
                     metadata call
  --no-whole         no windows without events (through an overlay)
  --no-rsync         no rsync beside it
Images and copies lie in CABK_BENCH_DIR, else where temporary files do.";

/// Options.
pub(crate) struct Options {
    pub(crate) files: u64,
    pub(crate) changed: u64,
    pub(crate) rounds: usize,
    pub(crate) fs: Vec<String>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) processes: usize,
    pub(crate) descriptors: usize,
    pub(crate) freeze: Option<String>,
    pub(crate) program: PathBuf,
    pub(crate) far: bool,
    pub(crate) whole: bool,
    pub(crate) rsync: bool,
}

impl Options {
    /// Reads them; else what a person should know.
    pub(crate) fn read(words: &[String]) -> Result<Self, String> {
        let mut options = Self {
            files: sized(20_000, 500_000),
            changed: 1_000,
            rounds: 5,
            fs: ["ext4", "xfs", "btrfs"].map(str::to_owned).to_vec(),
            dir: None,
            processes: 1_000,
            descriptors: 25,
            freeze: None,
            program: env!("CARGO_BIN_EXE_cabk").into(),
            far: false,
            whole: true,
            rsync: true,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().ok_or_else(|| HELP.to_owned());
            match word.as_str() {
                // From cargo itself.
                "--bench" => {}
                "--files" => options.files = number(&value()?)?,
                "--changed" => options.changed = number(&value()?)?,
                "--rounds" => options.rounds = number(&value()?)?.max(1) as usize,
                "--fs" => options.fs = value()?.split(',').map(str::to_owned).collect(),
                "--dir" => {
                    options.dir = Some(value()?.into());
                    options.fs = vec!["directory".to_owned()];
                }
                "--processes" => options.processes = number(&value()?)? as usize,
                "--descriptors" => options.descriptors = number(&value()?)? as usize,
                "--freeze" => options.freeze = Some(value()?),
                "--program" => options.program = value()?.into(),
                "--far" => options.far = true,
                "--no-whole" => options.whole = false,
                "--no-rsync" => options.rsync = false,
                _ => return Err(HELP.to_owned()),
            }
        }
        Ok(options)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.replace([',', '_'], "").parse().map_err(|_| HELP.to_owned())
}
