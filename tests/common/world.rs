//! A repository with its state and cache in a temporary directory, the real program on it, and the
//! way back into what it committed.

#![allow(dead_code, reason = "each file of tests uses its part")]
#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cabk::backend::local::LocalBackend;
use cabk::base::id::ContentHash;
use cabk::base::secret::Password;
use cabk::base::time::Timestamp;
use cabk::format::manifest::{ManifestBody, RecordKind};
use cabk::format::pack::ChunkKind;
use cabk::format::tree::{Entry, Layout, Node, StretchMap, decode_stretches};
use cabk::host::entropy::SystemEntropy;
use cabk::ops::session::{Location, open};
use cabk::record::catalogue;
use cabk::store::cut::ChunkSizes;
use cabk::store::reader::Reader;
use cabk::store::repository::{InitOptions, Unlock, init};
use cabk::tree::walk::find;
use serde_json::Value;

/// The site label that all runs get.
pub(crate) const SITE: &str = "toy";
const PASSWORD: &str = "correct horse";

/// A repository and all around it.
pub(crate) struct World {
    dir: tempfile::TempDir,
    encrypted: bool,
}

/// What a run of the program came to.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn of(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
        Self {
            code,
            json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The run ended with this code; what it said otherwise.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn id(&self) -> &str {
        self.json["id"].as_str().unwrap_or_else(|| panic!("no id: {}", self.stdout))
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.json["summary"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {}", self.stdout))
    }

    /// The evidence of one check.
    pub(crate) fn evidence(&self, check: &str) -> Vec<&Value> {
        let all = self.json["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|one| one["check"] == check).collect()
    }

    /// The one error object on stderr, behind warnings.
    pub(crate) fn error(&self) -> Value {
        let line = self.stderr.lines().rev().find(|line| line.starts_with("{\"error\""));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no error: {}", self.stderr))).unwrap()
    }

    /// Everything that was said, for a search in it.
    pub(crate) fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

impl World {
    /// A repository without encryption: quick to open.
    pub(crate) fn new() -> Self {
        Self::with(false)
    }

    /// An encrypted one.
    pub(crate) fn encrypted() -> Self {
        Self::with(true)
    }

    /// On the disk on which it was built, in a directory that only these tests use.
    pub(crate) fn beside_the_program() -> Self {
        Self::within(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), false)
    }

    /// In a directory of its own below this one.
    pub(crate) fn below(parent: &Path) -> Self {
        Self::within(tempfile::tempdir_in(parent).unwrap(), false)
    }

    /// In memory, where there is such a place: for many small files, which no disk has to take.
    pub(crate) fn in_memory() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::within(dir.unwrap(), false)
    }

    fn with(encrypted: bool) -> Self {
        Self::within(tempfile::tempdir().unwrap(), encrypted)
    }

    fn within(dir: tempfile::TempDir, encrypted: bool) -> Self {
        let world = Self { dir, encrypted };
        world.make_repository(&world.repo());
        world.configure("");
        world
    }

    pub(crate) fn make_repository(&self, path: &Path) {
        let password = Password::new(PASSWORD.into());
        let options = InitOptions {
            password: self.encrypted.then_some(&password),
            compression: 3,
            parity_percent: 0,
            sizes: ChunkSizes::DEFAULT,
            related_to: None,
            now: Timestamp::EPOCH,
        };
        let backend = Arc::new(LocalBackend::create(path).unwrap());
        init(backend, Arc::new(SystemEntropy), &options).unwrap();
    }

    /// Writes the configuration: little space is kept free, and where this process does not see
    /// the whole machine what cannot be seen of it is asserted.
    pub(crate) fn configure(&self, more: &str) {
        let assert = if sees_machine() {
            String::new()
        } else {
            "[evidence]\nassert = [\"no-process-in-tree\", \"sqlite-settled\"]\n".into()
        };
        let text = format!("[repository]\nmin_free = \"1 MiB\"\n{assert}{more}");
        std::fs::write(self.path("cabk.toml"), text).unwrap();
    }

    /// The directory that holds all of it.
    pub(crate) fn top(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.top().join(name)
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// Puts a file below the source, and the directories that lead to it.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.source().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The program, in this world alone.
    pub(crate) fn cabk(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cabk"));
        self.surround(&mut command);
        command
    }

    pub(crate) fn surround(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CABK_PASSWORD", PASSWORD)
            .env("CABK_REPO", self.repo())
            .env("CABK_STATE_DIR", self.path("state"))
            .env("CABK_CACHE_DIR", self.path("cache"))
            .env("CABK_CONFIG", self.path("cabk.toml"))
            .stdin(Stdio::null());
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        Done::of(&self.cabk().args(args).output().unwrap())
    }

    /// The command of a snapshot of plain directories; without paths, of `source`.
    pub(crate) fn snapshot_command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.cabk();
        command.args(["snapshot", "--json", "--site-name", SITE, "--allow-volatile-state"]);
        command.args(args);
        if !args.iter().any(|a| [b"--path".as_slice(), b"--site"].contains(&a.as_ref().as_bytes()))
        {
            command.arg("--path").arg(self.source());
        }
        command
    }

    pub(crate) fn snapshot<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        Done::of(&self.snapshot_command(args).output().unwrap())
    }

    /// All objects of the repository with their lengths, by the path below it.
    pub(crate) fn objects(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for one in walkdir::WalkDir::new(self.repo()) {
            let one = one.unwrap();
            if one.file_type().is_file() {
                let name = one.path().strip_prefix(self.repo()).unwrap().display().to_string();
                all.insert(name, one.metadata().unwrap().len());
            }
        }
        all
    }

    /// Bytes of all packs.
    pub(crate) fn pack_bytes(&self) -> u64 {
        self.objects()
            .iter()
            .filter(|(name, _)| name.starts_with("packs/"))
            .map(|(_, len)| len)
            .sum()
    }

    /// Leases and end records.
    pub(crate) fn leases(&self) -> Vec<String> {
        self.objects().into_keys().filter(|name| name.starts_with("leases/")).collect()
    }

    /// Whether a window's intent is there.
    pub(crate) fn has_intent(&self) -> bool {
        let listed = std::fs::read_dir(self.path("state/windows"));
        listed.is_ok_and(|dir| {
            dir.flatten().any(|one| one.path().extension() == Some(OsStr::new("json")))
        })
    }

    /// The file of the local index.
    pub(crate) fn redb(&self) -> PathBuf {
        let mut dirs = std::fs::read_dir(self.path("cache")).unwrap();
        dirs.next().unwrap().unwrap().path().join("index.redb")
    }

    /// Opens the repository past all of the program's own caches.
    pub(crate) fn look(&self) -> Inside {
        let place = Location { repository: self.repo(), cache: None };
        let unlock = || Some(Unlock::Password(Password::new(PASSWORD.into())));
        let mut session = open(&place, unlock).unwrap();
        session.sync().unwrap();
        assert!(session.warnings.is_empty(), "{:?}", session.warnings);
        let catalogue = catalogue::load(&session.repository).unwrap();
        assert!(catalogue.damaged.is_empty(), "{:?}", catalogue.damaged);
        let records = catalogue.records.into_iter().map(|r| (r.id.to_hex(), r.kind, r.body));
        Inside { records: records.collect(), reader: session.reader() }
    }

    /// The paths of one manifest.
    pub(crate) fn kept(&self, id: &str) -> BTreeMap<Vec<u8>, Entry> {
        self.look().tree(id)
    }
}

/// An open repository.
pub(crate) struct Inside {
    pub(crate) records: Vec<(String, RecordKind, ManifestBody)>,
    pub(crate) reader: Reader,
}

impl Inside {
    pub(crate) fn body(&self, id: &str) -> &ManifestBody {
        let found = self.records.iter().find(|(have, _, _)| have == id);
        &found.unwrap_or_else(|| panic!("{id} is not listed")).2
    }

    pub(crate) fn empty(&self) -> ContentHash {
        self.reader.repository().namer().empty()
    }

    /// All entries by absolute path, `/` as the empty path.
    pub(crate) fn tree(&self, id: &str) -> BTreeMap<Vec<u8>, Entry> {
        let root = Entry::decode(&self.body(id).root.0, &self.empty()).unwrap();
        let mut all = BTreeMap::new();
        let mut waiting = vec![(Vec::new(), root)];
        while let Some((path, entry)) = waiting.pop() {
            if let Node::Dir { tree: Some(tree), .. } = &entry.node {
                let each = &mut |below: Entry| -> Result<(), cabk::store::reader::ReadError> {
                    let path = [&path[..], b"/", &below.name].concat();
                    waiting.push((path, below));
                    Ok(())
                };
                self.reader.entries(tree, each).unwrap();
            }
            all.insert(path, entry);
        }
        all
    }

    /// The id of a directory's tree: equal for equal content. That of `/` would hold the times of the
    /// directories above the source, too.
    pub(crate) fn tree_id(&self, id: &str, path: &Path) -> String {
        let root = Entry::decode(&self.body(id).root.0, &self.empty()).unwrap();
        let entry = find(&self.reader, &root, &bytes(path)).unwrap();
        match entry.node {
            Node::Dir { tree: Some(tree), .. } => tree.to_hex(),
            other => panic!("{other:?}"),
        }
    }

    /// Stretches of data of a file, with their bytes, in order.
    pub(crate) fn each_stretch(&self, entry: &Entry, each: &mut dyn FnMut(u64, &[u8])) {
        let Node::File { content, layout, size, .. } = &entry.node else { panic!("{entry:?}") };
        let stretches = match layout {
            Layout::Dense => vec![(0, *size)],
            Layout::Sparse { map, .. } => {
                let all = match map {
                    StretchMap::Inline(all) => all.clone(),
                    StretchMap::Content(content) => {
                        let bytes = self.reader.content(content, 64 << 20).unwrap();
                        decode_stretches(&bytes, *size).unwrap()
                    }
                };
                all.iter().filter(|s| !s.unwritten).map(|s| (s.offset, s.len)).collect()
            }
        };
        let mut stretches = stretches.into_iter().filter(|(_, len)| *len > 0);
        let mut here = stretches.next();
        let data = &mut |chunk: cabk::format::content::ChunkRef| {
            let bytes = self.reader.chunk(ChunkKind::Data, &chunk.id)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (offset, len) = here.expect("more content than the map has room for");
                let (now, later) = rest.split_at(rest.len().min(usize::try_from(len).unwrap()));
                each(offset, now);
                let left = len - now.len() as u64;
                let next = (offset + now.len() as u64, left);
                here = if left > 0 { Some(next) } else { stretches.next() };
                rest = later;
            }
            Ok::<(), cabk::store::reader::ReadError>(())
        };
        self.reader.data_chunks(content, data).unwrap();
        assert_eq!(here, None, "less content than the map has room for");
    }

    /// A dense file's bytes.
    pub(crate) fn bytes(&self, entry: &Entry) -> Vec<u8> {
        let mut all = Vec::new();
        self.each_stretch(entry, &mut |_, bytes| all.extend_from_slice(bytes));
        all
    }

    /// Every chunk of every file of every manifest comes out as its id says.
    pub(crate) fn read_all(&self) -> u64 {
        let mut files = 0;
        for (id, _, _) in &self.records {
            for entry in self.tree(id).values() {
                if matches!(entry.node, Node::File { .. }) {
                    self.each_stretch(entry, &mut |_, _| {});
                    files += 1;
                }
            }
        }
        files
    }
}

/// Whether this process sees all processes of the machine.
pub(crate) fn sees_machine() -> bool {
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let threads = std::fs::read("/proc/2/comm").unwrap_or_default();
    own == Path::new("pid:[4026531836]") && threads == b"kthreadd\n"
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits, at most `secs`, until something is so.
#[track_caller]
pub(crate) fn until(secs: u64, what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(secs), "waited {secs} s for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Past the grain of any local file system's clock, and of cabk's margin.
pub(crate) fn past_the_grain() {
    std::thread::sleep(Duration::from_millis(60));
}

/// The path's bytes.
pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// A process that ends with the test.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mount that ends with the test.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// `mount` with these arguments; `None` where that is not possible here.
    pub(crate) fn new(args: &[&str], at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let output = Command::new("mount").args(args).arg(at).output().ok()?;
        output.status.success().then(|| Self(at.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.0.display());
        }
    }
}
