//! The texts that `/proc` keeps of a process.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::base::path::printable;

/// Characters of a command line that are shown.
const MAX_COMMAND: usize = 200;

/// Bit of a task's flags: it is one of the kernel's own.
const PF_KTHREAD: u64 = 0x0020_0000;

const O_ACCMODE: u32 = 0o3;
const O_PATH: u32 = 0o1000_0000;

/// Reads a whole file of `/proc`.
pub(super) fn read(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Vec<u8>> {
    let file = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        bytes.reserve(4096);
        if rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))? == 0 {
            return Ok(bytes);
        }
    }
}

/// Name, arguments and effective user of a process. What cannot be read is left out: the use that
/// was found counts all the same.
pub(super) fn who(dir: BorrowedFd<'_>) -> (String, u32) {
    let name = read(dir, "comm").unwrap_or_default();
    let mut line = read(dir, "cmdline").unwrap_or_default();
    while line.last() == Some(&0) {
        line.pop();
    }
    for byte in line.iter_mut().filter(|byte| **byte == 0) {
        *byte = b' ';
    }
    let name = printable(name.trim_ascii_end());
    let line = printable(&line);
    let mut command = if line.is_empty() { name } else { format!("{name}: {line}") };
    if let Some((at, _)) = command.char_indices().nth(MAX_COMMAND) {
        command.truncate(at);
        command.push_str("...");
    }
    let status = read(dir, "status").unwrap_or_default();
    let uid = effective_uid(&status);
    let owner = || super::look(dir, "", rustix::fs::AtFlags::EMPTY_PATH).map(|stat| stat.stx_uid);
    (command, uid.or_else(|| owner().ok()).unwrap_or(u32::MAX))
}

fn effective_uid(status: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(status);
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The flags of an open descriptor; `None` where it is gone or out of sight.
pub(super) fn open_flags(task: BorrowedFd<'_>, fd: u32) -> Option<u32> {
    let info = read(task, &format!("fdinfo/{fd}")).ok()?;
    let text = String::from_utf8_lossy(&info);
    let digits = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(digits.trim(), 8).ok()
}

/// Whether a descriptor with these flags can be written through.
pub(super) const fn allows_writing(flags: u32) -> bool {
    flags & O_PATH == 0 && matches!(flags & O_ACCMODE, 1 | 2)
}

/// Whether a process that could not be looked at has no files anyway: one of the kernel's own, or
/// one that has ended, whether it is reaped or not. The kernel denies the links of one that is gone.
pub(super) fn has_nothing(dir: BorrowedFd<'_>) -> bool {
    match read(dir, "stat") {
        Ok(stat) => is_empty_process(&stat),
        Err(error) => matches!(error, Errno::NOENT | Errno::SRCH),
    }
}

fn is_empty_process(stat: &[u8]) -> bool {
    let Some(end) = stat.iter().rposition(|&b| b == b')') else { return false };
    let rest = String::from_utf8_lossy(&stat[end + 1..]);
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let threads = fields.get(17).and_then(|count| count.parse::<u32>().ok());
    let ended = matches!(fields.first(), Some(&("Z" | "X"))) && threads.is_some_and(|n| n <= 1);
    let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok());
    ended || flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_allow_writing() {
        for (flags, writes) in [(0o100_000, false), (0o100_001, true), (0o2_100_002, true)] {
            assert_eq!(allows_writing(flags), writes, "{flags:o}");
        }
        assert!(!allows_writing(0o1000_0002));
    }

    #[test]
    fn kernel_threads_and_zombies_have_nothing() {
        let stat = |state: &str, flags: u64, threads: u32| {
            format!("9 (a) b) {state} 2 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 77 0")
        };
        assert!(is_empty_process(stat("S", PF_KTHREAD, 1).as_bytes()));
        assert!(is_empty_process(stat("Z", 0, 1).as_bytes()));
        assert!(!is_empty_process(stat("Z", 0, 3).as_bytes()));
        assert!(!is_empty_process(stat("S", 0x0040_0100, 1).as_bytes()));
        assert!(!is_empty_process(b"nonsense"));
    }

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective_uid(b"Name:\tx\nUid:\t1000\t33\t0\t33\n"), Some(33));
        assert_eq!(effective_uid(b""), None);
    }
}
