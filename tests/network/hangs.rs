//! What does not answer is given up in time, and stops nobody.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::Mounted;
use crate::fuse::{Op, Options};
use crate::world::{Done, until};

/// A run with short patience, which must end by itself while the file system still hangs.
fn ends(m: &Mounted, args: &[&str]) -> Done {
    let mut all = vec!["--read-timeout", "1s"];
    all.extend(args);
    let child = m.site.command(&all).spawn().unwrap();
    output(child)
}

fn output(mut child: Child) -> Done {
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let mut stderr = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    let mut status = None;
    until(60, "the end of the run", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let stdout = reader.join().unwrap().unwrap();
    Done::of(&std::process::Output { status: status.unwrap(), stdout, stderr })
}

#[test]
fn a_read_that_hangs_is_found_before_the_stop() {
    let Some(m) = Mounted::new(&Options::default()) else { return };
    m.a.hang(Op::Read, "app.R");
    let began = Instant::now();
    let done = ends(&m, &[]).expect(22);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(m.a.hanging() > 0, "it ended by itself");
    let said = done.said();
    assert!(said.contains("app.R") && said.contains("no answer within 1.00 s"), "{said}");
    assert!(!m.site.calls().contains(&"stop".to_owned()), "{:?}", m.site.calls());
    let done = ends(&m, &["--allow-capture"]).expect(4);
    assert_eq!(done.json["kind"], "capture");
    let read = done.evidence("all-sources-read");
    assert!(read.iter().any(|one| one["held"] == false), "{read:?}");
    m.a.release();
    m.site.is_in_order();
    assert_eq!(m.site.snapshot(&[]).expect(0).json["kind"], "snapshot");
}

#[test]
fn a_read_that_fails_is_a_problem_of_that_file() {
    let Some(m) = Mounted::new(&Options::default()) else { return };
    m.a.fail(Op::Read, "app.R");
    let said = ends(&m, &[]).expect(22).said();
    assert!(said.contains("app.R"), "{said}");
    let done = ends(&m, &["--allow-capture"]).expect(4);
    let problems = done.json["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0]["error"].as_str().unwrap().contains("Input/output error"));
    m.site.is_in_order();
}

#[test]
fn a_read_that_hangs_in_the_window_makes_a_capture() {
    let Some(m) = Mounted::new(&Options::default()) else { return };
    m.site.put("svc/hold-stop", "");
    let child = m.site.command(&["--read-timeout", "1s"]).spawn().unwrap();
    until(60, "the stop", || m.site.calls().contains(&"stop".to_owned()));
    let file = std::fs::File::options().write(true).open(m.site.path("below/apps/1/11/app.R"));
    file.unwrap().write_all_at(b"L", 0).unwrap();
    m.a.hang(Op::Read, "app.R");
    m.site.remove("svc/hold-stop");
    let done = output(child).expect(4);
    assert!(m.a.hanging() > 0, "it ended by itself");
    let problems = done.json["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0]["path"].as_str().unwrap().ends_with("/app.R"));
    assert_eq!(done.json["window"]["nodes"][0]["runs_after"], true);
    m.a.release();
    m.site.is_in_order();
}

#[test]
fn a_server_that_is_gone_is_given_up_as_a_whole() {
    let Some(m) = Mounted::new(&Options::default()) else { return };
    for n in 0..500 {
        m.site.put(&format!("data/apps/9/{}/{n}", n % 50), "content");
    }
    let hold = "touch \"$1/svc/held\"; while [ -e \"$1/svc/hold\" ]; do sleep 0.02; done\n";
    m.site.put("svc/after-stop", hold);
    m.site.put("svc/hold", "");
    let child = m.site.command(&["--read-timeout", "1s"]).spawn().unwrap();
    until(60, "the end of the service", || m.site.path("svc/held").exists());
    m.a.silence();
    m.site.remove("svc/hold");
    let began = Instant::now();
    // Its own files do not lie there.
    until(60, "the service to run again", || m.site.calls().len() > 2);
    let took = began.elapsed();
    m.a.release();
    let done = output(child);
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert_eq!(done.code, 4, "{}", done.said());
    m.site.is_in_order();
}
