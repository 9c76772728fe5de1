//! Whole packs, read again: their name, their blocks from the front and by the footer, each chunk.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::control::Looked;
use super::index::{KnownPack, digest};
use super::ledger::chain;
use super::{Around, CheckError, DamageKind, IndexView, Ledger};
use crate::backend::ObjectName;
use crate::base::id::PackId;
use crate::base::limits;
use crate::base::progress::Total;
use crate::codec::compress::Decompressor;
use crate::format::DecodeError;
use crate::format::header::{Header, ObjectKind};
use crate::format::pack::{FOOTER_RECORD, Footer, TRAILER_LEN, Trailer};
use crate::store::keys::KeyError;
use crate::store::repository::{Repository, RepositoryError};
use crate::store::salvage;

/// Packs in memory at the same time.
const THREADS: usize = 2;

/// What reading data came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DataRead {
    /// Packs read.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that were to be read.
    pub packs_wanted: u64,
    /// Their bytes.
    pub bytes_wanted: u64,
}

/// Reads packs again: a random share of all their bytes, in hundredths of a percent, rounded up to
/// whole packs. Ends between packs once the clock's monotonic time has reached `until`.
///
/// # Errors
/// [`CheckError`].
pub fn read_data(
    repository: &Repository,
    view: &IndexView,
    hundredths: u16,
    until: Option<Duration>,
    ledger: &mut Ledger,
    around: &Around<'_>,
) -> Result<DataRead, CheckError> {
    let wanted = choose(repository, view, hundredths, ledger)?;
    let bytes_wanted = wanted.iter().map(|(_, known)| known.len).sum();
    let packs_wanted = wanted.len() as u64;
    around.progress.phase("data", Some(Total { files: None, bytes: Some(bytes_wanted) }));
    let run = Run {
        repository,
        wanted: &wanted,
        until,
        around,
        next: AtomicUsize::new(0),
        packs: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        found: Mutex::new(Vec::new()),
    };
    std::thread::scope(|scope| -> Result<(), CheckError> {
        let threads: Vec<_> = (0..THREADS.min(wanted.len()))
            .map(|_| scope.spawn(|| run.work().inspect_err(|_| run.halt())))
            .collect();
        let mut result = Ok(());
        for thread in threads {
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(done);
        }
        result
    })?;
    let mut found = run.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort();
    for (pack, kind, why) in found {
        ledger.add_pack(pack, kind, why);
    }
    let (packs, bytes) = (run.packs.into_inner(), run.bytes.into_inner());
    Ok(DataRead { packs, bytes, packs_wanted, bytes_wanted })
}

/// A random share of the packs that are there, by bytes.
fn choose(
    repository: &Repository,
    view: &IndexView,
    hundredths: u16,
    ledger: &Ledger,
) -> Result<Vec<(PackId, KnownPack)>, CheckError> {
    let mut seed = [0; 32];
    repository
        .entropy()
        .fill(&mut seed)
        .map_err(|e| RepositoryError::from(KeyError::Entropy(e)))?;
    let mut all: Vec<(PackId, KnownPack)> = view
        .packs
        .iter()
        .filter(|(id, _)| ledger.pack(id).is_none())
        .map(|(id, known)| (*id, *known))
        .collect();
    all.sort_by_cached_key(|(id, _)| *blake3::keyed_hash(&seed, id.as_bytes()).as_bytes());
    let total: u64 = all.iter().map(|(_, known)| known.len).sum();
    let share = (u128::from(total) * u128::from(hundredths)).div_ceil(10_000);
    let mut sum = 0u128;
    let enough = all.iter().position(|(_, known)| {
        let before = sum;
        sum += u128::from(known.len);
        before >= share
    });
    all.truncate(enough.unwrap_or(all.len()));
    Ok(all)
}

/// What the threads share.
struct Run<'a> {
    repository: &'a Repository,
    wanted: &'a [(PackId, KnownPack)],
    until: Option<Duration>,
    around: &'a Around<'a>,
    next: AtomicUsize,
    packs: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
    found: Mutex<Vec<(PackId, DamageKind, String)>>,
}

impl Run<'_> {
    fn halt(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn work(&self) -> Result<(), CheckError> {
        let mut unpacker = Decompressor::new()
            .map_err(|e| CheckError::Scratch(std::io::Error::other(chain(&e))))?;
        while !self.stop.load(Ordering::Relaxed) {
            self.around.go_on()?;
            if self.until.is_some_and(|until| self.around.clock.monotonic() >= until) {
                self.halt();
                return Ok(());
            }
            let Some((id, known)) = self.wanted.get(self.next.fetch_add(1, Ordering::Relaxed))
            else {
                return Ok(());
            };
            let name = ObjectName::pack(id);
            let wrong = match super::control::bytes(self.repository, &name, limits::PACK_MAX)? {
                Looked::Whole(bytes) => {
                    self.packs.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.around.progress.advance(0, bytes.len() as u64);
                    let whole = verify(self.repository, id, known, &bytes, &mut unpacker);
                    whole.err().map(|why| (DamageKind::PackDamaged, why))
                }
                Looked::Gone => Some((DamageKind::PackMissing, "it is gone".to_owned())),
                Looked::Wrong(why) => Some((DamageKind::PackDamaged, why)),
            };
            if let Some((kind, why)) = wrong {
                let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((*id, kind, why));
            }
        }
        Ok(())
    }
}

/// Holds a pack's bytes against its name, its footer, its blocks and the index. `Err` says what is
/// wrong, the nearest cause first.
fn verify(
    repository: &Repository,
    id: &PackId,
    known: &KnownPack,
    bytes: &[u8],
    unpacker: &mut Decompressor,
) -> Result<(), String> {
    let inside = inside(repository, id, known, bytes, unpacker);
    if blake3::hash(bytes).as_bytes() == id.as_bytes() {
        return inside;
    }
    let what = "its name is not the hash of its bytes";
    Err(inside.err().map_or_else(|| what.to_owned(), |why| format!("{what}: {why}")))
}

fn inside(
    repository: &Repository,
    id: &PackId,
    known: &KnownPack,
    bytes: &[u8],
    unpacker: &mut Decompressor,
) -> Result<(), String> {
    let said = |e: DecodeError| chain(&e);
    let header = salvage::header_of(bytes).map_err(said)?;
    let footer = footer(repository, bytes).map_err(said)?;
    let front = salvage::scan(repository, header, bytes, Some(footer.blocks.len()), unpacker)
        .map_err(said)?;
    if let Some((number, fault)) = front.faults.first() {
        return Err(format!("block {number}: {}", chain(fault)));
    }
    if front.footer != footer {
        return Err("its footer and its blocks do not say the same".into());
    }
    if digest(&front.entry(*id, bytes.len() as u64)) != known.digest {
        return Err("the index does not say the same as its footer".into());
    }
    Ok(())
}

/// The footer, which must follow the last block at once.
fn footer(repository: &Repository, bytes: &[u8]) -> Result<Footer, DecodeError> {
    let what = "pack trailer";
    let header = salvage::header_of(bytes)?;
    let split = bytes.len().checked_sub(TRAILER_LEN).ok_or(DecodeError::Truncated { what })?;
    let trailer = Trailer::decode(&bytes[split..])?;
    let at = split.checked_sub(trailer.footer_len as usize);
    let at = at.ok_or(DecodeError::Truncated { what: "pack footer" })?;
    let decoded = Header::decode(&header, ObjectKind::Pack)?;
    let mut sealed = bytes[at..split].to_vec();
    repository
        .object_key(&decoded, &header)?
        .open(FOOTER_RECORD, &mut sealed)
        .map_err(|_| DecodeError::Checksum { what: "the pack's footer" })?;
    let footer = Footer::decode(&sealed)?;
    let end = footer.blocks.last().map_or(header.len() as u64, |block| {
        block.offset + crate::format::pack::block_len(&block.header)
    });
    if end != at as u64 || footer.blocks.len() != trailer.blocks as usize {
        return Err(DecodeError::Invalid { what });
    }
    Ok(footer)
}
