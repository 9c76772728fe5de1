//! How long a service stands still: windows over a large tree of which a thousand files change in the
//! last moment, beside the plainest walk of that tree and beside `rsync`'s second pass over it.
//!
//! `cargo bench --bench window -- --help` tells the options. It takes root where images are made and
//! mounted; without root, or with `--dir`, a directory serves.

mod common;
#[path = "window/disk.rs"]
mod disk;
#[path = "window/far.rs"]
mod far;
#[path = "window/floor.rs"]
mod floor;
#[path = "window/foreign.rs"]
mod foreign;
#[path = "../tests/common/fuse/mod.rs"]
mod fuse;
#[path = "window/options.rs"]
mod options;
#[path = "common/repository.rs"]
mod repository;
#[path = "window/site.rs"]
mod site;
#[path = "window/tree.rs"]
mod tree;

use std::path::Path;
use std::time::Duration;

use common::{scratch, time};
use disk::{Disk, overlay};
use foreign::Foreign;
use options::Options;
use site::{Site, Window};
use tree::Tree;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if foreign::is_one(&words) {
        return foreign::stay(&words);
    }
    let options = match Options::read(&words) {
        Ok(options) => options,
        Err(said) => return println!("{said}"),
    };
    if options.far {
        return far::away(&options, scratch().path());
    }
    for fs in &options.fs {
        let dir = scratch();
        let Some(disk) = Disk::make(&options, fs, dir.path()) else { continue };
        on(&options, fs, dir.path(), disk.path());
    }
}

/// All measurements on one file system.
fn on(options: &Options, fs: &str, scratch: &Path, place: &Path) {
    let (made, tree) = time(|| Tree::make(place, options));
    println!("\n{fs}: {} files in {} directories", options.files, tree.dirs);
    println!("  making them took {:.0} s", made.wall.as_secs_f64());
    let site = Site::new(scratch, "site", &tree.top, options);
    let (first, _) = time(|| site.window(&[]));
    println!("  the first snapshot took {:.0} s", first.wall.as_secs_f64());
    let foreign = Foreign::begin(options, place);
    println!(
        "  {} processes with {} descriptors stand by",
        options.processes,
        options.processes * options.descriptors
    );
    let floors = floor::stat(&tree.top, options.rounds);
    line("floor-stat: getdents and statx of all, one thread", &floors, floors[0]);
    let floor = median(&floors);
    windows(options, &site, &tree, "nothing changed", 0, floor, &[]);
    windows(options, &site, &tree, "changed", options.changed, floor, &[]);
    // An overlay cannot be frozen.
    if options.whole && options.freeze.is_none() {
        below_an_overlay(options, scratch, &tree);
    }
    if options.rsync {
        rsync(options, scratch, &tree, floor);
    }
    drop(foreign);
}

/// Windows, as many as there are rounds, and what they took.
fn windows(
    options: &Options,
    site: &Site,
    tree: &Tree,
    name: &str,
    changed: u64,
    floor: Duration,
    more: &[&str],
) {
    let mut all: Vec<Window> = Vec::new();
    for round in 0..options.rounds {
        site.will_change(&tree.some(changed, round as u64));
        all.push(site.window(more));
    }
    let each = |of: fn(&Window) -> Duration| all.iter().map(of).collect::<Vec<_>>();
    let head = if changed == 0 { name.to_owned() } else { format!("{changed} files {name}") };
    line(&format!("window, {head}"), &each(|w| w.wall), floor);
    line("  processor time in it", &each(|w| w.cpu), floor);
    let scans = all.iter().flat_map(|w| w.scans.iter().copied()).collect::<Vec<_>>();
    if !scans.is_empty() {
        line("  one scan of processes", &scans, floor);
    }
    line("  without the scan before the start", &each(Window::without_last_scan), floor);
    println!("  {}", all.last().map_or("", |w| &w.how));
}

/// An overlay's events are refused by the kernel: everything is looked at, twice.
fn below_an_overlay(options: &Options, scratch: &Path, tree: &Tree) {
    let beside = tree.top.with_file_name("beside");
    let Some(seen) = overlay(&tree.top, &beside) else {
        println!("  an overlay cannot be mounted: no window without events");
        return;
    };
    let site = Site::new(scratch, "overlaid", &tree.top, options).seen_at(seen.path());
    site.window(&[]);
    let floors = floor::stat(seen.path(), options.rounds);
    line("floor-stat through an overlay", &floors, floors[0]);
    let floor = median(&floors);
    windows(options, &site, tree, "changed, no events", options.changed, floor, &[]);
}

/// What a copy with `rsync` needs in the same place of its work.
fn rsync(options: &Options, scratch: &Path, tree: &Tree, floor: Duration) {
    let copy = scratch.join("copy");
    let pass = || {
        let mut command = std::process::Command::new("rsync");
        command.arg("-a").arg(format!("{}/", tree.top.display())).arg(&copy);
        command.status().is_ok_and(|status| status.success())
    };
    if !pass() {
        println!("  rsync is not there, or failed");
        return;
    }
    let mut all = Vec::new();
    for round in 0..options.rounds.min(3) {
        for path in tree.some(options.changed, 1_000 + round as u64) {
            tree::append(&path);
        }
        let (took, done) = time(pass);
        assert!(done);
        all.push(took.wall);
    }
    line(&format!("rsync -a, second pass, {} files changed", options.changed), &all, floor);
    // A dead copy of all files would slow whatever comes after it.
    std::fs::remove_dir_all(&copy).unwrap();
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

/// One line: median, least and most, and the median beside the floor.
fn line(name: &str, times: &[Duration], floor: Duration) {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let (least, most) = (times.iter().min(), times.iter().max());
    let beside = ms(median(times)) / ms(floor).max(1e-6);
    println!(
        "  {name:<58} {:>8.0} ms ({:.0} to {:.0})  x floor {beside:.2}",
        ms(median(times)),
        least.copied().map_or(0.0, ms),
        most.copied().map_or(0.0, ms)
    );
}
