//! Looking at roots a second time.

use super::digest;
use super::engine::IntakeError;
use super::forest::{OpenRoot, ReadInput, looker, open_root, target};
use super::look::{FirstLook, SecondLook, again};
use super::scan::Looker;
use super::threads::Threads;

/// Looks at all roots a second time.
///
/// # Errors
/// [`IntakeError`]; what cannot be looked at again has changed.
pub fn look_again(input: &ReadInput<'_>, first: &FirstLook) -> Result<SecondLook, IntakeError> {
    look_again_at(input, first, &input.plan.roots)
}

/// Looks at some of the roots a second time.
///
/// # Errors
/// As [`look_again`].
pub fn look_again_at(
    input: &ReadInput<'_>,
    first: &FirstLook,
    roots: &[Vec<u8>],
) -> Result<SecondLook, IntakeError> {
    let mut result = SecondLook::default();
    if roots.is_empty() {
        return Ok(result);
    }
    let threads = Threads::of(input);
    let looker = Looker { syncs: false, far: threads.far, ..looker(input) };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.look)
        .build()
        .map_err(IntakeError::Threads)?;
    let namer = input.reader.repository().namer();
    for path in roots {
        match open_root(input, path) {
            Err(_) => result.add(path.clone()),
            Ok(OpenRoot { leaf: Some((name, stat)), .. }) => {
                let now = digest::entry(namer, "", &name, &stat);
                let same = first.leaves().iter().any(|leaf| {
                    leaf.path == *path && digest::entry(namer, "", &name, &leaf.stat) == now
                });
                result.looked += 1;
                if !same {
                    result.add(path.clone());
                }
            }
            Ok(root) => {
                let target = target(&looker, root, path);
                let found = again(&looker, &pool, input.interrupt, first, target)?;
                result.merge(found);
            }
        }
    }
    Ok(result)
}
