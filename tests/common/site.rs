//! A small site whose service is a living process that writes into the data directory, run by
//! commands of the shell.

#![allow(dead_code, reason = "each file of tests uses its part")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::world::{Done, SITE, World, until};

/// Writes on in the data directory until it is told to end.
const TOY: &str = r#"cd /
exec 3>>"$1/data/log"
trap 'exec 3>&-; rm -f "$1/svc/pid"; exit 0' TERM
echo $$ >"$1/svc/pid.new" && mv "$1/svc/pid.new" "$1/svc/pid"
while [ -e "$1/svc" ]; do echo tick >&3; sleep 0.03; done
"#;

/// Fails where it is told to fail, waits where it is told to wait.
const STOP: &str = r#"svc=$1/svc; echo stop >>"$svc/calls"
[ -e "$svc/stuck" ] && { echo 'it does not listen' >&2; exit 1; }
while [ -e "$svc/hold-stop" ]; do sleep 0.02; done
[ -e "$svc/pid" ] && kill "$(cat "$svc/pid")"
while [ -e "$svc/pid" ]; do sleep 0.01; done
[ -e "$svc/after-stop" ] && sh "$svc/after-stop" "$1"
exit 0
"#;

const START: &str = r#"svc=$1/svc; echo "start $CABK_SITE $CABK_NODE $CABK_WAS" >>"$svc/calls"
[ -e "$svc/broken" ] && { echo 'it does not start' >&2; exit 1; }
while [ -e "$svc/hold-start" ]; do sleep 0.02; done
[ -e "$svc/pid" ] && kill -0 "$(cat "$svc/pid")" 2>/dev/null && exit 0
rm -f "$svc/busy"
setsid sh "$svc/toy" "$1" </dev/null >/dev/null 2>&1 &
while [ ! -e "$svc/pid" ]; do sleep 0.01; done
[ -e "$svc/after-start" ] && sh "$svc/after-start" "$1"
exit 0
"#;

const STATUS: &str = r#"svc=$1/svc
while [ -e "$svc/hold-status" ]; do touch "$svc/asked"; sleep 0.02; done
[ -e "$svc/pid" ] && kill -0 "$(cat "$svc/pid")" 2>/dev/null || exit 3
echo up
"#;

/// The site.
pub(crate) struct Site {
    pub(crate) world: World,
}

impl Site {
    /// A site whose service runs.
    pub(crate) fn new() -> Self {
        Self::of(World::new())
    }

    pub(crate) fn of(world: World) -> Self {
        let site = Self { world };
        site.gcfg("");
        for (name, text) in [("toy", TOY), ("stop", STOP), ("start", START), ("status", STATUS)] {
            site.put(&format!("svc/{name}"), text);
        }
        site.put("data/bundles/1/11.tar.gz", "no archive at all");
        site.put("data/apps/1/11/app.R", "library(shiny)\n");
        site.put("data/db/secret.key", "0123456789abcdef");
        let db = rusqlite::Connection::open(site.path("data/db/connect.db")).unwrap();
        db.execute_batch("create table t (n integer primary key, text)").unwrap();
        let all = db.unchecked_transaction().unwrap();
        for n in 0..500 {
            all.execute("insert into t values (?1, hex(randomblob(100)))", [n]).unwrap();
        }
        all.commit().unwrap();
        drop(db);
        site.script("start");
        assert!(site.runs());
        site
    }

    /// Writes the site's configuration.
    pub(crate) fn gcfg(&self, more: &str) {
        let data = self.path("data");
        self.put(
            "etc/connect.gcfg",
            &format!("[Server]\nAddress = http://toy\nDataDir = {}\n{more}", data.display()),
        );
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// Runs one of the service's scripts, as a person would.
    pub(crate) fn script(&self, name: &str) -> i32 {
        let mut command = Command::new("sh");
        command.arg(self.path("svc").join(name)).arg(self.world.top());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code().unwrap()
    }

    pub(crate) fn runs(&self) -> bool {
        self.script("status") == 0
    }

    /// What the scripts were called for, line by line.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("svc/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn command_line(&self, name: &str) -> String {
        format!("sh {} {}", self.path("svc").join(name).display(), self.world.top().display())
    }

    /// The options that name the site and its service.
    pub(crate) fn args(&self, more: &[&str]) -> Vec<String> {
        let mut args =
            vec!["--site".to_owned(), self.path("etc/connect.gcfg").display().to_string()];
        for name in ["stop", "start", "status"] {
            args.extend([format!("--{name}-command"), self.command_line(name)]);
        }
        if !more.contains(&"--wait-quiet") {
            args.extend(["--wait-quiet".to_owned(), "2s".to_owned()]);
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    pub(crate) fn snapshot(&self, more: &[&str]) -> Done {
        self.world.snapshot(&self.args(more))
    }

    /// The command of a snapshot with its output to be read.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = self.world.snapshot_command(&self.args(more));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Nothing is left of a window but what it committed.
    #[track_caller]
    pub(crate) fn is_in_order(&self) {
        until(10, "the service to run", || self.runs());
        assert!(!self.world.has_intent(), "an intent is left");
        assert_eq!(self.world.leases(), [""; 0]);
        self.world.look().read_all();
    }

    pub(crate) fn label() -> &'static str {
        SITE
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Its process ends by itself when its directory is gone, at the latest.
        if let Ok(pid) = std::fs::read_to_string(self.path("svc/pid")) {
            let _ = Command::new("sh").args(["-c", &format!("kill {}", pid.trim())]).status();
        }
    }
}
