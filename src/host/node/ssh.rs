//! How the system's `ssh` is called, and the connection that its calls share.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Sharing, SshAddress};
use crate::host::clock::{Clock, SystemClock};
use crate::host::machine;
use crate::host::run::run_words;

/// Bytes that the path of a socket may have (`sun_path`, its end, and what `ssh` appends while it
/// makes one).
const SOCKET_PATH_MAX: usize = 108 - 1 - 18;

/// How long a shared connection that nobody uses stays open: longer than most readings take, so
/// that the end of a window pays no handshake; a run ends it at its own end.
const PERSIST: &str = "300";

/// Time for ending one.
const GOODBYE: Duration = Duration::from_secs(3);

/// Age from which a directory that a killed run left is removed.
const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);

/// Beginning of the names of directories for sockets.
const PREFIX: &str = "cabk-ssh.";

/// Where the sockets of shared connections may lie: their paths have to be short, and nobody else's.
#[must_use]
pub fn socket_places() -> Vec<PathBuf> {
    let root = machine::is_root().then(|| PathBuf::from("/run"));
    root.into_iter().chain(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)).collect()
}

/// The system's `ssh` as a run uses it.
pub struct Ssh {
    program: PathBuf,
    connect_timeout: Duration,
    control: Option<Control>,
    eager: bool,
}

/// Where the sockets of shared connections are.
struct Control {
    dir: PathBuf,
    /// Whom a connection was opened to; its socket is called by its place.
    known: Mutex<Vec<SshAddress>>,
}

impl Ssh {
    /// `ssh` of the `PATH`, each call with a connection of its own.
    #[must_use]
    pub fn new(connect_timeout: Duration) -> Self {
        Self { program: PathBuf::from("ssh"), connect_timeout, control: None, eager: false }
    }

    /// With another program in the place of `ssh`.
    #[must_use]
    pub fn by(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Lets calls share connections, whose sockets lie in a private directory below the first of
    /// these places where one can be made; where that is nowhere they share nothing.
    #[must_use]
    pub fn sharing(mut self, places: &[PathBuf]) -> Self {
        self.control = places.iter().find_map(|place| Control::below(place));
        self
    }

    /// Lets every call open the connection that later ones share: for whoever comes to start
    /// something, and asks nothing before.
    #[must_use]
    pub fn eager(mut self) -> Self {
        self.eager = true;
        self
    }

    /// The words before the command.
    pub(super) fn words(&self, to: &SshAddress, sharing: Sharing) -> Vec<OsString> {
        let mut words = self.options(to, sharing);
        words.push("--".into());
        words.push(to.host.clone().into());
        words
    }

    fn options(&self, to: &SshAddress, sharing: Sharing) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.program.clone().into()];
        words.extend(["-T", "-x", "-a"].map(Into::into));
        let mut option = |text: &str| words.extend(["-o".into(), OsString::from(text)]);
        option("BatchMode=yes");
        option(&format!("ConnectTimeout={}", self.connect_timeout.as_secs().max(1)));
        option("ServerAliveInterval=5");
        option("ServerAliveCountMax=3");
        option("ClearAllForwardings=yes");
        option("PermitLocalCommand=no");
        match &self.control {
            None => {
                option("ControlMaster=no");
                option("ControlPath=none");
            }
            Some(control) => {
                let path = control.socket(to);
                option(&format!("ControlPath={}", path.display()));
                option(if sharing == Sharing::Open || self.eager {
                    "ControlMaster=auto"
                } else {
                    "ControlMaster=no"
                });
                option(&format!("ControlPersist={PERSIST}"));
            }
        }
        if let Some(user) = &to.user {
            words.extend(["-l".into(), user.into()]);
        }
        if let Some(port) = to.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        words
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let Some(control) = &self.control else { return };
        let known = control.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for address in known {
            if !control.socket(&address).exists() {
                continue;
            }
            let mut words = self.options(&address, Sharing::Join);
            words.extend(["-O".into(), "exit".into(), "--".into(), address.host.clone().into()]);
            // A connection that does not end now ends by itself.
            let _ = run_words(&words, &[], GOODBYE, &SystemClock);
        }
        let clock = SystemClock;
        // The master takes its socket away a moment after it said so.
        for _ in 0..50 {
            if std::fs::remove_dir(&control.dir).is_ok() {
                return;
            }
            clock.sleep(Duration::from_millis(10));
        }
    }
}

impl Control {
    fn below(place: &Path) -> Option<Self> {
        sweep(place);
        let own = machine::own_process().ok()?;
        (0..100).find_map(|number| {
            let dir = place.join(format!("{PREFIX}{}.{}.{number}", own.pid, own.start_time));
            let text = dir.to_str()?;
            // `ssh` would read a blank, a quote or a percent sign as something else.
            let fits = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            if text.len() + "/000".len() > SOCKET_PATH_MAX || !text.chars().all(fits) {
                return None;
            }
            DirBuilder::new().mode(0o700).create(&dir).ok()?;
            Some(Self { dir, known: Mutex::new(Vec::new()) })
        })
    }

    fn socket(&self, to: &SshAddress) -> PathBuf {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|one| one == to).unwrap_or_else(|| {
            known.push(to.clone());
            known.len() - 1
        });
        self.dir.join(at.to_string())
    }
}

/// Removes the directories that killed runs left, once they are old: whoever shares a place
/// with other pid namespaces cannot tell who lives.
fn sweep(place: &Path) {
    let Ok(names) = std::fs::read_dir(place) else { return };
    for name in names.flatten() {
        let name = name.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let mut numbers = rest.split('.').map(str::parse::<u64>);
        let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else { continue };
        let Ok(pid) = u32::try_from(pid) else { continue };
        let dir = place.join(name);
        let age = std::fs::symlink_metadata(&dir).and_then(|meta| meta.modified()).ok();
        let old = age.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= LEFT_OVER);
        if old && machine::process_alive(pid, start).is_ok_and(|alive| !alive) {
            let sockets = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            for socket in sockets.filter(|one| one.file_type().is_ok_and(|kind| kind.is_socket())) {
                // No connection that nobody uses lives that long.
                let _ = std::fs::remove_file(socket.path());
            }
            let _ = std::fs::remove_dir(dir);
        }
    }
}
