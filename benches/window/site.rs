//! A service of three scripts, and the real program that stops it, reads and starts it.

use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::options::Options;

/// Its last deed before it is stopped is to change files.
const STOP: &str = r#"while read -r file; do echo changed >>"$file"; done <"$1/change"
rm -f "$1/running"
read -r used </proc/$PPID/stat; echo "$used" >"$1/used-before"
date +%s%N >"$1/stopped"
"#;
const START: &str = r#"date +%s%N >"$1/begun"
read -r used </proc/$PPID/stat; echo "$used" >"$1/used-after"
: >"$1/running"
"#;
const STATUS: &str = r#"[ -e "$1/running" ] || exit 3
"#;

/// The site, its repository and what cabk keeps.
pub(crate) struct Site {
    at: PathBuf,
    seen: PathBuf,
    /// Where the tree is changed, when that is not where it is seen.
    tree: PathBuf,
    freeze: Option<String>,
    program: PathBuf,
}

/// One window.
pub(crate) struct Window {
    /// From the end of the stop command to the begin of the start command.
    pub(crate) wall: Duration,
    /// What cabk used of the processors in that time; the kernel counts in hundredths of a second.
    pub(crate) cpu: Duration,
    /// Scans of processes.
    pub(crate) scans: Vec<Duration>,
    /// How it was proven that nothing moved.
    pub(crate) how: String,
}

impl Window {
    pub(crate) fn without_last_scan(&self) -> Duration {
        self.wall.saturating_sub(self.scans.last().copied().unwrap_or_default())
    }
}

impl Site {
    pub(crate) fn new(scratch: &Path, name: &str, tree: &Path, options: &Options) -> Self {
        let at = scratch.join(name);
        fs::create_dir(&at).unwrap();
        for (name, text) in [("stop", STOP), ("start", START), ("status", STATUS)] {
            fs::write(at.join(name), text).unwrap();
        }
        fs::write(at.join("running"), "").unwrap();
        fs::write(at.join("change"), "").unwrap();
        let (seen, tree, freeze) = (tree.to_owned(), tree.to_owned(), options.freeze.clone());
        let program = options.program.clone();
        let site = Self { at, seen, tree, freeze, program };
        assert!(site.cabk().args(["init", "--no-encryption"]).output().unwrap().status.success());
        site
    }

    /// The same tree, seen at another place; it is changed there, too.
    pub(crate) fn seen_at(mut self, place: &Path) -> Self {
        self.seen = place.to_owned();
        self
    }

    fn cabk(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_remove("CABK_CONFIG").env("CABK_STATE_DIR", self.at.join("state"));
        fs::write(self.at.join("cabk.toml"), "[repository]\nmin_free = \"0 MiB\"\n").unwrap();
        command.arg("--config").arg(self.at.join("cabk.toml"));
        command.arg("--cache-dir").arg(self.at.join("cache"));
        command.arg("--repo").arg(self.at.join("repository")).args(["--json", "-q"]);
        command
    }

    /// What changes in the last moment of the next windows.
    pub(crate) fn will_change(&self, paths: &[PathBuf]) {
        let mut list = Vec::new();
        for path in paths {
            let path = self.seen.join(path.strip_prefix(&self.tree).unwrap());
            list.extend_from_slice(path.as_os_str().as_bytes());
            list.push(b'\n');
        }
        fs::write(self.at.join("change"), list).unwrap();
    }

    /// A snapshot, and what its window took.
    pub(crate) fn window(&self, more: &[&str]) -> Window {
        let mut command = self.cabk();
        command.arg("snapshot").arg("--path").arg(&self.seen);
        command.args(["--site-name", "bench", "--allow-volatile-state"]);
        for name in ["stop", "start", "status"] {
            let script = self.at.join(name);
            let line = format!("exec sh {} {}", script.display(), self.at.display());
            command.arg(format!("--{name}-command")).arg(line);
        }
        if let Some(freeze) = &self.freeze {
            command.args(["--freeze", freeze]);
        }
        let output = command.args(more).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["kind"], "snapshot", "{json}");
        let at = |name: &str| self.read(name).trim().parse::<u64>().unwrap();
        let used = |name: &str| ticks(&self.read(name));
        Window {
            wall: Duration::from_nanos(at("begun").saturating_sub(at("stopped"))),
            cpu: Duration::from_millis(10 * (used("used-after") - used("used-before"))),
            scans: scans(&json),
            how: how(&json),
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at.join(name)).unwrap()
    }
}

/// Time of the processors in a line of `/proc/PID/stat`, in hundredths of a second.
fn ticks(stat: &str) -> u64 {
    let rest = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

fn details(json: &Value, check: &str) -> Vec<String> {
    let all = json["evidence"].as_array().unwrap().iter().filter(|e| e["check"] == check);
    all.map(|e| e["detail"].as_str().unwrap().to_owned()).collect()
}

/// What the evidence says of scans: `... processes in 80 and 90 ms`.
fn scans(json: &Value) -> Vec<Duration> {
    let mut found = Vec::new();
    for detail in details(json, "no-process-in-tree") {
        let Some((_, rest)) = detail.rsplit_once("looked at in ") else { continue };
        let words = rest.split([' ', ';']).filter_map(|word| word.parse().ok());
        found.extend(words.map(Duration::from_millis));
    }
    found
}

fn how(json: &Value) -> String {
    let mut text = String::new();
    for name in ["tree-unchanged", "no-process-in-tree"] {
        for detail in details(json, name) {
            write!(text, "[{detail}] ").unwrap();
        }
    }
    text
}
