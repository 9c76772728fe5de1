//! stdout carries the result and nothing else; everything that is said on the way goes to stderr.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::exit::{CliError, Kind};

/// The one result of a command. Printing it uses it up, so that stdout holds exactly one.
#[must_use = "a command prints its result once"]
pub struct Out<'a> {
    json: bool,
    to: Box<dyn Write + 'a>,
}

impl<'a> Out<'a> {
    /// The process's stdout.
    pub fn stdout(json: bool) -> Self {
        Self { json, to: Box::new(io::BufWriter::new(io::stdout())) }
    }

    /// Any writer.
    pub fn to(json: bool, to: impl Write + 'a) -> Self {
        Self { json, to: Box::new(to) }
    }

    /// Prints the result: one JSON document, or what `readable` writes. A reader that went away is
    /// no error.
    ///
    /// # Errors
    /// What the writer says otherwise.
    pub fn finish<T: Serialize>(
        mut self,
        result: &T,
        readable: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CliError> {
        let written = if self.json {
            serde_json::to_writer_pretty(&mut self.to, result)
                .map_err(io::Error::from)
                .and_then(|()| self.to.write_all(b"\n"))
        } else {
            readable(&mut self.to)
        };
        settled(written.and_then(|()| self.to.flush()))
    }

    /// Prints text or bytes that are the same with and without `--json` (a completion script).
    ///
    /// # Errors
    /// What the writer says, except that its reader went away.
    pub fn raw(mut self, bytes: &[u8]) -> Result<(), CliError> {
        settled(self.to.write_all(bytes).and_then(|()| self.to.flush()))
    }
}

fn settled(written: io::Result<()>) -> Result<(), CliError> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Kind::Failed, "cannot write the result to stdout").caused_by(&error))
        }
        _ => Ok(()),
    }
}

/// How much is said on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Warnings and errors only.
    Quiet,
    /// Remarks too.
    Normal,
    /// What is being done.
    Verbose,
    /// Details, for whoever looks for a fault.
    Debug,
}

impl Level {
    /// The level that `-q` and `-v` ask for.
    #[must_use]
    pub const fn from_flags(quiet: bool, verbose: u8) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Normal,
            (false, 1) => Self::Verbose,
            (false, _) => Self::Debug,
        }
    }
}

/// Runs a closure while whatever is drawn on the terminal is taken away.
pub type Suspend = Arc<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// What is said on the way, on stderr: warnings, remarks, the final error. With `--json` each is one
/// JSON object a line: `{"warning":{"message"}}`, `{"note":{"message"}}`, `{"error":{…}}`.
pub struct Warnings {
    json: bool,
    level: Level,
    state: Mutex<State>,
}

struct State {
    to: Box<dyn Write + Send>,
    suspend: Option<Suspend>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Said<'a> {
    message: &'a str,
}

impl Warnings {
    /// The process's stderr.
    #[must_use]
    pub fn stderr(json: bool, level: Level) -> Self {
        Self::to(json, level, Box::new(io::stderr()))
    }

    /// Any writer.
    #[must_use]
    pub fn to(json: bool, level: Level, to: Box<dyn Write + Send>) -> Self {
        let state = Mutex::new(State { to, suspend: None, warnings: Vec::new() });
        Self { json, level, state }
    }

    /// Whether the user asked for this much.
    #[must_use]
    pub fn says(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Something that the user should know of, and that no exit code tells.
    pub fn warn(&self, message: &str) {
        let mut state = self.lock();
        state.warnings.push(message.to_owned());
        self.put(&mut state, "warning", "cabk: warning: ", message);
    }

    /// A remark, shown from this level on.
    pub fn note(&self, level: Level, message: &str) {
        if self.says(level) {
            self.put(&mut self.lock(), "note", "", message);
        }
    }

    /// The error that ends the run.
    pub fn error(&self, error: &CliError) {
        let mut state = self.lock();
        let mut line = Vec::new();
        // Writing to memory does not fail; a stderr that is gone is nobody to tell.
        let _ = error.write(&mut line, self.json);
        say(&mut state, &line);
    }

    /// A line that another part made (progress as JSON).
    pub fn line(&self, line: &[u8]) {
        say(&mut self.lock(), line);
    }

    /// All warnings so far, for a result that lists them.
    #[must_use]
    pub fn so_far(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    /// From now on, takes away what is drawn on the terminal while something is said.
    pub fn suspend_with(&self, suspend: Option<Suspend>) {
        self.lock().suspend = suspend;
    }

    fn put(&self, state: &mut State, word: &str, prefix: &str, message: &str) {
        let line = if self.json {
            let object = std::collections::BTreeMap::from([(word, Said { message })]);
            serde_json::to_string(&object).unwrap_or_default()
        } else {
            format!("{prefix}{message}")
        };
        say(state, format!("{line}\n").as_bytes());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One write for each line, so that lines of several processes do not mix. A stderr that is gone is
/// nobody to tell.
fn say(state: &mut State, line: &[u8]) {
    let State { to, suspend, .. } = state;
    let mut write = || {
        let _ = to.write_all(line).and_then(|()| to.flush());
    };
    match suspend.clone() {
        Some(suspend) => suspend(&mut write),
        None => write(),
    }
}

/// A writer into memory that tests read.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Shared {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone(io::ErrorKind);

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_result_is_one_document() {
        let result = serde_json::json!({"id": "abc", "kind": "snapshot"});
        let mut buffer = Vec::new();
        Out::to(true, &mut buffer).finish(&result, |_| unreachable!()).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&buffer).unwrap(), result);
        let mut buffer = Vec::new();
        Out::to(false, &mut buffer).finish(&result, |to| writeln!(to, "snapshot abc")).unwrap();
        assert_eq!(buffer, b"snapshot abc\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_but_a_full_disk_is() {
        for json in [true, false] {
            let gone = Out::to(json, Gone(io::ErrorKind::BrokenPipe));
            assert_eq!(gone.finish(&1, |to| writeln!(to, "1")), Ok(()));
            let full = Out::to(json, Gone(io::ErrorKind::StorageFull));
            assert_eq!(full.finish(&1, |to| writeln!(to, "1")).unwrap_err().exit.code(), 1);
        }
    }

    #[test]
    fn quiet_keeps_warnings_and_drops_remarks() {
        let shared = Shared::default();
        let said = Warnings::to(false, Level::from_flags(true, 0), Box::new(shared.clone()));
        said.note(Level::Normal, "reading ahead");
        said.warn("the clock was set back");
        assert_eq!(shared.text(), "cabk: warning: the clock was set back\n");
        assert_eq!(said.so_far(), ["the clock was set back"]);
    }

    #[test]
    fn with_json_each_line_is_an_object() {
        let shared = Shared::default();
        let said = Warnings::to(true, Level::from_flags(false, 1), Box::new(shared.clone()));
        said.warn("a \"quoted\"\nwarning");
        said.note(Level::Verbose, "x");
        said.note(Level::Debug, "not asked for");
        said.error(&CliError::new(Kind::Failed, "no"));
        let lines: Vec<serde_json::Value> =
            shared.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["warning"]["message"], "a \"quoted\"\nwarning");
        assert_eq!(lines[1]["note"]["message"], "x");
        assert_eq!(lines[2]["error"]["code"], "failed");
    }
}
