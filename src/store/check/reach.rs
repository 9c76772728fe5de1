//! From each manifest through all trees and lists: is every chunk there, and which manifests reach
//! what is damaged.
//!
//! Pages and lists are shared by manifests, so each is read once: what was found below it is
//! remembered by 16 bytes of its id, and by nothing else where it was clean. Depth is a stack of our
//! own, because trees may be deeper than a thread's.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::{Around, CheckError, DamageKind, FoundManifest, Ledger};
use crate::base::id::ChunkId;
use crate::base::progress::Total;
use crate::format::DecodeError;
use crate::format::content::{ChunkRef, Content, List};
use crate::format::pack::ChunkKind;
use crate::format::segment::{ChunkKey, chunk_key};
use crate::format::tree::{Entry, Layout, Node, Page, StretchMap, Xattrs};
use crate::store::accelerator::Location;
use crate::store::reader::{ReadError, Reader};

/// Numbers of damages.
type Found = BTreeSet<usize>;

/// A page or list that is still to be read.
enum Item {
    Page { id: ChunkId, level: Option<u8> },
    List { chunk: ChunkRef, level: u8 },
}

/// A page or list that is being looked through.
struct Frame {
    key: Option<ChunkKey>,
    waiting: Vec<Item>,
    found: Found,
}

struct Walker<'a> {
    reader: &'a Reader,
    ledger: &'a mut Ledger,
    around: &'a Around<'a>,
    /// Bad packs by their number in the index, with the number of their damage.
    bad: HashMap<u32, usize>,
    clean: HashSet<ChunkKey>,
    dirty: HashMap<ChunkKey, Rc<Found>>,
}

/// Walks all manifests; what is missing or unreadable is entered, and each damage learns which
/// manifests reach it. The reader stands on the check's own index.
///
/// # Errors
/// [`CheckError`].
pub fn reach(
    reader: &Reader,
    manifests: &[FoundManifest],
    ledger: &mut Ledger,
    around: &Around<'_>,
) -> Result<(), CheckError> {
    let total = Total { files: Some(manifests.len() as u64), bytes: None };
    loop {
        around.progress.phase("trees", Some(total));
        let before = ledger.bad_packs();
        walk(reader, manifests, ledger, around)?;
        // A pack that was found bad on the way was passed as good before: once more, knowing it.
        // The second time nothing new can be found, because the same things are read.
        if ledger.bad_packs() == before {
            return Ok(());
        }
    }
}

fn walk(
    reader: &Reader,
    manifests: &[FoundManifest],
    ledger: &mut Ledger,
    around: &Around<'_>,
) -> Result<(), CheckError> {
    let packs = reader.accelerator().packs();
    let number = |(n, pack): (usize, &crate::store::accelerator::PackFacts)| {
        Some((u32::try_from(n).ok()?, ledger.pack(&pack.id)?))
    };
    let bad = packs.iter().enumerate().filter_map(number).collect();
    drop(packs);
    let (clean, dirty) = (HashSet::new(), HashMap::new());
    let mut walker = Walker { reader, ledger, around, bad, clean, dirty };
    for manifest in manifests {
        let Some(root) = &manifest.root else { continue };
        let found = walker.manifest(manifest, root)?;
        for number in found {
            walker.ledger.affects(number, manifest.id);
        }
        around.progress.advance(1, 0);
    }
    Ok(())
}

impl Walker<'_> {
    fn manifest(&mut self, manifest: &FoundManifest, root: &[u8]) -> Result<Found, CheckError> {
        let mut first = Frame { key: None, waiting: Vec::new(), found: Found::new() };
        let empty = self.reader.repository().namer().empty();
        match Entry::decode(root, &empty) {
            Ok(entry) => self.entry(&entry, &mut first)?,
            Err(error) => {
                let object = format!("manifest {}", manifest.id);
                let why = format!("its root: {error}");
                first.found.insert(self.ledger.add(object, DamageKind::ManifestDamaged, why));
            }
        }
        for id in &manifest.extra_roots {
            self.locate(id, &mut first.found)?;
        }
        self.run(first)
    }

    fn run(&mut self, first: Frame) -> Result<Found, CheckError> {
        let mut stack = vec![first];
        let mut result = Found::new();
        while let Some(frame) = stack.last_mut() {
            if let Some(item) = frame.waiting.pop() {
                if let Some(below) = self.enter(&item, &mut frame.found)? {
                    stack.push(below);
                }
                continue;
            }
            let Some(done) = stack.pop() else { break };
            let above = stack.last_mut().map_or(&mut result, |frame| &mut frame.found);
            above.extend(&done.found);
            if let Some(key) = done.key {
                self.remember(key, done.found);
            }
        }
        Ok(result)
    }

    fn remember(&mut self, key: ChunkKey, found: Found) {
        if found.is_empty() {
            self.clean.insert(key);
        } else {
            self.dirty.insert(key, Rc::new(found));
        }
    }

    /// Reads a page or list that was not read before.
    fn enter(&mut self, item: &Item, above: &mut Found) -> Result<Option<Frame>, CheckError> {
        self.around.go_on()?;
        let id = match item {
            Item::Page { id, .. } => *id,
            Item::List { chunk, .. } => chunk.id,
        };
        let key = chunk_key(&id);
        if self.clean.contains(&key) {
            return Ok(None);
        }
        if let Some(found) = self.dirty.get(&key) {
            above.extend(found.iter());
            return Ok(None);
        }
        let mut frame = Frame { key: Some(key), waiting: Vec::new(), found: Found::new() };
        if self.locate(&id, &mut frame.found)?.is_some() {
            let read = match item {
                Item::Page { id, level } => self.page(id, *level, &mut frame),
                Item::List { chunk, level } => self.list(chunk, *level, &mut frame),
            };
            match read {
                Ok(()) => {}
                Err(CheckError::Read(error)) => {
                    frame.found.insert(self.ledger.blame(error)?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(frame))
    }

    fn page(
        &mut self,
        id: &ChunkId,
        level: Option<u8>,
        frame: &mut Frame,
    ) -> Result<(), CheckError> {
        match self.reader.page(id, level)? {
            Page::Leaf(entries) => entries.iter().try_for_each(|e| self.entry(e, frame)),
            Page::Inner { level, pages } => {
                let below = |id| Item::Page { id, level: Some(level - 1) };
                frame.waiting.extend(pages.iter().map(|page| below(page.id)));
                Ok(())
            }
        }
    }

    fn list(&mut self, chunk: &ChunkRef, level: u8, frame: &mut Frame) -> Result<(), CheckError> {
        let bytes = self.reader.chunk(ChunkKind::List, &chunk.id)?;
        let wrong = |source| ReadError::Decode { id: chunk.id, source };
        let list = List::decode(&bytes, level).map_err(wrong)?;
        let below = Content { level: level - 1, refs: list.refs };
        if below.len() != chunk.len {
            return Err(wrong(DecodeError::Invalid { what: "list length" }).into());
        }
        self.content(&below, frame)
    }

    fn entry(&mut self, entry: &Entry, frame: &mut Frame) -> Result<(), CheckError> {
        if let Xattrs::Content(content) = &entry.meta.xattrs {
            self.content(content, frame)?;
        }
        match &entry.node {
            Node::Dir { tree: Some(id), .. } => {
                frame.waiting.push(Item::Page { id: *id, level: None });
            }
            Node::File { content, layout, .. } => {
                self.content(content, frame)?;
                if let Layout::Sparse { map: StretchMap::Content(map), .. } = layout {
                    self.content(map, frame)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn content(&mut self, content: &Content, frame: &mut Frame) -> Result<(), CheckError> {
        for chunk in &content.refs {
            if content.level > 0 {
                frame.waiting.push(Item::List { chunk: *chunk, level: content.level });
                continue;
            }
            let Some(at) = self.locate(&chunk.id, &mut frame.found)? else { continue };
            if u64::from(at.len) != chunk.len {
                let why = format!("it has {} bytes, {} were expected", at.len, chunk.len);
                let object = format!("chunk {}", chunk.id);
                frame.found.insert(self.ledger.add(object, DamageKind::ChunkDamaged, why));
            }
        }
        Ok(())
    }

    /// Where a chunk lies; that it is nowhere or in a bad pack is found.
    fn locate(&mut self, id: &ChunkId, found: &mut Found) -> Result<Option<Location>, CheckError> {
        match self.reader.locate(id) {
            Ok(at) => {
                found.extend(self.bad.get(&at.pack));
                Ok(Some(at))
            }
            Err(error) => {
                found.insert(self.ledger.blame(error)?);
                Ok(None)
            }
        }
    }
}
