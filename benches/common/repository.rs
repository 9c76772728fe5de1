//! A repository and what a read of sources needs, without a window around it.

#![allow(dead_code)] // not every bench uses all of it

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use cabk::backend::local::LocalBackend;
use cabk::base::id::ManifestId;
use cabk::base::progress::Silent;
use cabk::host::clock::{Clock, SystemClock};
use cabk::host::entropy::SystemEntropy;
use cabk::host::fs::LinuxFs;
use cabk::host::signal::Interrupt;
use cabk::intake::forest::{self, Forest, ReadInput};
use cabk::intake::look::SecondLook;
use cabk::intake::plan::ReadPlan;
use cabk::ops::session::{self, Location, Session};
use cabk::store::accelerator::Generation;
use cabk::store::cut::ChunkSizes;
use cabk::store::reader::Reader;
use cabk::store::repository::{InitOptions, init};
use cabk::store::writer::{Writer, WriterOptions};

/// Makes and opens a repository below `dir`, without encryption: deriving a key from a password
/// would be most of a small bench.
pub(crate) fn make(dir: &Path) -> Session {
    let repository = dir.join("repository");
    let options = InitOptions {
        password: None,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to: None,
        now: SystemClock.now(),
    };
    let backend = Arc::new(LocalBackend::create(&repository).unwrap());
    init(backend, Arc::new(SystemEntropy), &options).unwrap();
    let place = Location { repository, cache: Some(dir.join("cache")) };
    let mut session = session::open(&place, || None).unwrap();
    session.sync().unwrap();
    session
}

/// Reads of one tree, with what they share.
pub(crate) struct Reads {
    session: Session,
    reader: Reader,
    plan: ReadPlan,
    believed: HashSet<Generation>,
    interrupt: Interrupt,
    threads: usize,
}

impl Reads {
    /// Reads of `root` into the repository of `session`.
    pub(crate) fn new(session: Session, root: &Path, threads: usize) -> Self {
        let path = root.to_str().unwrap().as_bytes().to_vec();
        Self {
            reader: session.reader(),
            session,
            plan: ReadPlan::new(vec![path], &[]).unwrap(),
            believed: HashSet::new(),
            interrupt: Interrupt::manual(),
            threads,
        }
    }

    fn writer(&self, first: bool) -> Writer {
        let repository = Arc::clone(&self.session.repository);
        let accelerator = Arc::clone(&self.session.accelerator);
        let options = WriterOptions { level: 3, first, min_free: 0 };
        Writer::new(repository, accelerator, options, Arc::new(SystemClock)).unwrap()
    }

    fn with<T>(
        &self,
        generation: Generation,
        first: bool,
        f: impl FnOnce(&ReadInput<'_>) -> T,
    ) -> T {
        let writer = self.writer(first);
        let input = ReadInput {
            manners: None,
            fs: &LinuxFs,
            plan: &self.plan,
            reader: &self.reader,
            writer: &writer,
            believed: &self.believed,
            generation,
            synced: SystemClock.now(),
            unsynced: &[],
            sort: first,
            threads: self.threads,
            over: &|| false,
            interrupt: &self.interrupt,
            progress: &Silent,
        };
        forest::sync(&LinuxFs, &self.plan);
        let value = f(&input);
        writer.finish().unwrap();
        value
    }

    /// Reads; what was read is believed from then on, as if it had been committed.
    pub(crate) fn read(&mut self, first: bool) -> Forest {
        let generation = self.session.accelerator.begin_generation().unwrap();
        let forest = self.with(generation, first, |input| forest::read(input).unwrap());
        assert!(forest.seen.problems.is_empty(), "{:?}", forest.seen.problems);
        let manifest = ManifestId::from_array([generation.0 as u8; 32]);
        self.session.accelerator.committed(generation, &manifest).unwrap();
        self.believed.insert(generation);
        forest
    }

    /// Looks again at what was read.
    pub(crate) fn look_again(&self, forest: &Forest) -> SecondLook {
        let generation = self.session.accelerator.begin_generation().unwrap();
        self.with(generation, false, |input| forest::look_again(input, &forest.first_look).unwrap())
    }
}
