//! Network file systems: what their caches hide is seen, and what hangs stops nobody.

mod common;
#[path = "common/fuse/mod.rs"]
mod fuse;
#[path = "common/site.rs"]
mod site;
#[path = "common/world.rs"]
mod world;

#[path = "network/hangs.rs"]
mod hangs;
#[path = "network/stale.rs"]
mod stale;
#[path = "network/views.rs"]
mod views;

use std::path::PathBuf;

use fuse::{Options, View};
use site::Site;
use world::World;

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

/// A site whose data directory is a view of `below`, and a second view of it at `b`.
struct Mounted {
    a: View,
    b: View,
    site: Site,
}

impl Mounted {
    fn new(options: &Options) -> Option<Self> {
        let world = World::new();
        let place = |name: &str| {
            let path = world.path(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let below = place("below");
        let mounted = View::new(&below, &place("data"), options)
            .and_then(|a| Ok((a, View::new(&below, &place("b"), options)?)));
        match mounted {
            Ok((a, b)) => Some(Self { a, b, site: Site::of(world) }),
            Err(e) => {
                common::skip(&format!("FUSE cannot be mounted: {e}"));
                None
            }
        }
    }

    /// What a snapshot holds of a file in the data directory.
    fn kept(&self, id: &str, name: &str) -> String {
        let inside = self.site.world.look();
        let tree = inside.tree(id);
        let entry = &tree[&world::bytes(&self.site.path("data").join(name))];
        String::from_utf8(inside.bytes(entry)).unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.a.release();
        self.b.release();
    }
}
