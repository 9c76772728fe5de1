//! Records of fanotify, as the kernel queues them: bytes to events, nothing else.

/// The length of what every record begins with.
const METADATA: usize = 24;
/// The version of the layout, unchanged since Linux 2.6.39.
const VERSION: u8 = 3;
/// Length of what every information of a record begins with: its type and length.
const INFO: usize = 4;
/// Length of the file system's id, which stands before a handle.
const FSID: usize = 8;
/// Length of what stands before a handle's own bytes.
const HANDLE: usize = 8;
/// Longest handle that the kernel makes (`MAX_HANDLE_SZ`).
pub const HANDLE_MAX: usize = 128;

const TYPE_FID: u8 = 1;
const TYPE_DFID_NAME: u8 = 2;
const TYPE_DFID: u8 = 3;
const TYPE_OLD_DFID_NAME: u8 = 10;
const TYPE_NEW_DFID_NAME: u8 = 12;

/// The queue was full, and events are lost.
pub const OVERFLOW: u64 = 0x4000;

/// What names an inode to the kernel. It holds the inode's generation, so a number that is used
/// again is another handle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle<'a> {
    /// The kind, which is the file system's own matter.
    pub kind: i32,
    /// At most [`HANDLE_MAX`] bytes.
    pub bytes: &'a [u8],
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event<'a> {
    /// What happened, as bits of `FAN_*`.
    pub mask: u64,
    /// To what it happened.
    pub object: Option<Handle<'a>>,
    /// Where its name is, or was.
    pub dir: Option<Handle<'a>>,
    /// Where its name is now, of a rename that is told as one.
    pub new_dir: Option<Handle<'a>>,
}

/// Why bytes are no records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A length that leads out of the bytes, or back.
    #[error("a record of fanotify has a length that cannot be")]
    Length,
    /// Another layout.
    #[error("records of fanotify have version {0}, which is not known")]
    Version(u8),
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(two.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(eight.try_into().ok()?))
}

/// Calls `each` for every event, in order, and gives their number.
///
/// # Errors
/// [`DecodeError`]; events before the one that is wrong have been told.
pub fn events<'a>(
    mut bytes: &'a [u8],
    each: &mut dyn FnMut(Event<'a>),
) -> Result<u64, DecodeError> {
    let mut count = 0;
    while !bytes.is_empty() {
        let len = word(bytes, 0).ok_or(DecodeError::Length)? as usize;
        if len < METADATA || len > bytes.len() {
            return Err(DecodeError::Length);
        }
        let (record, rest) = bytes.split_at(len);
        each(event(record)?);
        count += 1;
        bytes = rest;
    }
    Ok(count)
}

fn event(record: &[u8]) -> Result<Event<'_>, DecodeError> {
    match record[4] {
        VERSION => {}
        other => return Err(DecodeError::Version(other)),
    }
    let head = usize::from(half(record, 6).ok_or(DecodeError::Length)?);
    let mask = long(record, 8).ok_or(DecodeError::Length)?;
    let mut infos = record.get(head..).filter(|_| head >= METADATA).ok_or(DecodeError::Length)?;
    let mut event = Event { mask, ..Event::default() };
    while !infos.is_empty() {
        let len = usize::from(half(infos, 2).ok_or(DecodeError::Length)?);
        if len < INFO || len > infos.len() {
            return Err(DecodeError::Length);
        }
        let (info, rest) = infos.split_at(len);
        match info[0] {
            TYPE_FID => event.object = handle(info)?,
            TYPE_DFID | TYPE_DFID_NAME | TYPE_OLD_DFID_NAME => event.dir = handle(info)?,
            TYPE_NEW_DFID_NAME => event.new_dir = handle(info)?,
            _ => {}
        }
        infos = rest;
    }
    Ok(event)
}

/// The handle of an information; `None` where the file system could not make one.
fn handle(info: &[u8]) -> Result<Option<Handle<'_>>, DecodeError> {
    let at = INFO + FSID;
    let len = word(info, at).ok_or(DecodeError::Length)? as usize;
    let kind = word(info, at + 4).ok_or(DecodeError::Length)?.cast_signed();
    let bytes = info.get(at + HANDLE..).ok_or(DecodeError::Length)?;
    if len > HANDLE_MAX {
        return Err(DecodeError::Length);
    }
    let bytes = bytes.get(..len).ok_or(DecodeError::Length)?;
    Ok((len > 0).then_some(Handle { kind, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0];
        let len = (INFO + FSID + HANDLE + handle.len() + name.len()).next_multiple_of(4);
        out.extend((len as u16).to_ne_bytes());
        out.extend([7; FSID]);
        out.extend((handle.len() as u32).to_ne_bytes());
        out.extend(1i32.to_ne_bytes());
        out.extend(handle);
        out.extend(name);
        out.resize(len, 0);
        out
    }

    fn record(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
        let infos = infos.concat();
        let mut out = ((METADATA + infos.len()) as u32).to_ne_bytes().to_vec();
        out.extend([VERSION, 0]);
        out.extend((METADATA as u16).to_ne_bytes());
        out.extend(mask.to_ne_bytes());
        out.extend((-1i32).to_ne_bytes());
        out.extend(5i32.to_ne_bytes());
        out.extend(infos);
        out
    }

    fn all(bytes: &[u8]) -> Result<Vec<Event<'_>>, DecodeError> {
        let mut found = Vec::new();
        let count = events(bytes, &mut |event| found.push(event))?;
        assert_eq!(count, found.len() as u64);
        Ok(found)
    }

    #[test]
    fn records_are_read_with_what_they_name() {
        let fid = info(TYPE_FID, b"12345678", b"");
        let dfid = info(TYPE_DFID_NAME, b"abcd", b"name\0");
        let mut bytes = record(2, &[dfid.clone(), fid.clone()]);
        bytes.extend(record(OVERFLOW, &[]));
        bytes.extend(record(1, &[info(99, b"", b"what is not known"), fid]));
        let new = info(TYPE_NEW_DFID_NAME, b"wxyz", b"new\0");
        bytes.extend(record(3, &[dfid, new]));
        bytes.extend(record(4, &[info(TYPE_DFID, b"", b"")]));
        let found = all(&bytes).unwrap();
        let object = Some(Handle { kind: 1, bytes: b"12345678" });
        let dir = Some(Handle { kind: 1, bytes: b"abcd" });
        assert_eq!(found[0], Event { mask: 2, object, dir, new_dir: None });
        assert_eq!(found[1], Event { mask: OVERFLOW, ..Event::default() });
        assert_eq!(found[2], Event { mask: 1, object, ..Event::default() });
        let new_dir = Some(Handle { kind: 1, bytes: b"wxyz" });
        assert_eq!(found[3], Event { mask: 3, dir, new_dir, object: None });
        assert_eq!(found[4], Event { mask: 4, ..Event::default() }, "a handle of no bytes");
        assert_eq!(all(b""), Ok(vec![]));
    }

    #[test]
    fn lengths_that_cannot_be_are_errors() {
        let whole = record(2, &[info(TYPE_FID, b"12345678", b"")]);
        for cut in 1..whole.len() {
            assert_eq!(all(&whole[..cut]), Err(DecodeError::Length), "{cut}");
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut other = whole.clone();
            other[at..at + bytes.len()].copy_from_slice(bytes);
            all(&other).map(|found| found.len())
        };
        for len in [0u32, 1, 23, 25, 1000, u32::MAX] {
            assert_eq!(with(0, &len.to_ne_bytes()), Err(DecodeError::Length), "{len}");
        }
        assert_eq!(with(4, &[2]), Err(DecodeError::Version(2)));
        for len in [0u16, 23, 1000, u16::MAX] {
            assert_eq!(with(6, &len.to_ne_bytes()), Err(DecodeError::Length), "{len}");
            assert_eq!(with(METADATA + 2, &len.to_ne_bytes()), Err(DecodeError::Length), "{len}");
        }
        for len in [9u32, 129, u32::MAX] {
            let at = METADATA + INFO + FSID;
            assert_eq!(with(at, &len.to_ne_bytes()), Err(DecodeError::Length), "{len}");
        }
    }

    #[test]
    fn any_bytes_are_events_or_an_error() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let whole = record(2, &[info(TYPE_DFID_NAME, b"abcd", b"n\0"), info(TYPE_FID, b"12", b"")]);
        for _ in 0..20_000 {
            let mut bytes = [&whole[..], &whole[..]].concat();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 24) as u8;
            }
            if let Ok(found) = all(&bytes) {
                for one in found.iter().flat_map(|e| [e.object, e.dir, e.new_dir]).flatten() {
                    assert!(one.bytes.len() <= HANDLE_MAX);
                }
            }
        }
    }
}
