//! A gate at which a process is halted: the opening of one file.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::until;

/// Whoever opens the file has to ask here first.
pub(crate) struct Gate(Fanotify);

impl Gate {
    /// `None` where the kernel or the rights do not allow it.
    pub(crate) fn at(file: &Path) -> Option<Self> {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC).ok()?;
        let here = File::open("/").unwrap();
        let mask = MaskFlags::FAN_OPEN_PERM;
        group.mark(MarkFlags::FAN_MARK_ADD, mask, here.as_fd(), Some(file)).ok()?;
        Some(Self(group))
    }

    /// Waits until the process opens the file, and halts all of it. The file is open then, and not
    /// a byte of it is read.
    #[track_caller]
    pub(crate) fn halt(self, process: u32) -> Halted {
        let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
        until(240, "the gate", || {
            let mut came = false;
            for event in self.0.read_events().unwrap_or_default() {
                if event.pid() == pid.as_raw_nonzero().get() {
                    kill_process(pid, Signal::STOP).unwrap();
                    came = true;
                }
                let fd = event.fd().expect("the queue did not overflow");
                let answer = FanotifyResponse::new(fd, Response::FAN_ALLOW);
                self.0.write_response(answer).unwrap();
            }
            came
        });
        until(60, "the halt", || is_halted(process));
        Halted(pid)
    }
}

/// Whether all threads of a process stand still.
fn is_halted(process: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

/// A process that stands still until this is dropped.
pub(crate) struct Halted(Pid);

impl Drop for Halted {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}
