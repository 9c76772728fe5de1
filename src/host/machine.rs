//! What this machine and this process are.

use std::io;
use std::path::{Path, PathBuf};

/// Symbolic links that are followed on the way to a place that is not there yet.
const MAX_LINKS: u32 = 40;

const TMPFS: i128 = 0x0102_1994;
const RAMFS: i128 = 0x8584_58f6;
const OVERLAYFS: i128 = 0x794c_7630;

/// A process, so that another one with its number later is not taken for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

/// The machine's name.
///
/// # Errors
/// What the operating system says.
pub fn hostname() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// The name of this boot: another one means that nothing that ran then still runs.
///
/// # Errors
/// What the operating system says.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The machine's lasting id; `None` where it has none (yet).
///
/// # Errors
/// What the operating system says.
pub fn machine_id() -> io::Result<Option<String>> {
    let text = match std::fs::read_to_string("/etc/machine-id") {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let id = text.trim();
    let fits = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    Ok(fits.then(|| id.to_owned()))
}

/// Whether this process acts as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// This process.
///
/// # Errors
/// What the operating system says.
pub fn own_process() -> io::Result<ProcessIdentity> {
    let pid = std::process::id();
    let (_, start_time) = state_and_start(&std::fs::read("/proc/self/stat")?)?;
    Ok(ProcessIdentity { pid, start_time })
}

/// Whether this very process of this boot still lives. One that has ended and only waits to be
/// reaped is dead: its files and locks are released.
///
/// # Errors
/// What the operating system says, where that cannot be told.
pub fn process_alive(pid: u32, start_time: u64) -> io::Result<bool> {
    let stat = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            return Ok(false);
        }
        Err(e) => return Err(e),
    };
    let (state, start) = state_and_start(&stat)?;
    Ok(start == start_time && !matches!(state, b'Z' | b'X'))
}

/// Whether somebody keeps this very process from going on (`SIGSTOP`, a debugger, a frozen group is
/// not seen). One that is gone is not kept from anything.
///
/// # Errors
/// What the operating system says, where that cannot be told.
pub fn process_halted(pid: u32, start_time: u64) -> io::Result<bool> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            let (state, start) = state_and_start(&stat)?;
            Ok(start == start_time && matches!(state, b'T' | b't'))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Fields 3 and 22 of a process's `stat`. The name before them may hold blanks and brackets.
fn state_and_start(stat: &[u8]) -> io::Result<(u8, u64)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a process's stat is not understood");
    let end = stat.iter().rposition(|&b| b == b')').ok_or_else(wrong)?;
    let rest = std::str::from_utf8(&stat[end + 1..]).map_err(|_| wrong())?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|f| f.bytes().next()).ok_or_else(wrong)?;
    let start = fields.nth(18).and_then(|f| f.parse().ok()).ok_or_else(wrong)?;
    Ok((state, start))
}

/// Whether what is written to a directory would be gone after a reboot: it lies in memory, or on an
/// overlay as containers have at their root. A directory that is not there yet is judged by the
/// nearest one above it that is.
///
/// # Errors
/// What the operating system says.
pub fn is_volatile(path: &Path) -> io::Result<bool> {
    let place = nearest_existing(path)?;
    // The field's type differs between architectures.
    let kind = i128::from(rustix::fs::statfs(&place)?.f_type);
    Ok(matches!(kind, TMPFS | RAMFS | OVERLAYFS))
}

fn nearest_existing(path: &Path) -> io::Result<PathBuf> {
    let mut place = std::path::absolute(path)?;
    let mut links = 0;
    loop {
        match std::fs::metadata(&place) {
            Ok(_) => return Ok(place),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let parent = place.parent().map(Path::to_path_buf).ok_or(io::ErrorKind::NotFound)?;
        // A link that leads nowhere yet counts for where it leads.
        place = match std::fs::read_link(&place) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                parent.join(target)
            }
            Ok(_) => return Err(rustix::io::Errno::LOOP.into()),
            Err(_) => parent,
        };
    }
}

/// Descriptors that one of the holders of many may keep open: a share of what this process may have,
/// which leaves room for everything else, and no more than 256.
#[must_use]
pub fn descriptor_share() -> usize {
    const OTHERS: u64 = 128;
    const HOLDERS: u64 = 3;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.unwrap_or(u64::MAX).saturating_sub(OTHERS) / HOLDERS;
    usize::try_from(share.clamp(16, 256)).unwrap_or(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there() {
        assert!(!hostname().unwrap().is_empty());
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(machine_id().unwrap().is_none_or(|id| id.len() == 32));
    }

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let own = own_process().unwrap();
        assert!(process_alive(own.pid, own.start_time).unwrap());
        assert!(!process_alive(own.pid, own.start_time + 1).unwrap());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let stat = std::fs::read(format!("/proc/{}/stat", child.id())).unwrap();
        let (_, start) = state_and_start(&stat).unwrap();
        assert!(process_alive(child.id(), start).unwrap());
        child.kill().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let look = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), look).unwrap();
        assert!(!process_alive(child.id(), start).unwrap(), "a zombie is dead");
        child.wait().unwrap();
        assert!(!process_alive(child.id(), start).unwrap());
    }

    #[test]
    fn odd_process_names_do_not_confuse() {
        let stat = b"7 (a) b) (c) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(state_and_start(stat).unwrap(), (b'S', 4242));
        assert!(state_and_start(b"7 (a S 1").is_err());
        assert!(state_and_start(b"7 (a) S 1 2").is_err());
    }

    #[test]
    fn memory_is_volatile_and_absent_places_are_judged_by_their_parent() {
        assert!(is_volatile(Path::new("/dev/shm/not/there/yet")).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let expected = is_volatile(dir.path()).unwrap();
        assert_eq!(is_volatile(&dir.path().join("a/b")).unwrap(), expected);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/shm/not-there", &link).unwrap();
        assert!(is_volatile(&link.join("below")).unwrap());
        let looped = dir.path().join("loop");
        std::os::unix::fs::symlink("loop", &looped).unwrap();
        assert!(is_volatile(&looped).is_err());
    }
}
