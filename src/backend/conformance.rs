//! The suite that every storage must pass: a test suite that stands in the library so that the
//! tests of every implementation, in this crate or outside, can run the same one.
//!
//! Each sentence of the contract of [`Backend`] is one function. What a crash leaves is seen
//! elsewhere, from a trace of system calls.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Backend, BackendError, ObjectName, Space};

/// A sentence of the contract that does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// Something else was seen than the contract says.
    #[error("{clause}: {seen}")]
    Seen {
        /// The sentence, in short.
        clause: &'static str,
        /// What was seen instead.
        seen: String,
    },
    /// An error came where none may come.
    #[error("{clause}: an error came")]
    Failed {
        /// The sentence, in short.
        clause: &'static str,
        /// The error.
        source: BackendError,
    },
}

type Held = Result<(), Breach>;
type Check = fn(&dyn Backend) -> Held;

/// All sentences, by name.
const CHECKS: [(&str, Check); 12] = [
    ("what is put is read", put_is_read),
    ("empty objects and no parts", empty_objects),
    ("a large object in parts", large_object),
    ("ranges are whole or an error", ranges),
    ("a larger object than wanted is an error", maximum),
    ("what is not there is not found", not_found),
    ("what is deleted is gone", deleted),
    ("names at the bounds", names_at_bounds),
    ("spaces are apart and listings sorted", listings),
    ("readers never see a part", atomic),
    ("new means new", one_of_many_succeeds),
    ("a listing is complete", listing_beside_changes),
];

/// Runs all of them, each on a new, empty storage out of `make`.
///
/// # Errors
/// The first sentence that does not hold.
pub fn run(make: &dyn Fn() -> Box<dyn Backend>) -> Result<(), Breach> {
    for (clause, check) in CHECKS {
        check(&*make()).map_err(|breach| match breach {
            Breach::Seen { seen, .. } => Breach::Seen { clause, seen },
            Breach::Failed { source, .. } => Breach::Failed { clause, source },
        })?;
    }
    Ok(())
}

impl From<BackendError> for Breach {
    fn from(source: BackendError) -> Self {
        Self::Failed { clause: "unnamed", source }
    }
}

fn hold(held: bool, seen: impl FnOnce() -> String) -> Held {
    if held { Ok(()) } else { Err(Breach::Seen { clause: "unnamed", seen: seen() }) }
}

fn name(space: Space, text: &str) -> Result<ObjectName, Breach> {
    ObjectName::new(space, text).ok_or_else(|| Breach::Seen {
        clause: "unnamed",
        seen: format!("the suite has the bad name {text:?}"),
    })
}

fn pack(number: u64) -> Result<ObjectName, Breach> {
    // Spread over the first digits, as hashes are.
    name(
        Space::Packs,
        &format!("{:064x}", u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64),
    )
}

/// Bytes that differ from place to place, so that a shift is seen.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 11).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn same(object: &ObjectName, found: &[u8], wanted: &[u8]) -> Held {
    hold(found == wanted, || {
        format!("{object}: {} other bytes for {} bytes", found.len(), wanted.len())
    })
}

fn missing<T>(what: &str, result: Result<T, BackendError>) -> Held {
    match result {
        Err(BackendError::NotFound(_)) => Ok(()),
        Err(error) => hold(false, || format!("{what} of a missing object: {error}")),
        Ok(_) => hold(false, || format!("{what} of a missing object succeeded")),
    }
}

fn put_is_read(b: &dyn Backend) -> Held {
    for (i, space) in Space::ALL.into_iter().enumerate() {
        let object = name(space, &format!("{i:02x}ab"))?;
        b.put_new(&object, &[b"one", b"", b" two"])?;
        same(&object, &b.get(&object, 7)?, b"one two")?;
        hold(b.len(&object)? == 7, || format!("{object}: a wrong length"))?;
        hold(b.list(space)? == [(object.clone(), 7)], || format!("{object} is not listed"))?;
    }
    Ok(())
}

fn empty_objects(b: &dyn Backend) -> Held {
    for (object, parts) in [(pack(1)?, &[][..]), (pack(2)?, &[&b""[..], &b""[..]][..])] {
        b.put_new(&object, parts)?;
        same(&object, &b.get(&object, 0)?, b"")?;
        same(&object, &b.get_range(&object, 0, 0)?, b"")?;
        hold(b.len(&object)? == 0, || format!("{object}: a wrong length"))?;
        let again = b.put_new(&object, &[b"x"]);
        hold(matches!(again, Err(BackendError::Exists(_))), || format!("{object} was replaced"))?;
    }
    hold(b.list(Space::Packs)?.len() == 2, || "empty objects are not listed".to_owned())
}

/// 40 MiB in more parts than one system call takes, of uneven lengths.
fn large_object(b: &dyn Backend) -> Held {
    let bytes = content(40, 40 << 20);
    let mut parts = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let cut = (1 + (parts.len() * 7919) % 40_000).min(rest.len());
        let (part, after) = rest.split_at(cut);
        parts.push(part);
        rest = after;
    }
    let object = pack(40)?;
    b.put_new(&object, &parts)?;
    hold(b.len(&object)? == size(&bytes), || "a wrong length".to_owned())?;
    same(&object, &b.get(&object, size(&bytes))?, &bytes)?;
    for at in [0, 1, 4095, 1 << 20, (40 << 20) - 70_000] {
        let found = b.get_range(&object, u64::try_from(at).unwrap_or(0), 70_000)?;
        same(&object, &found, &bytes[at..at + 70_000])?;
    }
    Ok(())
}

fn ranges(b: &dyn Backend) -> Held {
    let object = pack(3)?;
    let bytes = content(3, 1000);
    b.put_new(&object, &[&bytes])?;
    for (offset, len) in [(0, 1000), (0, 1), (999, 1), (500, 250), (1000, 0), (0, 0)] {
        let start = usize::try_from(offset).unwrap_or(0);
        same(&object, &b.get_range(&object, offset, len)?, &bytes[start..start + len])?;
    }
    for (offset, len) in
        [(0, 1001), (1000, 1), (1001, 0), (999, 2), (u64::MAX, 1), (u64::MAX, 0), (1, usize::MAX)]
    {
        let result = b.get_range(&object, offset, len);
        let short =
            matches!(result, Err(BackendError::Short { len: 1000, wanted, .. }) if wanted > 1000);
        hold(short, || format!("{len} bytes at {offset} of 1000 are not refused as short"))?;
    }
    Ok(())
}

fn maximum(b: &dyn Backend) -> Held {
    let object = pack(4)?;
    b.put_new(&object, &[&[7; 100]])?;
    for max in [0, 99] {
        let refused = matches!(b.get(&object, max), Err(BackendError::Io { action: "read", .. }));
        hold(refused, || format!("100 bytes are given where {max} are allowed"))?;
    }
    for max in [100, 101, u64::MAX] {
        same(&object, &b.get(&object, max)?, &[7; 100])?;
    }
    Ok(())
}

fn not_found(b: &dyn Backend) -> Held {
    for space in Space::ALL {
        let object = name(space, "00")?;
        missing("get", b.get(&object, 10))?;
        missing("get_range", b.get_range(&object, 0, 0))?;
        missing("len", b.len(&object))?;
        missing("delete", b.delete(&object))?;
        hold(b.list(space)?.is_empty(), || format!("{} is not empty", space.prefix()))?;
    }
    Ok(())
}

fn deleted(b: &dyn Backend) -> Held {
    let (object, other) = (pack(5)?, pack(6)?);
    b.put_new(&other, &[b"stays"])?;
    for round in [&b"first"[..], b"the second"] {
        b.put_new(&object, &[round])?;
        same(&object, &b.get_range(&object, 0, 5)?, &round[..5])?;
        same(&object, &b.get(&object, 99)?, round)?;
        b.delete(&object)?;
        missing("get", b.get(&object, 99))?;
        missing("get_range", b.get_range(&object, 0, 1))?;
        missing("len", b.len(&object))?;
        missing("delete", b.delete(&object))?;
        hold(b.list(Space::Packs)? == [(other.clone(), 5)], || "a wrong listing".to_owned())?;
    }
    Ok(())
}

fn names_at_bounds(b: &dyn Backend) -> Held {
    let long = "z".repeat(100);
    let digits = "0".repeat(100);
    for space in [Space::Packs, Space::Notes] {
        let texts = ["0", "-", "a.b", "ab", "abc", "g0", "z-", "0.", "00", &long, &digits];
        for text in texts {
            b.put_new(&name(space, text)?, &[text.as_bytes()])?;
        }
        for text in texts {
            let object = name(space, text)?;
            same(&object, &b.get(&object, 100)?, text.as_bytes())?;
        }
        let listed = b.list(space)?;
        hold(listed.len() == texts.len(), || format!("{} listed", listed.len()))?;
        for text in texts {
            b.delete(&name(space, text)?)?;
        }
        hold(b.list(space)?.is_empty(), || "something stays".to_owned())?;
    }
    Ok(())
}

fn listings(b: &dyn Backend) -> Held {
    let mut wanted = Vec::new();
    for i in 0..100_u64 {
        let object = pack(i)?;
        b.put_new(&object, &[&content(i, 10)[..usize::try_from(i % 10).unwrap_or(0)]])?;
        wanted.push((object, i % 10));
    }
    wanted.sort();
    b.put_new(&name(Space::Index, "ab")?, &[])?;
    b.put_new(&name(Space::Parity, "ab")?, &[])?;
    hold(b.list(Space::Packs)? == wanted, || "packs: a wrong or unsorted listing".to_owned())?;
    hold(b.list(Space::Index)?.len() == 1, || "index: a wrong listing".to_owned())
}

/// Four threads read an object from before it is put until after it is deleted.
fn atomic(b: &dyn Backend) -> Held {
    let bytes = content(9, 3 << 20);
    let stop = AtomicBool::new(false);
    let object = pack(9)?;
    let read = || -> Held {
        while !stop.load(Ordering::Relaxed) {
            match b.get(&object, u64::MAX) {
                Ok(found) => same(&object, &found, &bytes)?,
                Err(error) => missing("get", Err::<(), _>(error))?,
            }
            match b.get_range(&object, 3 << 19, 3 << 19) {
                Ok(found) => same(&object, &found, &bytes[3 << 19..])?,
                Err(error) => missing("get_range", Err::<(), _>(error))?,
            }
            for (listed, len) in b.list(Space::Packs)? {
                hold(len == size(&bytes), || format!("{listed} is listed with {len} bytes"))?;
            }
        }
        Ok(())
    };
    let write = || -> Held {
        for _ in 0..15 {
            b.put_new(&object, &[&bytes[..1 << 20], &bytes[1 << 20..]])?;
            same(&object, &b.get(&object, u64::MAX)?, &bytes)?;
            b.delete(&object)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        let written = write();
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(joined).chain([written]).collect()
    })
}

/// Eight threads race for one name, again and again.
fn one_of_many_succeeds(b: &dyn Backend) -> Held {
    for round in 0..20 {
        let object = pack(1000 + round)?;
        let start = Barrier::new(8);
        let race = |thread: u64| -> Result<Option<u64>, Breach> {
            let bytes = content(thread, 20_000);
            start.wait();
            match b.put_new(&object, &[&bytes]) {
                Ok(()) => Ok(Some(thread)),
                Err(BackendError::Exists(_)) => {
                    hold(b.len(&object)? == 20_000, || format!("{object} exists in part"))?;
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        };
        let race = &race;
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|t| scope.spawn(move || race(t))).collect();
            threads.into_iter().map(joined).collect::<Result<Vec<_>, _>>()
        })?;
        let winners: Vec<u64> = results.into_iter().flatten().collect();
        hold(winners.len() == 1, || format!("{} threads made {object}", winners.len()))?;
        for winner in winners {
            same(&object, &b.get(&object, 20_000)?, &content(winner, 20_000))?;
        }
    }
    Ok(())
}

/// Objects that stay are in every listing while others come and go around them.
fn listing_beside_changes(b: &dyn Backend) -> Held {
    let staying = (0..150).map(pack).collect::<Result<Vec<_>, _>>()?;
    for object in &staying {
        b.put_new(object, &[b"stay"])?;
    }
    let stop = AtomicBool::new(false);
    let change = |thread: u64| -> Held {
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let object = pack(10_000 * (thread + 1) + turn % 50)?;
            b.put_new(&object, &[b"passing"])?;
            let listed = b.list(Space::Packs)?;
            hold(listed.iter().any(|(o, _)| *o == object), || "a put is not listed".to_owned())?;
            b.delete(&object)?;
        }
        Ok(())
    };
    let list = || -> Held {
        for _ in 0..100 {
            let listed = b.list(Space::Packs)?;
            hold(listed.is_sorted_by(|x, y| x.0 < y.0), || "unsorted, or a name twice".to_owned())?;
            let stay = listed.iter().filter(|(_, len)| *len == 4).count();
            hold(stay == staying.len(), || format!("{stay} of {} listed", staying.len()))?;
        }
        Ok(())
    };
    let change = &change;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|t| scope.spawn(move || change(t))).collect();
        let listed = list();
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(joined).chain([listed]).collect()
    })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Breach>>) -> Result<T, Breach> {
    thread.join().unwrap_or_else(|_| {
        Err(Breach::Seen { clause: "unnamed", seen: "a thread panicked".to_owned() })
    })
}
