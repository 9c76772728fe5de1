//! Good manners while the service lives, what an operator sees, and whether the service is well.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::Site;
use crate::world::{Done, World, until};

/// The JSON lines on stderr under this name.
fn lines(done: &Done, name: &str) -> Vec<Value> {
    let all = done.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter_map(|line| line.get(name).cloned()).collect()
}

#[test]
fn the_rate_bounds_what_is_read_ahead_and_not_the_window() {
    let site = Site::new();
    site.put("data/apps/1/11/large", &"0123456789abcdef".repeat(16 << 10));
    let began = Instant::now();
    let done = site.snapshot(&["--max-read-rate", "128 KiB/s"]).expect(0);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2), "a quarter of a MiB took {took:?}");
    let down = done.json["window"]["downtime_ms"].as_u64().unwrap();
    assert!(down < 1500, "the window is not slowed: {down} ms");
    // Nothing is read ahead: nothing is slowed.
    site.put("data/apps/1/11/other", &"fedcba9876543210".repeat(16 << 10));
    let again = site.snapshot(&["--max-read-rate", "16 KiB", "--precopy", "never"]).expect(0);
    assert!(
        again.json["summary"]["duration_ms"].as_u64().unwrap() < 10_000,
        "{again:?}",
        again = again.json["summary"]
    );
    let wrong = site.snapshot(&["--max-read-rate", "0"]).expect(2);
    assert!(wrong.stderr.contains("never end"), "{}", wrong.stderr);
}

#[test]
fn only_reading_ahead_is_idle() {
    let site = Site::new();
    let top = site.world.top();
    // Looks at the threads of its parent: of cabk itself while it reads ahead, and in the window.
    let look = format!(
        "for t in /proc/$PPID/task/*; do sed 's/.*) //' $t/stat | cut -d' ' -f17; done >>{}/$1",
        top.display()
    );
    site.put("svc/after-stop", "");
    site.put("look", &look);
    for (mode, expected) in [("auto", true), ("none", false)] {
        site.put("data/apps/1/11/large", &format!("{mode}0123456789abcd").repeat(16 << 10));
        let mut command = site.command(&["--nice", mode, "--max-read-rate", "256 KiB"]);
        let mut child = command.spawn().unwrap();
        let idle = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id()));
            tasks.into_iter().flatten().flatten().any(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                rest.split(' ').nth(16) == Some("10")
            })
        };
        let (mut seen, began) = (false, Instant::now());
        while !seen && began.elapsed() < Duration::from_millis(900) {
            seen = idle();
        }
        assert_eq!(seen, expected, "--nice {mode}");
        let output = child.wait_with_output_of();
        assert_eq!(output, Some(0));
    }
}

trait Ended {
    fn wait_with_output_of(&mut self) -> Option<i32>;
}

impl Ended for std::process::Child {
    /// Reads what it says, so that it can end, and gives its code.
    fn wait_with_output_of(&mut self) -> Option<i32> {
        let mut said = String::new();
        self.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        self.wait().unwrap().code()
    }
}

#[test]
fn announce_is_told_before_and_after_and_its_failure_is_a_warning() {
    let site = Site::new();
    let log = site.path("announced");
    let hook = format!(
        "echo \"$CABK_EVENT $CABK_SITE ${{CABK_KIND-unset}} ${{CABK_EXIT-unset}} \
         ${{CABK_DOWNTIME_MS:+down}} ${{CABK_PASSWORD-none}} ${{CABK_ID-unset}}\" >>{0}; \
         cat {1}/pid >/dev/null && echo runs >>{0}",
        log.display(),
        site.path("svc").display()
    );
    let done = site.snapshot(&["--announce", &hook]).expect(0);
    let told = std::fs::read_to_string(&log).unwrap();
    let label = Site::label();
    let expected = format!(
        "announce-before {label} unset unset  none unset\nruns\n\
         announce-after {label} snapshot 0 down none {}\nruns\n",
        done.id()
    );
    assert_eq!(told, expected);
    // A run that is refused before it reads tells nobody.
    std::fs::remove_file(&log).unwrap();
    site.script("stop");
    site.snapshot(&["--announce", &hook, "--precopy", "never"]).expect(22);
    site.script("start");
    // One that fails tells of its error, and a hook that fails is a warning.
    site.put("svc/stuck", "");
    let hook = format!("echo \"$CABK_EVENT $CABK_EXIT $CABK_ERROR\" >>{}; exit 7", log.display());
    let failed = site.snapshot(&["--announce", &hook]).expect(1);
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains("announce-after 1 ") && told.contains("does not listen"), "{told}");
    assert!(failed.stderr.contains("announce hook failed"), "{}", failed.stderr);
    site.remove("svc/stuck");
    // In the configuration an array is run as it is.
    let touched = site.path("touched $HOME");
    let hooks = format!("[hooks]\nannounce = [\"touch\", \"{}\"]\n", touched.display());
    site.world.configure(&hooks);
    site.snapshot(&[]).expect(0);
    assert!(touched.exists());
    site.is_in_order();
}

#[test]
fn the_plan_is_told_before_the_stop_and_by_a_dry_run() {
    let site = Site::new();
    let first = site.snapshot(&["--dry-run"]).expect(0);
    let plan = &first.json["plan"];
    assert_eq!(plan["stops"][0]["node"], "local");
    assert!(plan["estimate_ms"].is_null(), "{plan}");
    assert!(plan["estimated_by"].as_str().unwrap().contains("no window"), "{plan}");
    assert!(["dirty-set", "full-scan", "mixed"].contains(&plan["reading"].as_str().unwrap()));
    let done = site.snapshot(&[]).expect(0);
    let told: Vec<String> =
        lines(&done, "note").iter().map(|note| note["message"].to_string()).collect();
    let told = told.join("\n");
    for word in ["stops ", "new chunks go", "guarded by", "downtime: no window"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let again = site.snapshot(&["--dry-run"]).expect(0);
    let plan = &again.json["plan"];
    let (about, was) = (plan["estimate_ms"].as_u64().unwrap(), &done.json["window"]);
    assert!(about <= was["downtime_ms"].as_u64().unwrap(), "{plan} {was}");
    assert_eq!(plan["estimated_by"], "the last window");
    let never = site.snapshot(&["--dry-run", "--precopy", "never"]).expect(0);
    assert_eq!(never.json["plan"]["reading"], "full-scan");
    assert_eq!(site.calls().iter().filter(|call| *call == "stop").count(), 1);
    let plain = World::new();
    plain.put("file", "x");
    let plan = &plain.snapshot(&["--dry-run"]).expect(0).json["plan"];
    assert_eq!(plan["estimated_by"], "nothing is stopped");
    assert!(plan["stops"].as_array().unwrap().is_empty());
}

#[test]
fn an_open_window_counts_down_and_its_parts_add_up() {
    let site = Site::new();
    site.put("svc/after-stop", "sleep 2.5");
    let done = site.snapshot(&["--progress", "always", "--max-downtime", "10m"]).expect(0);
    let all = lines(&done, "progress");
    let open: Vec<&Value> = all.iter().filter_map(|line| line.get("window")).collect();
    assert!(open.len() >= 2, "{all:?}");
    let down: Vec<u64> = open.iter().map(|one| one["down_ms"].as_u64().unwrap()).collect();
    assert!(down.windows(2).all(|two| two[0] <= two[1]) && down[0] < 2500, "{down:?}");
    let left = open[0]["left_ms"].as_u64().unwrap();
    assert!(left > 590_000 && left <= 600_000, "{left}");
    let window = &done.json["window"];
    let parts = ["stop_ms", "quiet_ms", "read_ms", "proof_ms", "start_ms"];
    let sum: u64 = parts.iter().map(|part| window["phases"][part].as_u64().unwrap()).sum();
    let whole = window["downtime_ms"].as_u64().unwrap();
    assert!(sum <= whole && whole - sum <= 5, "{window}");
    assert!(window["phases"]["stop_ms"].as_u64().unwrap() >= 2500, "{window}");
    // For a person it is one line.
    let mut command = site.world.cabk();
    command.args(["snapshot", "--site-name", Site::label(), "--allow-volatile-state"]);
    let output = command.args(site.args(&[])).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("most of it stop 2."), "{text}");
}

/// Answers each request with a code, as long as the process lives.
fn answering(code: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/__ping__", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let answer =
                format!("HTTP/1.1 {code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn health_is_asked_after_the_start_and_never_decides() {
    let site = Site::new();
    let ask = |url: &str| {
        site.world.configure(&format!("[service]\nhealth_url = \"{url}\"\n"));
        site.command(&[])
    };
    let done = Done::of(&ask(&answering("200 OK")).output().unwrap()).expect(0);
    let started = done.evidence("service-started")[0];
    assert!(started["detail"].as_str().unwrap().contains("answered 200"), "{started}");
    // The start has five minutes; whoever does not want to wait that long asks for the end.
    let mut child = ask(&answering("503 Busy")).stdin(Stdio::null()).spawn().unwrap();
    until(30, "the window to be over", || site.calls().len() >= 5 && !site.world.has_intent());
    std::thread::sleep(Duration::from_millis(600));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let done = Done::of(&child_output(&mut child)).expect(3);
    assert_eq!(done.json["kind"], "snapshot", "{}", done.stderr);
    assert!(done.json["unwell"].as_str().unwrap().contains("it answered 503"), "{}", done.stdout);
    assert_eq!(done.evidence("service-started")[0]["held"], false);
    assert!(done.json["window"]["started_at"].is_string(), "it runs");
    let refused = Done::of(&ask("https://toy/__ping__").output().unwrap()).expect(2);
    assert!(refused.stderr.contains("only http://"), "{}", refused.stderr);
    site.is_in_order();
}

fn child_output(child: &mut std::process::Child) -> std::process::Output {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    std::process::Output { status: child.wait().unwrap(), stdout, stderr }
}

#[test]
fn status_tells_how_far_a_window_is_and_what_is_to_be_done() {
    let site = Site::new();
    let status = |code| site.world.run(&["window", "status", "--json"]).expect(code).json;
    assert_eq!(status(0)["phase"], Value::Null);
    site.put("svc/hold-stop", "");
    let mut child = site.command(&["--max-downtime", "10m"]).spawn().unwrap();
    until(30, "the stop", || site.calls().iter().any(|call| call == "stop"));
    let seen = status(0);
    assert_eq!((&seen["open"], &seen["stale"]), (&true.into(), &false.into()));
    assert_eq!(seen["phase"], "stopping");
    assert!(seen["deadline"].as_str() > seen["since"].as_str(), "{seen}");
    assert_eq!(seen["windows"][0]["pid"], child.id());
    let text = site.world.run(&["window", "status"]).expect(0).stdout;
    assert!(text.contains("is at work") && text.contains("to be closed by"), "{text}");
    site.remove("svc/hold-stop");
    assert_eq!(child_output(&mut child).status.code(), Some(0));
    assert_eq!(status(0)["open"], false);
    site.is_in_order();
}

#[test]
fn counting_pauses_while_a_window_is_open() {
    let site = Site::new();
    site.put("svc/hold-stop", "");
    let mut window = site.command(&[]).spawn().unwrap();
    until(30, "the stop", || site.calls().iter().any(|call| call == "stop"));
    let gcfg = site.path("etc/connect.gcfg").display().to_string();
    let mut discover = site.world.cabk();
    discover.args(["discover", "--json", "--site", &gcfg, "--site-name", Site::label()]);
    let mut counting = discover.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(counting.try_wait().unwrap().is_none(), "it waits for the window");
    site.remove("svc/hold-stop");
    assert_eq!(child_output(&mut window).status.code(), Some(0));
    let done = Done::of(&child_output(&mut counting)).expect(0);
    assert!(done.json["sources"][0]["bytes"].as_u64().unwrap() > 0, "{}", done.stdout);
}
