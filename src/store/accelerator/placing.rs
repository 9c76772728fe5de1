//! Chunks on their way into the table, handed out in the order of their keys however many they are:
//! up to a bound in memory, above it through buckets in an unnamed temporary file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::tables::{LOCATION_LEN, LocationBytes};
use crate::format::segment::ChunkKey;

/// A chunk and its place, as the table has it.
pub(super) type Row = (ChunkKey, LocationBytes);
const ROW_LEN: usize = 16 + LOCATION_LEN;
/// Chunks that are sorted at once: 22 MB of rows.
pub(super) const PLACED_MAX: usize = 512 << 10;
/// Bytes of the shortest chunk in an index segment.
const CHUNK_IN_SEGMENT: u64 = 17;
/// Buckets of a spill. Above 250 million chunks they are larger than the bound and are handed out
/// in several sorted runs each, which costs time and no memory.
const BUCKETS_MAX: u64 = 1024;

/// Collects rows, then hands them out sorted.
pub(super) struct Placing {
    rows: Vec<Row>,
    bound: usize,
    buckets: usize,
    /// Where rows may be spilled; nowhere: all are sorted in memory.
    dir: Option<PathBuf>,
    spill: Option<Spill>,
    total: u64,
}

impl Placing {
    /// For about as many rows as `listed` bytes of segments can hold, at most `bound` of them in
    /// memory where there is a directory for the others.
    pub(super) fn new(dir: Option<&Path>, listed: u64, bound: usize) -> Self {
        // Half a bound each: keys are hashes and spread evenly, but not exactly.
        let buckets = (listed / CHUNK_IN_SEGMENT).saturating_mul(2) / bound.max(1) as u64;
        let buckets = buckets.clamp(2, BUCKETS_MAX).next_power_of_two() as usize;
        let dir = dir.map(Path::to_path_buf);
        Self { rows: Vec::new(), bound: bound.max(1), buckets, dir, spill: None, total: 0 }
    }

    /// Rows so far, the same key counted as often as it came.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    #[cfg(test)]
    pub(super) fn spilled(&self) -> bool {
        self.spill.is_some()
    }

    pub(super) fn push(&mut self, row: Row) -> io::Result<()> {
        self.total += 1;
        if let Some(spill) = &mut self.spill {
            return spill.push(&row);
        }
        self.rows.push(row);
        match &self.dir {
            Some(dir) if self.rows.len() > self.bound => {
                let mut spill = Spill::new(dir, self.buckets, self.bound)?;
                let rows = std::mem::take(&mut self.rows);
                rows.iter().try_for_each(|row| spill.push(row))?;
                self.spill = Some(spill);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Hands out all rows in the order of their keys. Of several with one key the greatest comes
    /// last and alone, as long as they are within one sorted run.
    ///
    /// # Errors
    /// What `each` gives; `lost` of what reading the spill gives.
    pub(super) fn sorted<E>(
        self,
        lost: impl Fn(io::Error) -> E,
        mut each: impl FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rows = self.rows;
        let Some(mut spill) = self.spill else { return run(&mut rows, &mut each) };
        for number in 0..spill.buckets.len() {
            let bucket = std::mem::take(&mut spill.buckets[number]);
            for (at, count) in bucket.extents {
                if !rows.is_empty() && rows.len() + count > self.bound {
                    run(&mut rows, &mut each)?;
                }
                spill.read(at, count, &mut rows).map_err(&lost)?;
            }
            rows.extend(bucket.open.as_chunks::<ROW_LEN>().0.iter().map(unpacked));
            run(&mut rows, &mut each)?;
        }
        Ok(())
    }
}

fn run<E>(rows: &mut Vec<Row>, each: &mut impl FnMut(&Row) -> Result<(), E>) -> Result<(), E> {
    rows.sort_unstable();
    for (n, row) in rows.iter().enumerate() {
        if rows.get(n + 1).is_none_or(|next| next.0 != row.0) {
            each(row)?;
        }
    }
    rows.clear();
    Ok(())
}

fn unpacked(bytes: &[u8; ROW_LEN]) -> Row {
    let mut row = ([0; 16], [0; LOCATION_LEN]);
    row.0.copy_from_slice(&bytes[..16]);
    row.1.copy_from_slice(&bytes[16..]);
    row
}

/// One file in which each bucket has extents, in the order in which its buffer was full.
struct Spill {
    file: File,
    end: u64,
    buckets: Vec<Bucket>,
    /// Bytes of a bucket's buffer.
    open_max: usize,
}

#[derive(Default)]
struct Bucket {
    /// Where each extent begins, and its rows.
    extents: Vec<(u64, usize)>,
    open: Vec<u8>,
}

impl Spill {
    /// All buffers together take a quarter of what the bound takes.
    fn new(dir: &Path, buckets: usize, bound: usize) -> io::Result<Self> {
        let open_max = (bound / 4 / buckets).max(1) * ROW_LEN;
        let buckets = (0..buckets).map(|_| Bucket::default()).collect();
        Ok(Self { file: tempfile::tempfile_in(dir)?, end: 0, buckets, open_max })
    }

    fn push(&mut self, (key, location): &Row) -> io::Result<()> {
        let first = usize::from(u16::from_be_bytes([key[0], key[1]]));
        let number = (first * self.buckets.len()) >> 16;
        let bucket = &mut self.buckets[number];
        bucket.open.extend_from_slice(key);
        bucket.open.extend_from_slice(location);
        if bucket.open.len() >= self.open_max {
            self.file.write_all_at(&bucket.open, self.end)?;
            bucket.extents.push((self.end, bucket.open.len() / ROW_LEN));
            self.end += bucket.open.len() as u64;
            bucket.open.clear();
        }
        Ok(())
    }

    fn read(&self, at: u64, count: usize, rows: &mut Vec<Row>) -> io::Result<()> {
        let mut bytes = vec![0; count * ROW_LEN];
        self.file.read_exact_at(&mut bytes, at)?;
        rows.extend(bytes.as_chunks::<ROW_LEN>().0.iter().map(unpacked));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u32, pack: u8) -> Row {
        let mut row = ([0; 16], [pack; LOCATION_LEN]);
        row.0.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
        row
    }

    fn handed_out(placing: Placing) -> Vec<Row> {
        let mut out = Vec::new();
        let done = placing.sorted(
            |e| e,
            |row| {
                out.push(*row);
                Ok(())
            },
        );
        done.unwrap();
        out
    }

    #[test]
    fn rows_come_sorted_and_once_through_memory_and_through_buckets() {
        let dir = tempfile::tempdir().unwrap();
        for (dir, bound, spills) in [
            (None, 100, false),
            (Some(dir.path()), 10_000, false),
            (Some(dir.path()), 100, true),
            (Some(dir.path()), 1, true),
        ] {
            let mut placing = Placing::new(dir, 5000 * CHUNK_IN_SEGMENT, bound);
            for n in 0..5000 {
                placing.push(row(n, 1)).unwrap();
                if n % 7 == 0 {
                    placing.push(row(n, 2)).unwrap();
                }
            }
            assert_eq!(placing.spilled(), spills);
            assert_eq!(placing.total(), 5000 + 715);
            let out = handed_out(placing);
            if bound > 1 {
                assert!(out.is_sorted(), "bound {bound}");
                assert_eq!(out.len(), 5000, "bound {bound}");
            }
            for n in 0..5000 {
                let last = out.iter().rfind(|found| found.0 == row(n, 1).0).unwrap();
                assert_eq!(last.1[0], if n % 7 == 0 { 2 } else { 1 });
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing has a name");
    }

    #[test]
    fn a_bucket_that_outgrows_the_bound_is_handed_out_in_runs() {
        let dir = tempfile::tempdir().unwrap();
        // Keys that all fall into one bucket, against all expectation.
        let mut placing = Placing::new(Some(dir.path()), 0, 64);
        for n in (0..2000u16).rev() {
            let mut key = [0; 16];
            key[14..].copy_from_slice(&n.to_be_bytes());
            placing.push((key, [0; LOCATION_LEN])).unwrap();
        }
        let spill = placing.spill.as_ref().unwrap();
        let in_memory: usize = spill.buckets.iter().map(|b| b.open.capacity() / ROW_LEN).sum();
        assert!(in_memory <= 64 && placing.rows.capacity() <= 128);
        let out = handed_out(placing);
        assert_eq!(out.len(), 2000);
        let runs = out.windows(2).filter(|pair| pair[0] > pair[1]).count() + 1;
        assert!((2000 / 64..=2000 / 32 + 1).contains(&runs), "{runs} runs");
    }
}
