//! The configurations of other nodes: read before the stop, kept for the run in a private directory,
//! and read from there as sources of their own. Each lies below its node's address, so that no
//! restore puts it over this machine's.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::{SourcesInput, Wanted, WantedSource};
use crate::base::path::{bytes, from_bytes, is_within, printable};
use crate::host::node::Node;
use crate::host::node::files::{Fetched, FetchedKind, Which, fetch};
use crate::host::service::ServiceError;
use crate::host::systemd::Systemd;
use crate::site::discover::{DiscoverInput, Locator, discover};
use crate::site::resources::{Role, Take, path_in};

#[cfg(test)]
mod tests;

/// Roles of what each node has for itself.
const OWN: [Role; 5] =
    [Role::Config, Role::Referenced, Role::Environment, Role::Unit, Role::License];

/// Where the configurations of a site's other nodes lie during a run. They are removed with it.
pub struct NodeFiles {
    dir: PathBuf,
    _lock: OwnedFd,
}

impl NodeFiles {
    /// An empty place for a site's nodes below the state directory; `None` while another run has
    /// it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(state_dir: &Path, site: &str) -> io::Result<Option<Self>> {
        let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let readable: String = site.trim_start_matches('.').chars().take(40).map(fits).collect();
        let hash = blake3::hash(site.as_bytes()).to_hex();
        let place = state_dir.join("nodes");
        DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        std::fs::set_permissions(&place, Permissions::from_mode(0o700))?;
        // Links on the way would lead a later look at the sources elsewhere.
        let place = place.canonicalize()?;
        let name = format!("{readable}-{}", &hash[..8]);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock: OwnedFd = options.open(place.join(format!("{name}.lock")))?.into();
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let dir = place.join(name);
        // A run that was killed left it.
        remove(&dir)?;
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Some(Self { dir, _lock: lock }))
    }

    /// Reads a node's configuration, whatever it names, and the files of its units, and makes it a
    /// source.
    ///
    /// # Errors
    /// What cannot be read, in one sentence.
    pub fn add(
        &self,
        node: &Node,
        units: &[String],
        input: &SourcesInput,
        wanted: &mut Wanted,
    ) -> io::Result<()> {
        let Some(gcfg) = &input.gcfg else { return Ok(()) };
        let gcfg = std::path::absolute(gcfg)?;
        let name = node.name();
        let top = self.dir.join(name.trim_start_matches("ssh://"));
        if let Some((left_out, what)) =
            wanted.left_out.iter().find(|(p, _)| is_within(bytes(&top), p))
        {
            let message = format!("{} is {what} and lies in a source", printable(left_out));
            return Err(io::Error::other(message));
        }
        let mut stage = Stage::new(&top)?;
        let mut paths = vec![bytes(&gcfg).to_vec()];
        paths.extend(of_this_machine(wanted));
        paths.extend(wanted.afar.iter().cloned());
        for unit in units {
            paths.extend(of_unit(node, unit)?);
        }
        paths.sort();
        paths.dedup();
        stage.put(fetch(node, Which::All, &paths)?)?;
        if stage.has(bytes(&gcfg)) {
            let more = named_there(&stage, &gcfg, units, &wanted.site)?;
            stage.put(fetch(node, Which::Files, &more)?)?;
        } else {
            let path = printable(bytes(&gcfg));
            wanted.warn("node-config", format!("{path} is not there on {name}"));
        }
        stage.finish()?;
        wanted.sources.push(WantedSource {
            roles: vec![Role::NodeConfig],
            path: bytes(&top).to_vec(),
            named: bytes(&top).to_vec(),
            database: None,
            setting: None,
            exists: true,
            dir: true,
            secret: true,
            critical: false,
        });
        Ok(())
    }
}

impl Drop for NodeFiles {
    fn drop(&mut self) {
        // What stays is removed by the next run.
        let _ = remove(&self.dir);
    }
}

/// What the node's own configuration names and was not read yet.
pub(super) fn named_there(
    stage: &Stage,
    gcfg: &Path,
    units: &[String],
    site: &str,
) -> io::Result<Vec<Vec<u8>>> {
    let input = DiscoverInput {
        root: stage.top.clone(),
        units: units.to_vec(),
        site_name: Some(site.to_owned()),
        ..DiscoverInput::new(gcfg)
    };
    let site = discover(&input).map_err(|error| {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text = format!("{text}: {source}");
        }
        io::Error::other(text)
    })?;
    let mut paths = Vec::new();
    for source in &site.sources {
        if let (Locator::Path(path), true) =
            (&source.locator, source.roles.iter().any(|role| OWN.contains(role)))
        {
            paths.push(path.clone());
        }
    }
    for setting in site.settings.items() {
        let value = setting.value.as_deref().and_then(|value| path_in(Take::IfPath, value));
        paths.extend(value.map(|path| path.as_bytes().to_vec()));
    }
    let system: [&[u8]; 8] =
        [b"/opt", b"/usr", b"/bin", b"/sbin", b"/proc", b"/sys", b"/dev", b"/var/log"];
    paths.retain(|path| {
        let of_the_system = system.iter().any(|dir| is_within(path, dir));
        !of_the_system && !is_within(path, &site.data_dir) && !stage.has(path)
    });
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The paths of this machine's own files, which other nodes most likely have, too. Directories only
/// where they are the configuration's.
fn of_this_machine(wanted: &Wanted) -> Vec<Vec<u8>> {
    let own = |source: &&WantedSource| {
        let shared = wanted.data_dir.as_ref().is_some_and(|dir| is_within(&source.path, dir));
        let config = source.roles.contains(&Role::Config);
        source.database.is_none()
            && !shared
            && (config || !source.dir)
            && source.roles.iter().any(|role| OWN.contains(role))
    };
    wanted.sources.iter().filter(own).map(|source| source.named.clone()).collect()
}

/// The files of a unit there, as systemd names them.
pub(super) fn of_unit(node: &Node, unit: &str) -> io::Result<Vec<Vec<u8>>> {
    let unit = match Systemd::on(node.clone(), unit).and_then(|unit| unit.properties()) {
        Ok(unit) => unit,
        // The window has its own word about that.
        Err(ServiceError::UnknownUnit(_)) => return Ok(Vec::new()),
        Err(error) => return Err(io::Error::other(error.to_string())),
    };
    let files = unit.fragment.into_iter().chain(unit.drop_ins);
    let files = files.chain(unit.environment_files.into_iter().map(|(path, _)| path));
    Ok(files.filter(|path| path.is_absolute()).map(|path| bytes(&path).to_vec()).collect())
}

/// What is being written below a node's directory.
pub(super) struct Stage {
    top: PathBuf,
    /// What was made, by the path there; the metadata of directories is set at the end.
    made: HashMap<Vec<u8>, Option<Fetched>>,
}

impl Stage {
    fn new(top: &Path) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(top)?;
        Ok(Self::within(top))
    }

    /// In an empty directory that is there.
    pub(super) fn within(top: &Path) -> Self {
        Self { top: top.to_owned(), made: HashMap::new() }
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.made.contains_key(path)
    }

    fn place(&self, path: &[u8]) -> PathBuf {
        self.top.join(from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
    }

    /// Makes the directories above a path. Only those that this run made are gone through: an
    /// archive cannot lead elsewhere by a link that it brought.
    fn make_above(&mut self, path: &[u8]) -> io::Result<()> {
        let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
        for end in ends.map(|(at, _)| at).collect::<Vec<_>>() {
            self.make_dir(&path[..end], None)?;
        }
        Ok(())
    }

    fn make_dir(&mut self, path: &[u8], meta: Option<Fetched>) -> io::Result<()> {
        let place = self.place(path);
        match self.made.get_mut(path) {
            Some(known) if place.symlink_metadata()?.is_dir() => {
                if meta.is_some() {
                    *known = meta;
                }
                Ok(())
            }
            Some(_) => Err(io::Error::other(format!("{} is no directory there", printable(path)))),
            None => {
                DirBuilder::new().mode(0o700).create(&place)?;
                self.made.insert(path.to_vec(), meta);
                Ok(())
            }
        }
    }

    pub(super) fn put(&mut self, all: Vec<Fetched>) -> io::Result<()> {
        for one in all {
            self.make_above(&one.path)?;
            let path = one.path.clone();
            let place = self.place(&path);
            match &one.kind {
                FetchedKind::Dir => self.make_dir(&path, Some(one))?,
                // A path that was named twice.
                _ if self.has(&path) => {}
                FetchedKind::File(content) => {
                    let mut options = OpenOptions::new();
                    options.write(true).create_new(true).mode(0o600);
                    let mut file: File = options.open(&place)?;
                    file.write_all(content)?;
                    dress(&place, &one)?;
                    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(one.mtime));
                    at.map_or(Ok(()), |at| file.set_modified(at))?;
                    self.made.insert(path, None);
                }
                FetchedKind::Link(target) => {
                    std::os::unix::fs::symlink(from_bytes(target), &place)?;
                    self.made.insert(path, None);
                }
                FetchedKind::Other => {}
            }
        }
        Ok(())
    }

    /// Gives directories their owners and permissions.
    pub(super) fn finish(&self) -> io::Result<()> {
        for (path, meta) in &self.made {
            if let Some(meta) = meta {
                dress(&self.place(path), meta)?;
            }
        }
        Ok(())
    }
}

/// Owner and permissions; owners are for root alone to give away.
fn dress(place: &Path, meta: &Fetched) -> io::Result<()> {
    if crate::host::machine::is_root() {
        std::os::unix::fs::lchown(place, Some(meta.uid), Some(meta.gid))?;
    }
    std::fs::set_permissions(place, Permissions::from_mode(meta.mode))
}
