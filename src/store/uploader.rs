//! The one thread that puts packs and publishes index segments.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::accelerator::seal_segment;
use super::repository::RepositoryError;
use super::writer::{PutPack, Shared, WriteError, check_free};
use crate::backend::{BackendError, ObjectName};
use crate::format::segment::{Segment, SegmentPack};
use crate::host::clock::Clock;

/// An index segment is published after this many packs ...
const PUBLISH_PACKS: usize = 64;
/// ... or this much time, whichever is first.
const PUBLISH_AFTER: Duration = Duration::from_secs(60);

enum Order {
    Put(Box<PutPack>),
    Publish(SyncSender<()>),
}

/// The thread's own state.
pub(super) struct Uploader {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    unpublished: Vec<SegmentPack>,
    last: Duration,
    packs: u64,
    bytes: u64,
}

/// The other end: gives orders, and takes the thread's result.
///
/// Dropping it waits for the thread: nothing is put any more once the run's lease is released.
pub(super) struct UploaderHandle {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<Option<(u64, u64)>>>,
    shared: Arc<Shared>,
}

impl Uploader {
    pub(super) fn start(shared: Arc<Shared>, clock: Arc<dyn Clock>) -> UploaderHandle {
        // No room in between: whoever closes a pack waits until the one before is on its way, so
        // that at most one waits.
        let (orders, inbox) = sync_channel(0);
        let told = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let last = clock.monotonic();
            let failing = Arc::clone(&shared);
            let this = Self { shared, clock, unpublished: Vec::new(), last, packs: 0, bytes: 0 };
            let result = this.run(&inbox);
            match result {
                Ok(done) => Some(done),
                Err(error) => {
                    failing.fail_for(error);
                    None
                }
            }
        });
        UploaderHandle { orders: Some(orders), thread: Some(thread), shared: told }
    }

    fn run(mut self, inbox: &Receiver<Order>) -> Result<(u64, u64), WriteError> {
        while let Ok(order) = inbox.recv() {
            match order {
                Order::Put(pack) => {
                    if let Err(error) = self.put(*pack) {
                        // What was put is whole: the next run finds it, unless the storage failed.
                        if matches!(error, WriteError::MinFree { .. }) {
                            self.publish()?;
                        }
                        return Err(error);
                    }
                    let late = self.clock.monotonic().saturating_sub(self.last) > PUBLISH_AFTER;
                    if self.unpublished.len() >= PUBLISH_PACKS || late {
                        self.publish()?;
                    }
                }
                Order::Publish(done) => {
                    if let Err(error) = self.publish() {
                        // The reason is there before whoever asked learns of it.
                        self.shared.fail_for(error);
                        return Err(WriteError::GivenUp);
                    }
                    // Whoever asked may be gone; then nobody needs the answer.
                    let _ = done.send(());
                }
            }
        }
        self.publish()?;
        Ok((self.packs, self.bytes))
    }

    fn put(&mut self, pack: PutPack) -> Result<(), WriteError> {
        let repository = &self.shared.repository;
        check_free(repository, self.shared.options.min_free, pack.entry.len)?;
        match repository.backend().put_new(&ObjectName::pack(&pack.entry.id), &[&pack.bytes]) {
            // The name is the hash of the bytes: what is there is what was to be put.
            Ok(()) | Err(BackendError::Exists(_)) => {}
            Err(error) => return Err(RepositoryError::from(error).into()),
        }
        self.packs += 1;
        self.bytes += pack.entry.len;
        self.unpublished.push(pack.entry);
        Ok(())
    }

    fn publish(&mut self) -> Result<(), WriteError> {
        self.last = self.clock.monotonic();
        if self.unpublished.is_empty() {
            return Ok(());
        }
        let segment = Segment { merges: vec![], packs: std::mem::take(&mut self.unpublished) };
        let (id, bytes) = seal_segment(&self.shared.repository, &segment)?;
        let name = ObjectName::segment(&id);
        self.shared
            .repository
            .backend()
            .put_new(&name, &[&bytes])
            .map_err(RepositoryError::from)?;
        self.bytes += bytes.len() as u64;
        self.shared.accelerator.add(&id, &segment)?;
        let blocks = segment.packs.iter().flat_map(|p| &p.blocks);
        self.shared.published(blocks.flat_map(|b| b.chunks.iter().map(|(key, _)| *key)));
        Ok(())
    }
}

impl UploaderHandle {
    /// Hands a pack over; waits while another is being put.
    pub(super) fn put(&self, pack: PutPack) -> Result<(), WriteError> {
        self.send(Order::Put(Box::new(pack)))
    }

    /// Waits until all that was handed over is in the index.
    pub(super) fn publish(&self) -> Result<(), WriteError> {
        let (done, answer) = sync_channel(1);
        self.send(Order::Publish(done))?;
        answer.recv().map_err(|_| self.shared.failure())
    }

    fn send(&self, order: Order) -> Result<(), WriteError> {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if sent { Ok(()) } else { Err(self.shared.failure()) }
    }

    /// Ends the thread: packs put, bytes put.
    pub(super) fn finish(mut self) -> Result<(u64, u64), WriteError> {
        self.orders = None;
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Some(done))) => Ok(done),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => Err(self.shared.failure()),
        }
    }
}

impl Drop for UploaderHandle {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Whoever drops the handle without `finish` has an error of its own to tell.
            let _ = thread.join();
        }
    }
}
