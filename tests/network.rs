//! Network file systems: what their caches hide is seen, and what hangs stops nobody.

#[path = "common/mod.rs"]
mod common;
#[path = "common/fuse/mod.rs"]
mod fuse;

#[path = "network/views.rs"]
mod views;

use std::path::PathBuf;

use fuse::{Options, View};

/// Two mounts of one directory.
struct Views {
    a: View,
    b: View,
    below: PathBuf,
    _dir: tempfile::TempDir,
}

/// Mounts a directory twice, or says why that cannot be done here.
fn two_views(options: &Options) -> Option<Views> {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let below = place("below");
    let mounted = View::new(&below, &place("a"), options)
        .and_then(|a| Ok((a, View::new(&below, &place("b"), options)?)));
    match mounted {
        Ok((a, b)) => Some(Views { a, b, below, _dir: dir }),
        Err(e) => {
            common::skip(&format!("FUSE cannot be mounted: {e}"));
            None
        }
    }
}
