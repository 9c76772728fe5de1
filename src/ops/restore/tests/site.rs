//! A repository in memory, and a reader of real trees that is no part of the program.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::{joined, path_bytes};
use crate::backend::ObjectName;
use crate::backend::memory::MemoryBackend;
use crate::base::id::{ChunkId, ContentHash, ManifestId};
use crate::base::path::components;
use crate::base::time::Timestamp;
use crate::format::content::{ChunkRef, Content};
use crate::format::control::HexBytes;
use crate::format::header::ObjectKind;
use crate::format::manifest::{ManifestBody, Origin, Owners, RecordKind, SourceRecord, Summary};
use crate::format::pack::{ChunkKind, Class};
use crate::format::tree::{Entry, Layout, Meta, Node, Stretch, StretchMap, Xattrs};
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::fs::linux::LinuxDir;
use crate::host::fs::{Attributes, ExtentKind, InodeKind, LinuxFs, SourceDir, SourceFile, Stat};
use crate::record::snapshot::Snapshot;
use crate::store::accelerator::{Accelerator, Place};
use crate::store::cut::ChunkSizes;
use crate::store::lists::ContentBuilder;
use crate::store::reader::Reader;
use crate::store::repository::{InitOptions, Repository, init};
use crate::store::writer::{Worker, Writer, WriterOptions};
use crate::tree::builder::DirBuilder;
use crate::tree::cursor::DirCursor;

/// Bytes of each chunk: small, so that small files have many.
const CHUNK: usize = 5_000;

pub(super) struct Site {
    pub(super) backend: Arc<MemoryBackend>,
    repository: Arc<Repository>,
    accelerator: Arc<Accelerator>,
    pub(super) reader: Reader,
    pub(super) owners: Owners,
    pub(super) roles: Vec<String>,
}

impl Site {
    pub(super) fn new() -> Self {
        let backend = Arc::new(MemoryBackend::new());
        let options = InitOptions {
            password: None,
            compression: 3,
            parity_percent: 0,
            sizes: ChunkSizes::DEFAULT,
            related_to: None,
            now: Timestamp::EPOCH,
        };
        let shared: Arc<dyn crate::backend::Backend> = backend.clone();
        let repository = Arc::new(init(shared, Arc::new(SystemEntropy), &options).unwrap());
        let (accelerator, _) = Accelerator::open(&Place::Memory, repository.id()).unwrap();
        let accelerator = Arc::new(accelerator);
        let reader = Reader::new(Arc::clone(&repository), Arc::clone(&accelerator), 8 << 20);
        let (owners, roles) = (Owners::default(), vec!["extra".into()]);
        Self { backend, repository, accelerator, reader, owners, roles }
    }

    /// Keeps these directories and files as a snapshot.
    pub(super) fn snapshot(&self, sources: &[&Path]) -> Snapshot {
        let root = self.store(sources);
        let mut encoded = Vec::new();
        root.encode(&mut encoded);
        let body = self.body(sources, encoded);
        Snapshot::open(&self.repository, self.commit(&body)).unwrap()
    }

    pub(super) fn commit(&self, body: &ManifestBody) -> ManifestId {
        let bytes = self.repository.seal_control(ObjectKind::Snapshot, body).unwrap();
        let id = ManifestId::from_array(*blake3::hash(&bytes).as_bytes());
        self.backend.raw_put(&ObjectName::snapshot(&id), &bytes);
        id
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(super) fn body(&self, sources: &[&Path], root: Vec<u8>) -> ManifestBody {
        let source = |path: &&Path| SourceRecord {
            roles: self.roles.clone(),
            path: Some(HexBytes(path_bytes(path).to_vec())),
            database: None,
            setting: None,
            bytes: 0,
            dir: path.is_dir(),
        };
        ManifestBody {
            kind: RecordKind::Snapshot,
            origin: Origin::Window,
            site: "test".into(),
            host: "there".into(),
            time: Timestamp::EPOCH,
            tool_version: "0".into(),
            connect_version: None,
            sequence: 1,
            writer: "w".into(),
            predecessors: vec![],
            tags: vec![],
            window: None,
            evidence: vec![],
            sources: sources.iter().map(source).collect(),
            excludes: vec![],
            left_out: vec![],
            mounts: vec![],
            root: HexBytes(root),
            owners: self.owners.clone(),
            summary: Summary::default(),
            problems: vec![],
            problems_total: 0,
            extra_roots: vec![],
            warnings: vec![],
        }
    }

    fn writer(&self) -> Writer {
        let options = WriterOptions { level: 3, first: false, min_free: 0 };
        let (repository, accelerator) =
            (Arc::clone(&self.repository), Arc::clone(&self.accelerator));
        Writer::new(repository, accelerator, options, Arc::new(SystemClock)).unwrap()
    }

    /// Keeps these bytes as data and nothing else: in a new repository in the first block of the
    /// first pack.
    pub(super) fn keep(&self, bytes: &[u8]) {
        let writer = self.writer();
        let mut worker = writer.worker().unwrap();
        for piece in bytes.chunks(CHUNK) {
            worker.put(Class::Data, ChunkKind::Data, piece).unwrap();
        }
        worker.finish().unwrap();
        writer.finish().unwrap();
    }

    /// The entry of `/` with the way to each source.
    fn store(&self, sources: &[&Path]) -> Entry {
        let writer = self.writer();
        let mut worker = writer.worker().unwrap();
        let paths: Vec<Vec<Vec<u8>>> = sources
            .iter()
            .map(|p| components(path_bytes(p)).map(<[u8]>::to_vec).collect())
            .collect();
        let root = LinuxFs::open(b"/").unwrap();
        let paths: Vec<&[Vec<u8>]> = paths.iter().map(Vec::as_slice).collect();
        let entry = way(&root, Vec::new(), &paths, &mut worker);
        worker.finish().unwrap();
        writer.finish().unwrap();
        entry
    }

    /// What lies at a path now, entry by entry, in a form that can be compared.
    pub(super) fn listing(&self, path: &Path) -> BTreeMap<Vec<u8>, Entry> {
        let root = self.store(&[path]);
        let mut entry = crate::tree::walk::find(&self.reader, &root, path_bytes(path)).unwrap();
        entry.name.clear();
        let mut list = BTreeMap::new();
        let mut groups = HashMap::new();
        let mut stack = vec![(Vec::new(), entry)];
        while let Some((path, mut entry)) = stack.pop() {
            if let Node::Dir { tree, .. } = &mut entry.node {
                let mut cursor = DirCursor::new(tree.take());
                while let Some(below) = cursor.next(&self.reader).unwrap() {
                    stack.push((joined(&path, &below.name), below));
                }
            }
            entry.meta.btime = None;
            list.insert(path, entry);
        }
        for entry in list.values_mut() {
            let next = groups.len() as u64;
            entry.meta.link = entry.meta.link.map(|group| *groups.entry(group).or_insert(next));
        }
        list
    }

    /// Fails with the first entries that differ.
    pub(super) fn assert_same(&self, expected: &BTreeMap<Vec<u8>, Entry>, path: &Path) {
        let found = self.listing(path);
        for (path, entry) in expected {
            assert_eq!(Some(entry), found.get(path), "{}", String::from_utf8_lossy(path));
        }
        let extra: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
        assert!(extra.is_empty(), "{extra:?}");
    }
}

/// The entry of a directory on the way to sources, or of a source.
fn way(dir: &LinuxDir, name: Vec<u8>, paths: &[&[Vec<u8>]], worker: &mut Worker<'_>) -> Entry {
    let stat = dir.stat_self().unwrap();
    let meta = meta(&stat, dir.attributes_self().unwrap());
    if paths.iter().any(|p| p.is_empty()) {
        let tree = scan(dir, worker);
        return Entry { name, meta, node: Node::Dir { tree, partial: false } };
    }
    let mut below: BTreeMap<&[u8], Vec<&[Vec<u8>]>> = BTreeMap::new();
    for path in paths {
        below.entry(&path[0]).or_default().push(&path[1..]);
    }
    let mut builder = DirBuilder::default();
    for (name, paths) in below {
        let entry = match dir.stat(name).unwrap().kind {
            InodeKind::Dir => way(&dir.dir(name).unwrap(), name.to_vec(), &paths, worker),
            _ => leaf(dir, name, worker),
        };
        builder.push(entry, worker).unwrap();
    }
    let tree = builder.finish(worker).unwrap();
    Entry { name, meta, node: Node::Dir { tree, partial: true } }
}

fn scan(dir: &LinuxDir, worker: &mut Worker<'_>) -> Option<ChunkId> {
    let mut names: Vec<Vec<u8>> = dir.names().unwrap().into_iter().map(|n| n.name).collect();
    names.sort();
    let mut builder = DirBuilder::default();
    for name in names {
        let entry = match dir.stat(&name).unwrap().kind {
            InodeKind::Dir => way(&dir.dir(&name).unwrap(), name, &[&[]], worker),
            _ => leaf(dir, &name, worker),
        };
        builder.push(entry, worker).unwrap();
    }
    builder.finish(worker).unwrap()
}

fn leaf(dir: &LinuxDir, name: &[u8], worker: &mut Worker<'_>) -> Entry {
    let stat = dir.stat(name).unwrap();
    let (node, attributes) = match stat.kind {
        InodeKind::File => {
            let file = dir.file(name).unwrap();
            let attributes = file.attributes().unwrap();
            let mut node = file_node(&file, &stat, worker);
            if name.starts_with(b"lost-") {
                lose(&mut node);
            }
            (node, attributes)
        }
        kind => {
            let node = match kind {
                InodeKind::Symlink => Node::Symlink { target: dir.read_link(name).unwrap() },
                InodeKind::Fifo => Node::Fifo,
                InodeKind::Socket => Node::Socket,
                InodeKind::CharDevice => Node::CharDevice { rdev: stat.rdev },
                _ => Node::BlockDevice { rdev: stat.rdev },
            };
            (node, dir.attributes(name).unwrap())
        }
    };
    Entry { name: name.to_vec(), meta: meta(&stat, attributes), node }
}

fn file_node(file: &impl SourceFile, stat: &Stat, worker: &mut Worker<'_>) -> Node {
    let map = file.extents(stat).unwrap();
    let stretch = |e: &crate::host::fs::Extent| Stretch {
        offset: e.offset,
        len: e.len,
        unwritten: e.kind == ExtentKind::Unwritten,
    };
    let stretches: Vec<Stretch> = map.extents.iter().map(stretch).collect();
    let mut data = Vec::new();
    for s in stretches.iter().filter(|s| !s.unwritten) {
        let from = data.len();
        data.resize(from + s.len as usize, 0);
        file.read_at(&mut data[from..], s.offset).unwrap();
    }
    let mut builder = ContentBuilder::default();
    let hash = worker.repository().namer().content_hasher().update(&data).finalize();
    for piece in data.chunks(CHUNK) {
        let (id, _) = worker.put(Class::Data, ChunkKind::Data, piece).unwrap();
        let chunk = ChunkRef { id, len: piece.len() as u64 };
        builder.push(chunk, &mut |list| put_list(worker, list)).unwrap();
    }
    let content: Content = builder.finish(&mut |list| put_list(worker, list)).unwrap();
    let dense = data.len() as u64 == stat.size && stretches.iter().all(|s| !s.unwritten);
    let layout = match dense {
        true => Layout::Dense,
        false => Layout::Sparse { map: StretchMap::Inline(stretches), exact: map.exact },
    };
    Node::File { size: stat.size, content, hash: ContentHash::from_array(*hash.as_bytes()), layout }
}

/// Chunks that the repository never had.
fn lose(node: &mut Node) {
    let Node::File { content, .. } = node else { return };
    for chunk in &mut content.refs {
        chunk.id = ChunkId::from_array(*blake3::hash(chunk.id.as_bytes()).as_bytes());
    }
}

fn put_list(
    worker: &mut Worker<'_>,
    list: &[u8],
) -> Result<ChunkId, crate::store::writer::WriteError> {
    worker.put(Class::Tree, ChunkKind::List, list).map(|(id, _)| id)
}

fn meta(stat: &Stat, attributes: Attributes) -> Meta {
    let linked = stat.nlink > 1 && stat.kind != InodeKind::Dir;
    Meta {
        mode: if stat.kind == InodeKind::Symlink { 0o777 } else { stat.mode },
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        btime: stat.btime,
        flags: attributes.flags.filter(|f| *f != 0),
        project: attributes.project,
        link: linked.then_some(stat.ino),
        xattrs: Xattrs::Inline(attributes.xattrs),
    }
}
