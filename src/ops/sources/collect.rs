//! Sources by where they really are.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::links::{Followed, follow};
use super::{SourcesError, Wanted, WantedSource};
use crate::base::path::{bytes, from_bytes, is_within, join, lossy, printable};
use crate::site::discover::{Locator, Site};
use crate::site::resources::Role;

/// Takes over all sources of a site.
pub(super) fn site(wanted: &mut Wanted, site: &Site) -> Result<(), SourcesError> {
    for source in &site.sources {
        let base = WantedSource {
            roles: source.roles.clone(),
            path: Vec::new(),
            named: Vec::new(),
            database: None,
            setting: source.setting.clone(),
            exists: source.exists,
            dir: false,
            secret: source.secret,
            critical: source.critical,
        };
        match &source.locator {
            Locator::Database(url) => {
                wanted.sources.push(WantedSource { database: Some(url.clone()), ..base });
            }
            Locator::Path(path) => add(wanted, path, base)?,
        }
    }
    wanted.data_dir = whereabouts(&site.data_dir)?;
    if let Some(dir) = &site.sqlite_dir {
        wanted.sqlite_dir = whereabouts(dir)?;
    }
    warn_of_leading_out(wanted);
    Ok(())
}

/// Takes over plain directories and files.
pub(super) fn plain(wanted: &mut Wanted, paths: &[PathBuf]) -> Result<(), SourcesError> {
    for path in paths {
        let whole = std::path::absolute(path)
            .map_err(|source| SourcesError::Follow { path: printable(bytes(path)), source })?;
        let base = WantedSource {
            roles: vec![Role::Extra],
            path: Vec::new(),
            named: Vec::new(),
            database: None,
            setting: None,
            exists: true,
            dir: false,
            secret: false,
            critical: false,
        };
        add(wanted, bytes(&whole), base)?;
    }
    Ok(())
}

/// Adds a path, and every link on the way to it.
fn add(wanted: &mut Wanted, path: &[u8], base: WantedSource) -> Result<(), SourcesError> {
    let base = WantedSource { named: path.to_vec(), ..base };
    let Some(Followed { canonical, links }) = followed(path)? else {
        merge(wanted, WantedSource { path: path.to_vec(), exists: false, ..base });
        return Ok(());
    };
    for link in links {
        let source = WantedSource {
            path: link,
            exists: true,
            critical: false,
            secret: false,
            ..base.clone()
        };
        merge(wanted, source);
    }
    let found = from_bytes(&canonical)
        .symlink_metadata()
        .map_err(|source| SourcesError::Follow { path: printable(&canonical), source })?;
    let kind = found.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        let message = format!(
            "{} is neither a file nor a directory: only that it is there is kept",
            printable(&canonical)
        );
        wanted.warn("not-a-file", message);
    }
    merge(wanted, WantedSource { path: canonical, exists: true, dir: found.is_dir(), ..base });
    Ok(())
}

/// Adds a source, or its roles to the one that is at its path already.
fn merge(wanted: &mut Wanted, source: WantedSource) {
    let same = |s: &&mut WantedSource| s.database.is_none() && s.path == source.path;
    let Some(known) = wanted.sources.iter_mut().find(same) else {
        wanted.sources.push(source);
        return;
    };
    for role in source.roles {
        if !known.roles.contains(&role) {
            known.roles.push(role);
        }
    }
    known.setting = known.setting.take().or(source.setting);
    known.secret |= source.secret;
    known.critical |= source.critical;
    known.exists |= source.exists;
    known.dir |= source.dir;
}

/// Where a path leads; `None` where there is nothing.
fn followed(path: &[u8]) -> Result<Option<Followed>, SourcesError> {
    match follow(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(SourcesError::Follow { path: printable(path), source }),
    }
}

fn whereabouts(path: &[u8]) -> Result<Option<Vec<u8>>, SourcesError> {
    Ok(followed(path)?.map(|found| found.canonical))
}

/// Where a path that may not be there yet is or will be; `None` for one without any parent.
pub(super) fn canonical_or_nearest(path: &Path) -> Result<Option<Vec<u8>>, SourcesError> {
    let whole = std::path::absolute(path)
        .map_err(|source| SourcesError::Follow { path: printable(bytes(path)), source })?;
    for dir in whole.ancestors() {
        if let Some(found) = whereabouts(bytes(dir))? {
            let rest = whole.strip_prefix(dir).map(bytes).unwrap_or_default();
            return Ok(Some(if rest.is_empty() { found } else { join(&found, rest) }));
        }
    }
    Ok(None)
}

/// Links directly in the data directory that lead out of all sources: their targets are not read.
fn warn_of_leading_out(wanted: &mut Wanted) {
    let Some(dir) = wanted.data_dir.clone() else { return };
    // What cannot be listed is found out, and told, when it is read.
    let Ok(entries) = std::fs::read_dir(from_bytes(&dir)) else { return };
    let roots = wanted.roots();
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        let path = bytes(&entry.path()).to_vec();
        let Ok(Some(target)) = whereabouts(&path) else { continue };
        if !roots.iter().any(|root| is_within(&target, root)) {
            let message = format!(
                "{} is a symbolic link to {}, which is in no source: add it as a path",
                printable(&path),
                printable(lossy(&target).as_bytes())
            );
            wanted.warn("leads-out", message);
        }
    }
}
