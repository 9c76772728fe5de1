//! Reads of one tree into one repository: what changed only, and the whole of it beside.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cabk::backend::local::LocalBackend;
use cabk::base::progress::Silent;
use cabk::format::tree::{Entry, Node};
use cabk::host::clock::{Clock, SystemClock};
use cabk::host::entropy::SystemEntropy;
use cabk::host::fanotify::Watch;
use cabk::host::fs::LinuxFs;
use cabk::host::signal::Interrupt;
use cabk::intake::dirty::{Changes, PreRead};
use cabk::intake::forest::{self, Forest, ReadInput};
use cabk::intake::look::FirstLook;
use cabk::intake::plan::ReadPlan;
use cabk::ops::session::{self, Location, Session};
use cabk::store::accelerator::Generation;
use cabk::store::cut::ChunkSizes;
use cabk::store::reader::{ReadError, Reader};
use cabk::store::repository::{InitOptions, init};
use cabk::store::writer::{Writer, WriterOptions};
use cabk::tree::walk::find;

use super::world::{World, bytes};

pub(crate) struct Reads {
    session: Session,
    reader: Reader,
    writer: Writer,
    plan: ReadPlan,
    believed: HashSet<Generation>,
    generation: Generation,
    pre: Option<PreRead>,
    repository: PathBuf,
    caches: PathBuf,
    count: usize,
}

fn opened(repository: &Path, cache: PathBuf) -> Session {
    let place = Location { repository: repository.to_owned(), cache: Some(cache) };
    let mut session = session::open(&place, || None).unwrap();
    session.sync().unwrap();
    session
}

fn writer(session: &Session) -> Writer {
    let (repository, accelerator) =
        (Arc::clone(&session.repository), Arc::clone(&session.accelerator));
    let options = WriterOptions { level: 1, first: false, min_free: 0 };
    Writer::new(repository, accelerator, options, Arc::new(SystemClock)).unwrap()
}

impl Reads {
    /// The first read. The watch must have begun.
    pub(crate) fn new(world: &World, top: &Path) -> Self {
        let repository = world.path("reads");
        let options = InitOptions {
            password: None,
            compression: 1,
            parity_percent: 0,
            sizes: ChunkSizes::DEFAULT,
            related_to: None,
            now: SystemClock.now(),
        };
        let backend = Arc::new(LocalBackend::create(&repository).unwrap());
        init(backend, Arc::new(SystemEntropy), &options).unwrap();
        let session = opened(&repository, world.path("cache-of-reads"));
        let mut plan = ReadPlan::new(vec![bytes(top)], &["*.tmp".to_owned()]).unwrap();
        plan.counted = vec![bytes(&top.join("a")), bytes(top)];
        let generation = session.accelerator.begin_generation().unwrap();
        let mut reads = Self {
            reader: session.reader(),
            writer: writer(&session),
            session,
            plan,
            believed: HashSet::new(),
            generation,
            pre: None,
            repository,
            caches: world.path("caches"),
            count: 0,
        };
        let first = {
            let (interrupt, input) = (Interrupt::manual(), &reads);
            forest::sync(&LinuxFs, &reads.plan);
            forest::read(&input.input(&input.reader, &input.writer, &interrupt)).unwrap()
        };
        assert!(first.seen.problems.is_empty(), "{:?}", first.seen.problems);
        reads.writer.publish().unwrap();
        reads.believed.insert(generation);
        reads.pre = Some(PreRead::of(first.first_look));
        reads
    }

    fn input<'a>(
        &'a self,
        reader: &'a Reader,
        writer: &'a Writer,
        interrupt: &'a Interrupt,
    ) -> ReadInput<'a> {
        ReadInput {
            fs: &LinuxFs,
            manners: None,
            plan: &self.plan,
            reader,
            writer,
            believed: &self.believed,
            generation: self.generation,
            synced: SystemClock.now(),
            unsynced: &[],
            sort: false,
            threads: 2,
            over: &|| false,
            interrupt,
            progress: &Silent,
        }
    }

    /// What the last read saw.
    pub(crate) fn look(&self) -> &FirstLook {
        self.pre.as_ref().unwrap().look()
    }

    /// Reads what changed, compares it with a read of all that knows nothing, and gives the number
    /// of directories that were looked at and of all.
    pub(crate) fn again(&mut self, watch: &Watch, what: &str) -> (usize, usize) {
        // As at the end of a read ahead: what was young meanwhile is old.
        super::world::past_the_grain();
        let dirty = watch.take();
        assert!(dirty.is_whole(), "{what}: {} events are unresolved", dirty.unresolved);
        assert!(!watch.mounts_changed());
        let changes = Changes { dirty: &dirty, covered: watch.covered(), always: &[] };
        let pre = self.pre.take().unwrap();
        let looked = pre.would_look(&changes);
        let interrupt = Interrupt::manual();
        forest::sync(&LinuxFs, &self.plan);
        let input = self.input(&self.reader, &self.writer, &interrupt);
        let forest = match self.count % 2 {
            0 => forest::read_dirty(&input, pre, &changes).unwrap(),
            // As in a window, where building waits.
            _ => {
                let unbuilt = forest::read_dirty_only(&input, pre, &changes).unwrap();
                let told = unbuilt.problems().len();
                let forest = unbuilt.build().unwrap();
                assert_eq!(told, forest.seen.problems.len(), "{what}: building told of more");
                forest
            }
        };
        self.writer.publish().unwrap();
        self.compare(&forest, what);
        self.pre = Some(PreRead::of(forest.first_look));
        looked
    }

    fn compare(&mut self, forest: &Forest, what: &str) {
        self.count += 1;
        let session = opened(&self.repository, self.caches.join(self.count.to_string()));
        let (reader, writer, interrupt) = (session.reader(), writer(&session), Interrupt::manual());
        let believed = HashSet::new();
        let input = ReadInput { believed: &believed, ..self.input(&reader, &writer, &interrupt) };
        let whole = forest::read(&input).unwrap();
        let (seen, all) = (&forest.seen, &whole.seen);
        let counts = |s: &forest::Seen| (s.files, s.dirs, s.bytes, s.counted.clone());
        assert_eq!(counts(seen), counts(all), "{what}");
        assert_eq!((&seen.users, &seen.groups), (&all.users, &all.groups), "{what}");
        assert_eq!(sorted(&seen.problems), sorted(&all.problems), "{what}");
        assert_eq!(sorted(&seen.mounts), sorted(&all.mounts), "{what}");
        assert_eq!(sorted(&seen.left_out), sorted(&all.left_out), "{what}");
        // The directories above the tree belong to others, too.
        writer.publish().unwrap();
        let top = &self.plan.roots[0];
        let one = find(&self.reader, &forest.root, top).unwrap();
        let other = find(&reader, &whole.root, top).unwrap();
        if one != other {
            let mut found = Vec::new();
            differences(&self.reader, &reader, (&one, &other), &mut top.clone(), &mut found);
            panic!("{what}: {}", found.join("\n"));
        }
        assert!(forest.first_look.is_like(&whole.first_look), "{what}: other inodes");
        drop(writer);
        let _ = &self.session;
    }
}

fn sorted<T: Clone + Ord>(all: &[T]) -> Vec<T> {
    let mut all = all.to_vec();
    all.sort();
    all
}

/// Where two trees are not the same.
fn differences(
    reader: &Reader,
    other: &Reader,
    (a, b): (&Entry, &Entry),
    path: &mut Vec<u8>,
    found: &mut Vec<String>,
) {
    let (Node::Dir { tree: Some(one), .. }, Node::Dir { tree: Some(two), .. }) = (&a.node, &b.node)
    else {
        found.push(format!("{}: {a:?}\n{b:?}", String::from_utf8_lossy(path)));
        return;
    };
    if a.meta != b.meta {
        found.push(format!("{}: {:?}\n{:?}", String::from_utf8_lossy(path), a.meta, b.meta));
    }
    let list = |reader: &Reader, tree| {
        let mut all = BTreeMap::new();
        let each = &mut |entry: Entry| -> Result<(), ReadError> {
            all.insert(entry.name.clone(), entry);
            Ok(())
        };
        reader.entries(tree, each).unwrap();
        all
    };
    let (one, two) = (list(reader, one), list(other, two));
    for name in one.keys().chain(two.keys().filter(|name| !one.contains_key(*name))) {
        let len = path.len();
        path.push(b'/');
        path.extend_from_slice(name);
        match (one.get(name), two.get(name)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => differences(reader, other, (a, b), path, found),
            (a, b) => {
                let there = (a.is_some(), b.is_some());
                found.push(format!("{}: {there:?}", String::from_utf8_lossy(path)));
            }
        }
        path.truncate(len);
    }
}
