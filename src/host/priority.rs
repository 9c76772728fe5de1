//! Giving way: a thread's own share of processor and disk.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// The nice value of who gives way: a ninth of the share of an ordinary thread.
pub const NICE: i32 = 10;

/// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`; with 0 behind it, the calling thread.
const WHO_PROCESS: libc::c_int = 1;

/// `IOPRIO_CLASS_IDLE`, and where a class stands in the number.
const CLASS_IDLE: libc::c_int = 3;
const CLASS_SHIFT: u32 = 13;

/// Gives the calling thread, and no other, the idle class of I/O and a nice value of [`NICE`].
/// Neither needs a privilege, and only the second would need one to be given back: threads that are
/// to work at full speed are others.
///
/// # Errors
/// What the operating system says.
pub fn give_way() -> io::Result<()> {
    rustix::process::setpriority_process(None, NICE)?;
    let wanted = CLASS_IDLE << CLASS_SHIFT;
    // SAFETY: ioprio_set takes three integers and touches no memory of this process.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_and_nice() -> (libc::c_long, i32) {
        // SAFETY: ioprio_get takes two integers and touches no memory of this process.
        let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
        (priority >> CLASS_SHIFT, rustix::process::getpriority_process(None).unwrap())
    }

    #[test]
    fn only_the_thread_that_asks_gives_way() {
        let before = class_and_nice();
        let inside = std::thread::spawn(|| {
            give_way().unwrap();
            class_and_nice()
        });
        assert_eq!(inside.join().unwrap(), (3, NICE));
        assert_eq!(class_and_nice(), before);
    }
}
