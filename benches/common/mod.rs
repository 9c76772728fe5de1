//! A small harness: medians of repeated runs, each beside the floor that the machine itself sets.
//!
//! `cargo bench` measures small sizes, in less than a minute a file; `CABK_BENCH_FULL=1` the full
//! ones. Beside wall times stands what all threads of the process used of the processors: on a
//! machine that others use too, only that and ratios within one run mean something.

#![allow(dead_code)] // not every bench uses all of it

use std::path::PathBuf;
use std::time::Duration;

use cabk::host::clock::{Clock, SystemClock};

/// Repetitions of a measurement.
pub(crate) const RUNS: usize = 5;

/// The full size if `CABK_BENCH_FULL=1` asks for it, else the small one.
pub(crate) fn sized(small: u64, full: u64) -> u64 {
    if std::env::var_os("CABK_BENCH_FULL").is_some_and(|v| v == "1") { full } else { small }
}

/// What one run worked through.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Bytes, shown as MiB/s.
    Bytes(u64),
    /// Things, shown as so many a second.
    Items(u64),
}

/// How long something took.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    /// By the clock.
    pub(crate) wall: Duration,
    /// Of the processors, by all threads.
    pub(crate) cpu: Duration,
}

fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// How long `f` takes.
pub(crate) fn time<T>(f: impl FnOnce() -> T) -> (Took, T) {
    let (wall, used) = (SystemClock.monotonic(), cpu());
    let value = std::hint::black_box(f());
    let took = Took {
        wall: SystemClock.monotonic().saturating_sub(wall),
        cpu: cpu().saturating_sub(used),
    };
    (took, value)
}

/// A table of measurements; the newest floor is what the lines below it are compared with.
pub(crate) struct Table {
    floor: Option<Took>,
}

impl Table {
    /// Begins a table.
    pub(crate) fn new(title: &str) -> Self {
        println!("\n{title}");
        let (wall, cpu, rate, beside) = ("wall ms", "cpu ms", "rate (wall)", "x floor wall/cpu");
        println!("{:<42} {wall:>9} {cpu:>9} {rate:>15} {beside:>17}", "");
        Self { floor: None }
    }

    /// Measures what the machine itself needs for the work of the lines below.
    pub(crate) fn floor<T>(&mut self, name: &str, work: Work, mut f: impl FnMut() -> T) {
        std::hint::black_box(f());
        self.given_floor(name, work, (0..RUNS).map(|_| time(&mut f).0).collect());
    }

    /// As [`Self::floor`], for times that were taken elsewhere.
    pub(crate) fn given_floor(&mut self, name: &str, work: Work, times: Vec<Took>) {
        self.floor = None;
        self.floor = Some(self.given(&format!("floor: {name}"), work, times));
    }

    /// Measures: a run to warm up, then the median of [`RUNS`].
    pub(crate) fn line<T>(&mut self, name: &str, work: Work, mut f: impl FnMut() -> T) {
        std::hint::black_box(f());
        self.given(name, work, (0..RUNS).map(|_| time(&mut f).0).collect());
    }

    /// A line for times that were taken elsewhere.
    pub(crate) fn given(&mut self, name: &str, work: Work, times: Vec<Took>) -> Took {
        let took = Took {
            wall: median(times.iter().map(|t| t.wall)),
            cpu: median(times.iter().map(|t| t.cpu)),
        };
        let seconds = |d: Duration| d.as_secs_f64().max(1e-9);
        let rate = match work {
            Work::Bytes(n) => {
                format!("{:.0} MiB/s", n as f64 / seconds(took.wall) / f64::from(1 << 20))
            }
            Work::Items(n) => format!("{:.0} /s", n as f64 / seconds(took.wall)),
        };
        let beside = self.floor.map_or("-".into(), |floor| {
            let wall = seconds(took.wall) / seconds(floor.wall);
            format!("{wall:.2} / {:.2}", seconds(took.cpu) / seconds(floor.cpu))
        });
        let (wall, cpu) = (took.wall.as_secs_f64() * 1e3, took.cpu.as_secs_f64() * 1e3);
        println!("{name:<42} {wall:>9.1} {cpu:>9.1} {rate:>15} {beside:>17}");
        took
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// A directory for what a bench writes; gone when it ends.
pub(crate) fn scratch() -> tempfile::TempDir {
    let place = std::env::var_os("CABK_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("cabk-bench-").tempdir_in(place).unwrap()
}

/// Bytes that no compressor shrinks, the same in every run.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Bytes that shrink about as program text does: words out of a list, in an order of their own.
pub(crate) fn text(len: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "function",
        "return",
        "const",
        "value",
        "render",
        "(",
        ")",
        " = ",
        "\n    ",
        "this.",
        "data",
        "frame",
        "index",
        "plot",
        "server",
        "input$",
        "output$",
        "library",
        "[",
        "]",
        ", ",
        "0x",
        "stylesheet",
        ";\n",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 32);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(WORDS[(state >> 32) as usize % WORDS.len()].as_bytes());
        if state.is_multiple_of(5) {
            out.extend_from_slice(format!("{:x}", state >> 40).as_bytes());
        }
    }
    out.truncate(len);
    out
}

/// A field of `/proc/self/status` in KiB: `VmRSS`, `VmHWM`.
pub(crate) fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap()
}
