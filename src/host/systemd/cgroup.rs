//! The processes of control groups of this machine.

use std::io;
use std::path::Path;

use crate::host::service::ServiceError;

/// How deep control groups are followed below the unit's own.
const MAX_CGROUP_DEPTH: u32 = 64;

/// Adds the processes of a control group and of those below it. A group that is gone has none.
pub(super) fn collect_processes(
    dir: &Path,
    depth: u32,
    pids: &mut Vec<u32>,
) -> Result<(), ServiceError> {
    let failed = |path: &Path, source: io::Error| ServiceError::Cgroup {
        path: path.display().to_string(),
        source,
    };
    if depth > MAX_CGROUP_DEPTH {
        return Err(failed(dir, io::Error::other("control groups are nested too deeply")));
    }
    let file = dir.join("cgroup.procs");
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            for line in text.lines() {
                let pid = line.trim().parse().map_err(|_| {
                    failed(&file, io::Error::new(io::ErrorKind::InvalidData, "not a process id"))
                })?;
                pids.push(pid);
            }
        }
        Err(e) if is_gone(&e) => return Ok(()),
        // A threaded group: its processes are listed in the group above it.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {}
        Err(e) => return Err(failed(&file, e)),
    }
    let names = match std::fs::read_dir(dir) {
        Ok(names) => names,
        Err(e) if is_gone(&e) => return Ok(()),
        Err(e) => return Err(failed(dir, e)),
    };
    for name in names {
        let name = match name {
            Ok(name) => name,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(failed(dir, e)),
        };
        if name.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&name.path(), depth + 1, pids)?;
        }
    }
    Ok(())
}

/// Whether a group went away while it was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}
