//! A small repository on disk with every kind of object in it, and what must be read out of it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cabk::backend::local::LocalBackend;
use cabk::backend::{Backend, ObjectName};
use cabk::base::id::{LeaseId, ManifestId, NoteId, PackId};
use cabk::base::path::{from_bytes, join};
use cabk::base::progress::Silent;
use cabk::base::secret::Password;
use cabk::base::time::Timestamp;
use cabk::format::control::{
    CondemnedBody, EndedBy, Fact, Holder, LeaseBody, LeaseEndBody, NoteBody,
};
use cabk::format::header::ObjectKind;
use cabk::format::manifest::RecordKind;
use cabk::format::pack::ChunkKind;
use cabk::format::tree::{Entry, Layout, Node};
use cabk::host::clock::SystemClock;
use cabk::host::entropy::SystemEntropy;
use cabk::host::signal::Interrupt;
use cabk::ops::check::{Options, Surroundings, check};
use cabk::ops::session::{self, Location, Session};
use cabk::record::catalogue;
use cabk::record::memory::Memory;
use cabk::store::cut::ChunkSizes;
use cabk::store::reader::{ReadError, Reader};
use cabk::store::repository::{InitOptions, Repository, Unlock, init, parse_master};

pub(crate) const PASSWORD: &str = "correct horse";

/// Damage as the tests look at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) object: String,
    pub(crate) kind: String,
    pub(crate) affects: Vec<ManifestId>,
}

/// What became of a check.
#[derive(Debug)]
pub(crate) enum Outcome {
    Checked(Vec<Found>),
    NotOpened(String),
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) files: usize,
    pub(crate) errors: usize,
}

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    master: Option<String>,
    expected: HashMap<ManifestId, Contents>,
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Seventy pages: more chunks than stand in an entry, so that there is a list. They compress well,
/// because a debug build deciphers slowly.
fn database(seed: u32) -> Vec<u8> {
    let mut out: Vec<u8> =
        (0..70).flat_map(|page| noise(seed * 100 + page, 16).repeat(256)).collect();
    out[..16].copy_from_slice(b"SQLite format 3\0");
    out[16..18].copy_from_slice(&4096u16.to_be_bytes());
    out
}

fn write_tree(root: &Path, day: u32) {
    std::fs::create_dir_all(root.join("apps/a/b")).unwrap();
    for n in 0..12 {
        let text = format!("file {n} of day {}\n", if n < 6 { 0 } else { day });
        std::fs::write(root.join(format!("apps/a/{n}.txt")), text.repeat(50)).unwrap();
    }
    std::fs::write(root.join("apps/a/b/noise"), noise(day, 20_000)).unwrap();
    std::fs::write(root.join("database.db"), database(day)).unwrap();
    std::fs::write(root.join("empty"), b"").unwrap();
}

fn contents(root: &Path) -> Contents {
    let mut out = Contents::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let path = cabk::base::path::bytes(entry.path()).to_vec();
            out.insert(path, std::fs::read(entry.path()).unwrap());
        }
    }
    out
}

impl Fixture {
    pub(crate) fn new(encrypted: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut this = Self { dir, master: None, expected: HashMap::new() };
        let password = Password::new(PASSWORD.into());
        let local: Arc<dyn Backend> = Arc::new(LocalBackend::create(&this.repository()).unwrap());
        let options = InitOptions {
            password: encrypted.then_some(&password),
            compression: 3,
            parity_percent: 0,
            sizes: ChunkSizes::DEFAULT,
            related_to: None,
            now: Timestamp::EPOCH,
        };
        let repository = init(local, Arc::new(SystemEntropy), &options).unwrap();
        if encrypted {
            let second = Password::new("another one".into());
            repository.add_slot(&second, "second", true, Timestamp::EPOCH).unwrap();
        }
        this.master = repository.export_master();
        let site = this.dir.path().join("site");
        for day in 1..=2 {
            write_tree(&site, day);
            let id = this.snapshot(&site);
            this.expected.insert(id, contents(&site));
            if day == 1 {
                this.open().unwrap().repository.rotate().unwrap();
            }
        }
        this.put_others();
        this
    }

    fn snapshot(&self, site: &Path) -> ManifestId {
        let output = Command::new(env!("CARGO_BIN_EXE_cabk"))
            .args(["--json", "--no-cache", "--site-name", "site", "--repo"])
            .arg(self.repository())
            .args(["snapshot", "--path"])
            .arg(site)
            .env_clear()
            .env("CABK_PASSWORD", PASSWORD)
            .env("CABK_STATE_DIR", self.state_dir())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        ManifestId::parse(value["id"].as_str().unwrap()).unwrap()
    }

    /// A capture, leases, notes and generations beside what snapshots wrote.
    fn put_others(&mut self) {
        let session = self.open().unwrap();
        let repository = &session.repository;
        let records = catalogue::load(repository).unwrap().records;
        let newest = records.last().unwrap().clone();
        let mut body = newest.body.clone();
        body.kind = RecordKind::Capture;
        body.predecessors = vec![newest.id];
        body.sequence += 1;
        let bytes = repository.seal_control(ObjectKind::Capture, &body).unwrap();
        let id = ManifestId::from_array(*blake3::hash(&bytes).as_bytes());
        repository.backend().put_new(&ObjectName::capture(&id), &[&bytes]).unwrap();
        self.expected.insert(id, self.expected[&newest.id].clone());
        let state = self.state_dir();
        let mut memory = Memory::load(&state, repository.id(), &SystemEntropy).unwrap();
        memory.remember(&body.site, id, body.sequence);
        memory.save(&state, repository.id()).unwrap();
        put_leases(repository);
        for (about, fact) in [
            (newest.id, Fact::Pinned { reason: "kept".into(), until: None }),
            (records[0].id, Fact::Drilled { passed: true }),
        ] {
            let note = NoteBody { about, time: Timestamp::EPOCH, fact };
            let bytes = repository.seal_control(ObjectKind::Note, &note).unwrap();
            let id = NoteId::from_array(*blake3::hash(&bytes).as_bytes());
            repository.backend().put_new(&ObjectName::note(&id), &[&bytes]).unwrap();
        }
        for number in 1..=2u8 {
            let packs = vec![PackId::from_array([number; 32])];
            let body = CondemnedBody { number: u64::from(number), packs };
            let bytes = repository.seal_control(ObjectKind::Condemned, &body).unwrap();
            let name = ObjectName::condemned(body.number);
            repository.backend().put_new(&name, &[&bytes]).unwrap();
        }
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// All objects, as files.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let root = self.repository();
        let spaces =
            ["config", "keys", "packs", "index", "snapshots", "captures", "leases", "condemned"];
        let mut list: Vec<PathBuf> = spaces
            .iter()
            .chain(&["notes"])
            .flat_map(|space| walkdir::WalkDir::new(root.join(space)))
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .collect();
        list.sort();
        list
    }

    /// An object's name, as damage names it.
    pub(crate) fn name(&self, object: &Path) -> String {
        let below = object.strip_prefix(self.repository()).unwrap();
        let part = |n: Option<&std::ffi::OsStr>| n.unwrap().to_str().unwrap().to_owned();
        format!("{}/{}", part(below.iter().next()), part(object.file_name()))
    }

    /// Whether bytes are those of the other copy of a configuration.
    pub(crate) fn is_other_copy(&self, object: &Path, bytes: &[u8]) -> bool {
        let other = if object.extension().unwrap() == "a" { "b" } else { "a" };
        std::fs::read(object.with_extension(other)).unwrap() == bytes
    }

    fn open(&self) -> Result<Session, String> {
        let place = Location { repository: self.repository(), cache: None };
        let unlock = || Some(Unlock::Master(parse_master(self.master.as_ref()?).unwrap()));
        session::open(&place, unlock).map_err(|error| {
            let mut text = error.to_string();
            let mut next = std::error::Error::source(&error);
            while let Some(source) = next {
                text.push_str(&format!(": {source}"));
                next = source.source();
            }
            text
        })
    }

    pub(crate) fn check(&self) -> Outcome {
        let session = match self.open() {
            Ok(session) => session,
            Err(why) => return Outcome::NotOpened(why),
        };
        let state = self.state_dir();
        let options = Options {
            lease: false,
            read_data: 10_000,
            max_duration: None,
            state_dir: Some(&state),
            scratch: None,
        };
        let interrupt = Interrupt::manual();
        let around = Surroundings { progress: &Silent, clock: &SystemClock, interrupt: &interrupt };
        match check(&session, &options, &around) {
            Ok(report) => Outcome::Checked(
                report
                    .damage
                    .into_iter()
                    .map(|d| Found {
                        object: d.object,
                        kind: d.kind.word().to_owned(),
                        affects: d.affects.into_iter().collect(),
                    })
                    .collect(),
            ),
            Err(error) => panic!("damage must not end a check: {error:?}"),
        }
    }

    /// With an object's bytes replaced, or the object gone.
    pub(crate) fn with<T>(
        &self,
        object: &Path,
        bytes: Option<&[u8]>,
        look: impl FnOnce(&Self) -> T,
    ) -> T {
        let before = std::fs::read(object).unwrap();
        std::fs::remove_file(object).unwrap();
        if let Some(bytes) = bytes {
            std::fs::write(object, bytes).unwrap();
        }
        let seen = look(self);
        if bytes.is_some() {
            std::fs::remove_file(object).unwrap();
        }
        std::fs::write(object, before).unwrap();
        seen
    }

    /// A check of the damaged repository; reading it gives errors or the right bytes.
    pub(crate) fn damaged(&self, object: &Path, bytes: Option<&[u8]>) -> Outcome {
        self.with(object, bytes, |this| {
            this.read_everything();
            this.check()
        })
    }

    /// Reads all that can be read and compares it with what was kept.
    pub(crate) fn read_everything(&self) -> Read {
        let mut read = Read::default();
        let Ok(mut session) = self.open() else { return Read { files: 0, errors: 1 } };
        session.sync().unwrap();
        let reader = session.reader();
        let Ok(catalogue) = catalogue::load(&session.repository) else {
            return Read { files: 0, errors: 1 };
        };
        read.errors += catalogue.damaged.len();
        let empty = session.repository.namer().empty();
        for record in &catalogue.records {
            let root = Entry::decode(&record.body.root.0, &empty).unwrap();
            compare(&reader, &root, b"/", &self.expected[&record.id], &mut read);
        }
        read
    }
}

fn put_leases(repository: &Repository) {
    let holder = Holder { host: "elsewhere".into(), boot_id: "1".into(), pid: 1, start_ticks: 1 };
    for n in 1..=2 {
        let id = LeaseId::from_array([n; 16]);
        let body = LeaseBody {
            id,
            holder: holder.clone(),
            operation: "snapshot".into(),
            taken: Timestamp::EPOCH,
            obeys: 0,
            reads: Vec::new(),
        };
        let bytes = repository.seal_control(ObjectKind::Lease, &body).unwrap();
        repository.backend().put_new(&ObjectName::lease(&id), &[&bytes]).unwrap();
        let roots = Vec::new();
        let end = LeaseEndBody { id, by: EndedBy::Breaker, manifest: None, roots };
        let bytes = repository.seal_control(ObjectKind::LeaseEnd, &end).unwrap();
        repository.backend().put_new(&ObjectName::lease_end(&id), &[&bytes]).unwrap();
    }
}

fn compare(reader: &Reader, entry: &Entry, path: &[u8], expected: &Contents, read: &mut Read) {
    match &entry.node {
        Node::Dir { tree: Some(tree), .. } => {
            let mut below = Vec::new();
            let done = reader.entries(tree, &mut |entry| -> Result<(), ReadError> {
                below.push(entry);
                Ok(())
            });
            read.errors += usize::from(done.is_err());
            for entry in &below {
                compare(reader, entry, &join(path, &entry.name), expected, read);
            }
        }
        Node::File { content, layout, size, .. } => {
            assert!(matches!(layout, Layout::Dense) || *size == 0);
            let mut bytes = Vec::new();
            let done = reader.data_chunks(content, &mut |chunk| -> Result<(), ReadError> {
                bytes.extend(reader.chunk(ChunkKind::Data, &chunk.id)?);
                Ok(())
            });
            match done {
                Ok(()) => {
                    let shown = from_bytes(path).display();
                    assert!(expected.get(path) == Some(&bytes), "wrong bytes of {shown}");
                    read.files += 1;
                }
                Err(_) => read.errors += 1,
            }
        }
        _ => {}
    }
}
