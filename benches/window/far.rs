//! A tree from far away: a FUSE file system that adds a millisecond to each metadata call.

use std::path::Path;
use std::time::Duration;

use cabk::host::clock::{Clock, SystemClock};

use crate::common::time;
use crate::fuse::{Options as Ways, View};
use crate::options::Options;
use crate::repository::{Reads, make};
use crate::tree::Tree;

const DELAY: Duration = Duration::from_millis(1);

/// Looks at a tree through it, and again.
pub(crate) fn away(options: &Options, scratch: &Path) {
    let tree = Tree::make(&scratch.join("near"), options);
    let point = scratch.join("far");
    std::fs::create_dir(&point).unwrap();
    let view = match View::new(&tree.top, &point, &Ways::slow(Duration::ZERO)) {
        Ok(view) => view,
        Err(e) => return println!("\nFUSE cannot be mounted: {e}"),
    };
    println!("\na file system that adds 1 ms to each metadata call: {} files", options.files);
    // Its times count by seconds.
    SystemClock.sleep(Duration::from_secs(3));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut reads = Reads::new(make(scratch), &view.path(""), threads);
    reads.read(true);
    view.set_delay(DELAY);
    view.calls();
    for _ in 0..options.rounds.min(3) {
        let (took, forest) = time(|| reads.read(false));
        line("a look at all", took.wall, view.calls().values().sum());
        assert_eq!(forest.seen.bytes_read, 0);
        let (took, same) = time(|| reads.look_again(&forest).is_same());
        line("a second look", took.wall, view.calls().values().sum());
        assert!(same);
    }
    view.set_delay(Duration::ZERO);
}

fn line(name: &str, took: Duration, calls: u64) {
    let (took, alone) = (took.as_secs_f64(), calls as f64 * DELAY.as_secs_f64());
    println!(
        "  {name:<20} {took:>7.2} s, {calls} calls that take {alone:.0} s one by one: 1/{:.0}",
        alone / took
    );
}
