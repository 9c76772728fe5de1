//! Exit codes, and errors as the user meets them.

use std::io::Write;

use serde::Serialize;

/// All exit codes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Ok = 0,
    /// Failed; nothing was committed.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Done, with problems that are listed.
    Problems = 3,
    /// No snapshot: the window's result is a capture.
    Capture = 4,
    /// No repository there.
    NoRepository = 10,
    /// In use in a way that forbids this.
    InUse = 11,
    /// Wrong key.
    WrongKey = 12,
    /// Damage was found in the repository.
    Damage = 20,
    /// A capture was given where a snapshot is needed.
    NotRestorable = 21,
    /// The target, the service or the site is not in a state in which this is safe or can succeed.
    Refused = 22,
    /// A limit of `status` is passed.
    TooOld = 23,
    /// A service that ran before is not running now.
    ServiceDown = 30,
    /// Interrupted; the repository is as it was, and the service runs again.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in ascending order.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Problems,
        Self::Capture,
        Self::NoRepository,
        Self::InUse,
        Self::WrongKey,
        Self::Damage,
        Self::NotRestorable,
        Self::Refused,
        Self::TooOld,
        Self::ServiceDown,
        Self::Interrupted,
    ];

    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What another process of this program ended with; [`Exit::Failed`] for what is none of these.
    #[must_use]
    pub fn of(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Failed)
    }

    /// Which outcome is told where two came together: a stopped service (30) outranks everything,
    /// what failed outranks what was done, and a capture (4) outranks problems (3).
    const fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Problems => 1,
            Self::Capture => 2,
            Self::ServiceDown => u8::MAX,
            Self::Interrupted => u8::MAX - 1,
            other => 2 + other.code(),
        }
    }

    /// The outcome to tell where both happened. Of two that rank alike the first stays.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }
}

/// Kinds of error, each with an exit code, a name for scripts and, where one helps, a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong.
    Config,
    /// No password was given, or an empty one.
    NoPassword,
    /// No repository was named.
    NoRepositoryNamed,
    /// There is no repository at the place that was named.
    NoRepository,
    /// Something else uses the repository or the site.
    InUse,
    /// The password opens none of the keys.
    WrongKey,
    /// Damage was found.
    Damage,
    /// A capture cannot be restored.
    NotRestorable,
    /// Not safe, or bound to fail, in this state.
    Refused,
    /// A limit is passed.
    TooOld,
    /// The service did not start again.
    ServiceDown,
    /// A signal ended the run.
    Interrupted,
    /// Anything else.
    Failed,
}

/// What each kind of error means for the exit code, for scripts and for the user.
#[must_use]
pub const fn meaning(kind: Kind) -> (Exit, &'static str, Option<&'static str>) {
    match kind {
        Kind::Usage => (Exit::Usage, "usage", Some("see `cabk --help`")),
        Kind::Config => (Exit::Usage, "config", None),
        Kind::NoPassword => (
            Exit::Usage,
            "no-password",
            Some("use --password-file or --password-command, or set CABK_PASSWORD_FILE"),
        ),
        Kind::NoRepositoryNamed => (
            Exit::Usage,
            "no-repository-named",
            Some(
                "use --repo, set CABK_REPO, or write `url` below [repository] in the configuration",
            ),
        ),
        Kind::NoRepository => {
            (Exit::NoRepository, "no-repository", Some("`cabk init` makes a repository"))
        }
        Kind::InUse => (Exit::InUse, "in-use", Some("`cabk unlock` removes stale leases")),
        Kind::WrongKey => (Exit::WrongKey, "wrong-key", None),
        Kind::Damage => {
            (Exit::Damage, "damage", Some("`cabk check --read-data` names all that is affected"))
        }
        Kind::NotRestorable => (
            Exit::NotRestorable,
            "not-restorable",
            Some("`cabk snapshots --kind snapshot` lists what can be restored"),
        ),
        Kind::Refused => (Exit::Refused, "refused", None),
        Kind::TooOld => (Exit::TooOld, "too-old", None),
        Kind::ServiceDown => (
            Exit::ServiceDown,
            "service-down",
            Some("`cabk window recover` tries again to start it"),
        ),
        Kind::Interrupted => (Exit::Interrupted, "interrupted", None),
        Kind::Failed => (Exit::Failed, "failed", None),
    }
}

/// An error as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// Name of the kind, for scripts.
    pub code: &'static str,
    /// What the process ends with.
    pub exit: Exit,
    /// What went wrong.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
    /// Why, from the nearest cause to the farthest.
    pub causes: Vec<String>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    /// Empty where nothing is known that may help.
    hint: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    causes: &'a [String],
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: ErrorBody<'a>,
}

impl CliError {
    /// An error of a kind, with the kind's exit code and hint.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let (exit, code, hint) = meaning(kind);
        Self {
            code,
            exit,
            message: message.into(),
            hint: hint.map(str::to_owned),
            causes: Vec::new(),
        }
    }

    /// An error of a kind from another error: its text is the message, its sources the causes.
    #[must_use]
    pub fn from_error(kind: Kind, error: &dyn std::error::Error) -> Self {
        let mut shown = Self::new(kind, error.to_string());
        shown.causes = chain(error.source());
        shown
    }

    /// With a better hint than the kind's own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.causes = chain(Some(error));
        self
    }

    /// Writes the error: two readable lines, or one JSON object.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, to: &mut dyn Write, json: bool) -> std::io::Result<()> {
        if json {
            let object = ErrorObject {
                error: ErrorBody {
                    code: self.code,
                    message: &self.message,
                    hint: self.hint.as_deref().unwrap_or_default(),
                    causes: &self.causes,
                },
            };
            let mut line = serde_json::to_vec(&object)?;
            line.push(b'\n');
            return to.write_all(&line);
        }
        let mut text = format!("cabk: error: {}", self.message);
        for cause in &self.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        text.push('\n');
        if let Some(hint) = &self.hint {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
        to.write_all(text.as_bytes())
    }
}

fn chain(first: Option<&dyn std::error::Error>) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = first;
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_manual() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 10, 11, 12, 20, 21, 22, 23, 30, 130]);
    }

    #[test]
    fn a_stopped_service_outranks_all_and_a_capture_outranks_problems() {
        for exit in Exit::ALL {
            assert_eq!(exit.and(Exit::ServiceDown), Exit::ServiceDown);
            assert_eq!(Exit::ServiceDown.and(exit), Exit::ServiceDown);
            assert_eq!(exit.and(Exit::Ok), exit);
            assert_eq!(Exit::Ok.and(exit), exit);
        }
        assert_eq!(Exit::Problems.and(Exit::Capture), Exit::Capture);
        assert_eq!(Exit::Capture.and(Exit::Problems), Exit::Capture);
        assert_eq!(Exit::Capture.and(Exit::Failed), Exit::Failed);
        assert_eq!(Exit::Interrupted.and(Exit::Failed), Exit::Interrupted);
    }

    #[test]
    fn an_error_is_shown_with_causes_and_hint() {
        let io = std::io::Error::other("disk is gone");
        let error = CliError::new(Kind::NoRepository, "cannot open /srv/x").caused_by(&io);
        let mut text = Vec::new();
        error.write(&mut text, false).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "cabk: error: cannot open /srv/x: disk is gone\nhint: `cabk init` makes a repository\n"
        );
        let mut json = Vec::new();
        error.write(&mut json, true).unwrap();
        assert_eq!(json.iter().filter(|&&b| b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["error"]["code"], "no-repository");
        assert_eq!(value["error"]["hint"], "`cabk init` makes a repository");
        assert_eq!(value["error"]["causes"][0], "disk is gone");
        assert_eq!(error.exit.code(), 10);
    }
}
