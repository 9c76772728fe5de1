//! Large files: memory stays bounded, and a second day's metadata is in proportion to what changed.
//!
//! Ordinarily with files of 64 MiB. `CABK_LONG=1`: a file of 20 GB (or `CABK_LONG_BYTES`) and a
//! database of 20 GB, which need 45 GB of room below `CABK_LONG_DIR` (default: the temporary
//! directory).

mod common;

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cabk::backend::local::LocalBackend;
use cabk::backend::{ObjectName, Space};
use cabk::base::id::SegmentId;
use cabk::base::secret::Password;
use cabk::format::pack::Class;
use cabk::host::clock::{Clock, SystemClock};
use cabk::host::entropy::SystemEntropy;
use cabk::ops::session::{self, Location};
use cabk::store::accelerator::read_segment;
use cabk::store::cut::ChunkSizes;
use cabk::store::repository::{InitOptions, Unlock, init};

const PASSWORD: &[u8] = b"large";
/// Peak memory of a snapshot, in KiB.
const RSS_MAX_KIB: u64 = 150 << 10;

fn is_long() -> bool {
    std::env::var_os("CABK_LONG").is_some_and(|v| v == "1")
}

/// How large, in how many runs a hundredth of it changes, and how much metadata that may make: per
/// thousand of the changed bytes.
struct Size {
    bytes: u64,
    runs: u64,
    metadata_permille: u64,
}

/// Fast noise that no two calls repeat.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, out: &mut [u8]) {
        let mut lanes = [self.0, !self.0, self.0.rotate_left(17), self.0 ^ 0x9e37_79b9_7f4a_7c15];
        for eight in out.chunks_mut(32) {
            for (lane, bytes) in lanes.iter_mut().zip(eight.chunks_mut(8)) {
                *lane ^= *lane << 13;
                *lane ^= *lane >> 7;
                *lane ^= *lane << 17;
                bytes.copy_from_slice(&lane.to_le_bytes()[..bytes.len()]);
            }
        }
        self.0 = lanes[0].wrapping_add(lanes[3]) | 1;
    }
}

fn generate(path: &Path, bytes: u64, noise: &mut Noise) {
    let mut file = File::create(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        noise.fill(&mut buffer[..n]);
        file.write_all(&buffer[..n]).unwrap();
        left -= n as u64;
    }
    assert_eq!(file.metadata().unwrap().len(), bytes);
}

/// A database of at least so many bytes: rows of text.
fn generate_database(path: &Path, bytes: u64, noise: &mut Noise) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "off").unwrap();
    db.pragma_update(None, "synchronous", "off").unwrap();
    db.execute_batch("create table log (id integer primary key, line text); begin").unwrap();
    let mut insert = db.prepare("insert into log (line) values (?1)").unwrap();
    let mut raw = [0; 96];
    let pages =
        || db.pragma_query_value(None, "page_count", |r| r.get::<_, i64>(0)).unwrap() as u64;
    while pages() * 4096 < bytes {
        for _ in 0..5_000 {
            noise.fill(&mut raw);
            let words: String = raw.iter().map(|b| format!("{b:02x} request ")).collect();
            insert.execute([&words[..500 + usize::from(raw[0])]]).unwrap();
        }
    }
    drop(insert);
    db.execute_batch("commit").unwrap();
}

/// Writes noise over a hundredth of a file, in runs that lie as far apart as they can. Returns how
/// many bytes that are.
fn change(path: &Path, runs: u64, noise: &mut Noise) -> u64 {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut buffer = vec![0; usize::try_from(size / 100 / runs).unwrap()];
    for run in 0..runs {
        noise.fill(&mut buffer);
        // Behind the first pages, which say what the file is; at no boundary of anything.
        file.write_all_at(&buffer, size / runs * run + 100_001).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), size);
    let changed = buffer.len() as u64 * runs;
    assert!(changed <= size / 100 && changed + runs > size / 100, "{changed} of {size}");
    changed
}

struct Lab {
    dir: tempfile::TempDir,
    objects: HashSet<ObjectName>,
    /// Peak memory of the snapshots so far, in KiB.
    peak_kib: u64,
}

/// What a snapshot added to the repository.
#[derive(Debug)]
struct Growth {
    packs: usize,
    segments: usize,
    /// All bytes of new objects.
    bytes: u64,
    /// Bytes of sealed bodies of blocks that hold files' bytes.
    bodies: u64,
}

impl Growth {
    /// Trees, lists, tables, footers, headers, index segments, manifests, notes, lease ends.
    fn metadata(&self) -> u64 {
        self.bytes - self.bodies
    }
}

impl Lab {
    fn new() -> Self {
        let place =
            std::env::var_os("CABK_LONG_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("cabk-large-").tempdir_in(place);
        let dir = dir.unwrap();
        std::fs::create_dir(dir.path().join("source")).unwrap();
        let password = Password::new(PASSWORD.to_vec());
        let options = InitOptions {
            password: Some(&password),
            compression: 3,
            parity_percent: 0,
            sizes: ChunkSizes::DEFAULT,
            related_to: None,
            now: SystemClock.now(),
        };
        let backend = Arc::new(LocalBackend::create(&dir.path().join("repository")).unwrap());
        init(backend, Arc::new(SystemEntropy), &options).unwrap();
        Self { dir, objects: HashSet::new(), peak_kib: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A snapshot by the program, in a process of its own; its result, and what it added.
    fn snapshot(&mut self) -> (serde_json::Value, Growth) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cabk"))
            .args(["--json", "snapshot", "--already-stopped", "--path"])
            .arg(self.path("source"))
            .env_clear()
            .env("HOME", self.path("home"))
            .env("CABK_REPO", self.path("repository"))
            .env("CABK_PASSWORD", str::from_utf8(PASSWORD).unwrap())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("CABK_STATE_DIR", self.path("state"))
            .current_dir("/")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.peak_kib = self.peak_kib.max(watch(&mut child));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["kind"], "snapshot", "{result}");
        (result, self.growth())
    }

    fn growth(&mut self) -> Growth {
        let place = Location { repository: self.path("repository"), cache: None };
        let unlock = || Some(Unlock::Password(Password::new(PASSWORD.to_vec())));
        let repository = session::open(&place, unlock).unwrap().repository;
        let mut growth = Growth { packs: 0, segments: 0, bytes: 0, bodies: 0 };
        for space in Space::ALL {
            for (name, len) in repository.backend().list(space).unwrap() {
                if !self.objects.insert(name.clone()) {
                    continue;
                }
                growth.bytes += len;
                growth.packs += usize::from(space == Space::Packs);
                if space != Space::Index {
                    continue;
                }
                growth.segments += 1;
                let id = SegmentId::parse(name.name()).unwrap();
                let packs = read_segment(&repository, &id).unwrap().packs;
                let blocks = packs.iter().flat_map(|p| &p.blocks);
                let data = blocks.filter(|b| b.header.class != Class::Tree);
                growth.bodies += data.map(|b| u64::from(b.header.body_len)).sum::<u64>();
            }
        }
        growth
    }
}

/// Waits for the end of a process; its peak memory in KiB, as of 10 ms before at the latest. What the
/// kernel tells at the end would count the memory of this process too, which the child was made of.
fn watch(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let program = std::fs::canonicalize(env!("CARGO_BIN_EXE_cabk")).unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let own = std::fs::read_link(format!("/proc/{}/exe", child.id()));
        let said = std::fs::read_to_string(&status).unwrap_or_default();
        let found = said
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        if own.is_ok_and(|exe| exe == program) {
            peak = found.unwrap_or(peak);
        }
        SystemClock.sleep(Duration::from_millis(10));
    }
    assert!(peak > 0, "a snapshot took less than 10 ms");
    peak
}

fn days(what: &str, size: &Size, make: impl Fn(&Path, u64, &mut Noise)) {
    let mut lab = Lab::new();
    let mut noise = Noise(0x5eed | 1);
    let file = lab.path("source").join(what);
    make(&file, size.bytes, &mut noise);
    let bytes = file.metadata().unwrap().len();
    let (first, grown) = lab.snapshot();
    assert_eq!(first["summary"]["bytes"], bytes);
    eprintln!("{what}: {bytes} bytes: {grown:?}, {} KiB at most", lab.peak_kib);
    assert!(grown.bodies > 0 && grown.metadata() < bytes / 30, "{grown:?}");
    assert!(lab.peak_kib <= RSS_MAX_KIB, "{} KiB", lab.peak_kib);

    let changed = change(&file, size.runs, &mut noise);
    let (_, grown) = lab.snapshot();
    let (metadata, allowed) = (grown.metadata(), changed * size.metadata_permille / 1000);
    eprintln!(
        "{what}: {changed} bytes changed in {} runs: {grown:?}, metadata {:.2} % of them, {} KiB",
        size.runs,
        metadata as f64 * 100.0 / changed as f64,
        lab.peak_kib
    );
    assert!(metadata <= allowed, "{metadata} bytes of metadata for {changed} changed ones");
    assert!(lab.peak_kib <= RSS_MAX_KIB, "{} KiB", lab.peak_kib);

    let (third, grown) = lab.snapshot();
    // The times of the directories above the source are in the tree, and others use those.
    assert_eq!(grown.bodies, 0, "{grown:?}");
    assert!(grown.bytes < 16 << 10 && grown.packs <= 1, "{grown:?}");
    assert_eq!(third["summary"]["files_unmodified"], 1);
}

#[test]
fn a_large_file_costs_what_changed_of_it() {
    let size = if is_long() {
        let bytes = std::env::var("CABK_LONG_BYTES").map(|n| n.parse().unwrap());
        Size { bytes: bytes.unwrap_or(20_000_000_000), runs: 100, metadata_permille: 20 }
    } else {
        Size { bytes: 64 << 20, runs: 1, metadata_permille: 20 }
    };
    days("generated", &size, generate);
}

#[test]
fn a_large_database_costs_what_changed_of_it() {
    // Up to 8 GiB pages keep their 4 KiB, of which names in tables and lists are 3 to 4 %.
    let size = if is_long() {
        Size { bytes: 20_000_000_000, runs: 100, metadata_permille: 20 }
    } else {
        Size { bytes: 64 << 20, runs: 1, metadata_permille: 50 }
    };
    days("large.db", &size, generate_database);
}
