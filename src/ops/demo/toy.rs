//! The toy service, as a process of its own: it keeps a SQLite database open and writes rows and
//! log lines until it is told to end. With it the commands that start, stop and ask it, and a
//! rendering that does not care about a stop.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::site::Places;
use crate::host::clock::Clock;
use crate::host::machine::{self, ProcessIdentity};
use crate::host::signal::Interrupt;

/// Rows that the database begins with.
const FIRST_ROWS: u32 = 4_000;
/// Rows of one transaction afterwards, and the pause between two.
const ROWS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);
/// Time for the service to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// Files in which the service says how it is, and how it was when it was stopped last.
const RUNNING: &str = "service.json";
const STOPPED: &str = "stopped.json";

/// What went wrong in the toy service or with it.
#[derive(Debug, thiserror::Error)]
pub enum ToyError {
    /// A file, a process.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// The database.
    #[error("the toy service's database")]
    Database(#[from] rusqlite::Error),
    /// Its own note does not read.
    #[error("the toy service's note does not read")]
    Note(#[source] serde_json::Error),
    /// It ended while it started.
    #[error("the toy service ended while it started: {0}")]
    Ended(String),
    /// It did not do in time what it was asked to.
    #[error("the toy service was not {0} in time")]
    Late(&'static str),
    /// The request is none.
    #[error("the toy service does not know how to {0:?}")]
    Unknown(String),
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ToyError {
    move |source| ToyError::Io { what, source }
}

/// What the service says of itself, in a file beside the site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    /// Its process.
    pub(super) pid: u32,
    /// When that started, in clock ticks since boot.
    pub(super) start_time: u64,
    /// Rows in the table of events.
    pub(super) rows: u32,
    /// Whether the database was closed in order and nothing more will come.
    pub(super) closed: bool,
}

impl Note {
    /// The note of the service that ran last; `None` where none ever ran.
    ///
    /// # Errors
    /// [`ToyError`].
    pub(super) fn read(places: &Places) -> Result<Option<Self>, ToyError> {
        Self::read_from(places, RUNNING)
    }

    /// What the service said last when it was stopped; `None` where it never was.
    ///
    /// # Errors
    /// [`ToyError`].
    pub(super) fn read_last_stop(places: &Places) -> Result<Option<Self>, ToyError> {
        Self::read_from(places, STOPPED)
    }

    fn read_from(places: &Places, name: &str) -> Result<Option<Self>, ToyError> {
        match std::fs::read(places.run().join(name)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(ToyError::Note),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("cannot read the toy service's note")(e)),
        }
    }

    fn write(&self, places: &Places, name: &str) -> Result<(), ToyError> {
        let wrong = io_error("cannot write the toy service's note");
        let text = serde_json::to_vec(self).map_err(ToyError::Note)?;
        let new = places.run().join("new.json");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, places.run().join(name)))
            .map_err(wrong)
    }

    /// Whether the process lives.
    ///
    /// # Errors
    /// [`ToyError`] where that cannot be told.
    pub(super) fn lives(&self) -> Result<bool, ToyError> {
        machine::process_alive(self.pid, self.start_time)
            .map_err(io_error("cannot tell whether the toy service lives"))
    }
}

/// What a command of the toy service came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToyAnswer {
    /// 0, or 3 for a service that is stopped.
    pub exit: u8,
    /// What it prints.
    pub says: String,
}

/// Does what the hidden command line asks for.
///
/// # Errors
/// [`ToyError`].
pub fn command(what: &str, root: PathBuf, clock: &dyn Clock) -> Result<ToyAnswer, ToyError> {
    let places = Places::below(root);
    match what {
        "start" => start(&places, clock)?,
        "stop" => end(&places, Signal::TERM, clock)?,
        "status" => {
            return Ok(match Note::read(&places)? {
                Some(note) if note.lives()? => {
                    ToyAnswer { exit: 0, says: format!("process {} runs\n", note.pid) }
                }
                Some(note) => {
                    let how = if note.closed { "closed its database" } else { "died" };
                    ToyAnswer { exit: 3, says: format!("process {} {how}\n", note.pid) }
                }
                None => ToyAnswer { exit: 3, says: "it never ran\n".into() },
            });
        }
        "run" => serve(&places, clock)?,
        "render" => render(&places, clock)?,
        other => return Err(ToyError::Unknown(other.to_owned())),
    }
    Ok(ToyAnswer { exit: 0, says: String::new() })
}

/// Starts the service and waits until it is ready.
fn start(places: &Places, clock: &dyn Clock) -> Result<(), ToyError> {
    if let Some(note) = Note::read(places)?
        && note.lives()?
    {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(io_error("cannot tell this program's path"))?;
    let mut child = spawn(&program, "run", places)?;
    let began = clock.monotonic();
    loop {
        if let Some(note) = Note::read(places)?.filter(|note| note.pid == child.id())
            && !note.closed
        {
            return Ok(());
        }
        let ended = child.try_wait().map_err(io_error("cannot wait for the toy service"))?;
        if let Some(status) = ended {
            let said = std::fs::read_to_string(places.run().join("run.log")).unwrap_or_default();
            return Err(ToyError::Ended(format!("{status}: {}", said.trim())));
        }
        if clock.monotonic().saturating_sub(began) >= PATIENCE {
            // It is this process's own child and was not waited for: the number is still its own.
            child.kill().map_err(io_error("cannot end the toy service"))?;
            return Err(ToyError::Late("ready"));
        }
        clock.sleep(LOOK);
    }
}

/// Starts this program as a part of the toy, in a process group of its own: a signal from the
/// terminal is for the demonstration alone.
pub(super) fn spawn(program: &Path, what: &str, places: &Places) -> Result<Child, ToyError> {
    let log = places.run().join(format!("{what}.log"));
    let log = File::create(log).map_err(io_error("cannot make a log file"))?;
    let mut command = Command::new(program);
    command.args(["demo-service", what]).arg(places.root()).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().map_err(io_error("cannot run this program again"))
}

/// Ends the service with a signal and waits for its end. One that does not run is no error.
pub(super) fn end(places: &Places, signal: Signal, clock: &dyn Clock) -> Result<(), ToyError> {
    let Some(note) = Note::read(places)? else { return Ok(()) };
    let wrong = || io_error("cannot signal the toy service");
    let pid = i32::try_from(note.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid.filter(|_| note.lives().unwrap_or(true)) else { return Ok(()) };
    let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(wrong()(e.into())),
    };
    // The handle is the service's only if the number was still its own after it was opened.
    if !note.lives()? {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&handle, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => return Err(wrong()(e.into())),
    }
    let began = clock.monotonic();
    while note.lives()? {
        if clock.monotonic().saturating_sub(began) >= PATIENCE {
            return Err(ToyError::Late("stopped"));
        }
        clock.sleep(LOOK);
    }
    Ok(())
}

/// Whose death ends the parts of the toy: the demonstration.
pub(super) fn note_owner(places: &Places) -> Result<(), ToyError> {
    let own = machine::own_process().map_err(io_error("cannot tell who this process is"))?;
    let text = format!("{} {}", own.pid, own.start_time);
    std::fs::write(places.run().join("owner"), text).map_err(io_error("cannot note the owner"))
}

/// When a part of the toy has to end: by a signal, or with the demonstration.
struct Ending {
    interrupt: Interrupt,
    owner: ProcessIdentity,
}

impl Ending {
    fn new(places: &Places) -> Result<Self, ToyError> {
        let interrupt = Interrupt::install().map_err(io_error("cannot note signals"))?;
        let text = std::fs::read_to_string(places.run().join("owner"))
            .map_err(io_error("cannot tell who the owner is"))?;
        let mut words = text.split(' ');
        let pid = words.next().and_then(|word| word.parse().ok());
        let start_time = words.next().and_then(|word| word.parse().ok());
        let (Some(pid), Some(start_time)) = (pid, start_time) else {
            return Err(io_error("cannot tell who the owner is")(
                io::ErrorKind::InvalidData.into(),
            ));
        };
        Ok(Self { interrupt, owner: ProcessIdentity { pid, start_time } })
    }

    fn has_come(&self) -> Result<bool, ToyError> {
        let owned = machine::process_alive(self.owner.pid, self.owner.start_time)
            .map_err(io_error("cannot tell whether the owner lives"))?;
        Ok(self.interrupt.is_set() || !owned)
    }
}

/// The service itself.
fn serve(places: &Places, clock: &dyn Clock) -> Result<(), ToyError> {
    let ending = Ending::new(places)?;
    let mut database = open(places)?;
    let mut log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(places.data().join("service.log"))
        .map_err(io_error("cannot open the log"))?;
    let own = machine::own_process().map_err(io_error("cannot tell who this process is"))?;
    let mut note =
        Note { pid: own.pid, start_time: own.start_time, rows: rows(&database)?, closed: false };
    if note.rows == 0 {
        insert(&mut database, 1, FIRST_ROWS)?;
        note.rows = rows(&database)?;
    }
    let wrong = || io_error("cannot write the log");
    writeln!(log, "process {} serves, {} rows", note.pid, note.rows).map_err(wrong())?;
    note.write(places, RUNNING)?;
    while !ending.has_come()? {
        insert(&mut database, note.rows + 1, ROWS)?;
        note.rows += ROWS;
        writeln!(log, "row {}", note.rows).map_err(wrong())?;
        note.write(places, RUNNING)?;
        clock.sleep(PAUSE);
    }
    note.rows = rows(&database)?;
    writeln!(log, "process {} ends, {} rows", note.pid, note.rows).map_err(wrong())?;
    // The last connection that closes writes the log of SQLite back and takes it away.
    database.close().map_err(|(_, error)| error)?;
    note.closed = true;
    note.write(places, STOPPED)?;
    note.write(places, RUNNING)
}

fn open(places: &Places) -> Result<Connection, ToyError> {
    let database = Connection::open(places.database())?;
    database.busy_timeout(Duration::from_secs(5))?;
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "normal")?;
    database.execute_batch(
        "create table if not exists events (id integer primary key, app integer not null,
             what text not null, digest blob not null)",
    )?;
    Ok(database)
}

fn rows(database: &Connection) -> Result<u32, ToyError> {
    Ok(database.query_row("select count(*) from events", [], |row| row.get(0))?)
}

fn insert(database: &mut Connection, from: u32, count: u32) -> Result<(), ToyError> {
    let all = database.transaction()?;
    {
        let mut one =
            all.prepare("insert into events (id, app, what, digest) values (?1, ?2, ?3, ?4)")?;
        for id in from..from + count {
            let what = format!("visit {id} of application {}", id % 3 + 1);
            one.execute(rusqlite::params![id, id % 3 + 1, what, &digest(id)[..]])?;
        }
    }
    Ok(all.commit()?)
}

/// The digest in a row: whoever reads it can tell whether it is the row's own.
pub(super) fn digest(id: u32) -> [u8; 32] {
    *blake3::hash(&id.to_le_bytes()).as_bytes()
}

/// A rendering that outlives the stop of the service, as those of Connect do.
fn render(places: &Places, clock: &dyn Clock) -> Result<(), ToyError> {
    let ending = Ending::new(places)?;
    let wrong = || io_error("cannot write the rendering's file");
    let mut options = std::fs::OpenOptions::new();
    let options = options.create(true).append(true).mode(0o600);
    let mut file = options.open(places.rendering()).map_err(wrong())?;
    while !ending.has_come()? {
        file.write_all(b"rendering another page\n").map_err(wrong())?;
        clock.sleep(LOOK);
    }
    Ok(())
}
