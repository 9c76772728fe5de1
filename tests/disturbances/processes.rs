//! Processes in a tree.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::{Connection, OpenFlags};

use crate::kinds::{Acted, Kept};
use crate::place::Spot;
use crate::world::Guarded;

/// Starts a program that says `ready` and lives on; `None` where it cannot.
fn living(command: &mut Command) -> Option<Guarded> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Guarded(command.spawn().ok()?);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (line == "ready\n").then_some(child)
}

/// A shell that does this and stays.
fn shell(script: &str) -> Option<Guarded> {
    living(Command::new("sh").args(["-c", &format!("{script}; echo ready; exec sleep 611")]))
}

/// All that a person has to be told of a process.
fn named(process: Guarded, pid: u32, command: &str, path: &Path, access: &str) -> Acted {
    let mut named = vec![format!("process {pid} ({command}"), path.display().to_string()];
    if !access.is_empty() {
        named.push(access.into());
    }
    Acted { named, kept: Kept::Process(process) }
}

fn with_descriptor(spot: &Spot<'_>, how: &str, access: &str) -> Option<Acted> {
    let file = spot.dir.join("file");
    let process = shell(&format!("exec 3{how}{}", file.display()))?;
    let pid = process.0.id();
    Some(named(process, pid, "sleep: sleep 611)", &file, access))
}

pub(crate) fn open_for_writing(spot: &Spot<'_>) -> Option<Acted> {
    with_descriptor(spot, ">>", "open for writing (descriptor 3)")
}

pub(crate) fn open_for_reading(spot: &Spot<'_>) -> Option<Acted> {
    with_descriptor(spot, "<", "open for reading (descriptor 3)")
}

pub(crate) fn writes_and_stays(spot: &Spot<'_>) -> Option<Acted> {
    let file = spot.dir.join("file");
    let process = shell(&format!("exec 3>>{}; echo more >&3", file.display()))?;
    let pid = process.0.id();
    Some(named(process, pid, "sleep: sleep 611)", &file, "open for writing (descriptor 3)"))
}

pub(crate) fn cwd(spot: &Spot<'_>) -> Option<Acted> {
    let process = shell(&format!("cd {}", spot.dir.display()))?;
    let pid = process.0.id();
    Some(named(process, pid, "sleep: sleep 611)", &spot.dir, "as its current directory"))
}

/// No descriptor is left, only the mapping.
pub(crate) fn mapped_for_writing(spot: &Spot<'_>) -> Option<Acted> {
    let file = spot.dir.join("file");
    let script = "import mmap,os,sys,time\nf=os.open(sys.argv[1],os.O_RDWR)\nm=mmap.mmap(f,0)\n\
                  os.close(f)\nprint('ready',flush=True)\ntime.sleep(611)\n";
    // A mapping of Python's own keeps a descriptor of its own: both are found.
    let process = living(Command::new("python3").args(["-c", script]).arg(&file))?;
    let pid = process.0.id();
    Some(named(process, pid, "python3: ", &file, "mapped for writing"))
}

/// A renderer in a mount namespace of its own, where the tree has another path.
pub(crate) fn own_mount_namespace(spot: &Spot<'_>) -> Option<Acted> {
    let elsewhere = spot.outside.join("moved");
    let script = format!(
        "mount --bind {0} {1} && exec 3>>{1}/file && echo ready && exec sleep 611",
        spot.dir.display(),
        elsewhere.display()
    );
    let process = living(Command::new("unshare").args(["--mount", "sh", "-c", &script]))?;
    let pid = process.0.id();
    Some(named(process, pid, "sleep: sleep 611)", &elsewhere.join("file"), "open for writing"))
}

/// A process that is number one of its own pid namespace.
pub(crate) fn own_pid_namespace(spot: &Spot<'_>) -> Option<Acted> {
    let file = spot.dir.join("file");
    let script = format!("exec 3>>{}; echo ready; exec sleep 611", file.display());
    let process = living(
        Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
            .arg(script),
    )?;
    let outer = process.0.id();
    let inner = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    let pid = inner.trim().parse().unwrap();
    Some(named(process, pid, "sleep: sleep 611)", &file, "open for writing (descriptor 3)"))
}

/// Opens, writes, closes and is gone: no scan sees it.
pub(crate) fn cron(spot: &Spot<'_>) -> Option<Acted> {
    let file = spot.dir.join("file");
    let script = format!("touch {}", file.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    Some(Acted { named: vec![file.display().to_string()], ..Acted::default() })
}

pub(crate) fn comes_and_goes(spot: &Spot<'_>) -> Option<Acted> {
    let file = spot.dir.join("file");
    let done = Command::new("cat").arg(&file).output().unwrap();
    assert!(done.status.success());
    Some(Acted { named: vec![file.display().to_string()], ..Acted::default() })
}

fn database(spot: &Spot<'_>) -> std::path::PathBuf {
    spot.site.path("data/db/connect.db")
}

fn holding(database: Connection, access: &str, path: &Path) -> Acted {
    let named = vec![
        format!("process {} holds a {access} lock", std::process::id()),
        path.display().to_string(),
    ];
    Acted { named, kept: Kept::Database(database) }
}

/// In the middle of a question: a shared lock.
pub(crate) fn sqlite_reader(spot: &Spot<'_>) -> Option<Acted> {
    let path = database(spot);
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    db.execute_batch("begin; select count(*) from t").unwrap();
    Some(holding(db, "read", &path))
}

/// In the middle of a transaction: a hot journal and a lock.
pub(crate) fn sqlite_writer(spot: &Spot<'_>) -> Option<Acted> {
    let path = database(spot);
    let db = Connection::open(&path).unwrap();
    db.execute_batch("begin immediate; insert into t (text) values ('half')").unwrap();
    Some(holding(db, "write", &path))
}

/// A whole transaction, and gone.
pub(crate) fn sqlite_commit(spot: &Spot<'_>) -> Option<Acted> {
    let path = database(spot);
    let db = Connection::open(&path).unwrap();
    db.execute_batch("insert into t (text) values ('whole')").unwrap();
    drop(db);
    Some(Acted { named: vec![path.display().to_string()], ..Acted::default() })
}

/// Somebody starts the service while it is read.
pub(crate) fn service_started(spot: &Spot<'_>) -> Option<Acted> {
    assert_eq!(spot.site.script("start"), 0);
    let log = spot.site.path("data/log");
    Some(Acted { named: vec![log.display().to_string(), "it runs".into()], ..Acted::default() })
}
