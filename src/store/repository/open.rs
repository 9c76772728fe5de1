//! Making and opening repositories.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::slots::read_slots;
use super::{Repository, RepositoryError, pack_body, unpack_body};
use crate::backend::{Backend, BackendError, Copy2, ObjectName, Space};
use crate::base::id::RepoId;
use crate::base::limits;
use crate::base::secret::{Password, SecretKey};
use crate::base::time::Timestamp;
use crate::codec::seal::ObjectKey;
use crate::format::DecodeError;
use crate::format::control::{ConfigBody, Control, EpochSecret, HexBytes, from_body, to_body};
use crate::format::header::{Header, ObjectKind, Suite};
use crate::host::entropy::Entropy;
use crate::store::cut::{ChunkSizes, Cutter};
use crate::store::keys::{self, Purpose};
use crate::store::naming::Namer;

/// How a repository is made.
pub struct InitOptions<'a> {
    /// The first slot's password; `None` for no encryption.
    pub password: Option<&'a Password>,
    /// zstd level, 1 to 19.
    pub compression: i32,
    /// Share of parity in per cent, 0 to 50.
    pub parity_percent: u8,
    /// Chunk sizes.
    pub sizes: ChunkSizes,
    /// Takes over ids and cuts of this repository, so that chunks can be copied by id.
    pub related_to: Option<&'a Repository>,
    /// The time of day.
    pub now: Timestamp,
}

/// What opening a repository gave.
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// Copies of configuration or slots that are gone or damaged while the other copy serves.
    pub damaged_copies: Vec<String>,
}

/// Makes a repository in an empty storage: two copies of the key slot, then two of the
/// configuration, whose presence makes it a repository.
///
/// # Errors
/// The storage's, or a parameter out of bounds.
pub fn init(
    backend: Arc<dyn Backend>,
    entropy: Arc<dyn Entropy>,
    options: &InitOptions<'_>,
) -> Result<Repository, RepositoryError> {
    if !options.sizes.are_valid() {
        return Err(RepositoryError::Parameter("chunk size"));
    }
    if !(1..=19).contains(&options.compression) {
        return Err(RepositoryError::Parameter("compression"));
    }
    if options.parity_percent > 50 {
        return Err(RepositoryError::Parameter("parity"));
    }
    let mut id = [0; 16];
    entropy.fill(&mut id).map_err(keys::KeyError::Entropy)?;
    let id = RepoId::from_array(id);
    let suite = if options.password.is_some() { Suite::Aes256Gcm } else { Suite::Checksum };
    let master = match options.password {
        Some(_) => keys::draw(&*entropy)?,
        None => keys::public_master(&id),
    };
    let seal = keys::draw(&*entropy)?;
    let wrap = |purpose, secret: &SecretKey| {
        keys::wrap(suite, &master, &id, purpose, secret, &*entropy).map(HexBytes)
    };
    let (ids, cuts) = match options.related_to {
        Some(other) => other.related_secrets()?,
        None => (keys::draw(&*entropy)?, keys::draw(&*entropy)?),
    };
    let config = ConfigBody {
        number: 1,
        created: options.now,
        chunk_min: options.sizes.min,
        chunk_avg: options.sizes.avg,
        chunk_max: options.sizes.max,
        compression: options.compression,
        parity_percent: options.parity_percent,
        seals: vec![EpochSecret { epoch: 1, secret: wrap(Purpose::Seal, &seal)? }],
        epoch: 1,
        ids: wrap(Purpose::Ids, &ids)?,
        cuts: wrap(Purpose::Cuts, &cuts)?,
        related_to: options.related_to.map(|r| r.id),
    };
    let repository = assemble(backend, entropy, id, suite, config, master)?;
    if let Some(password) = options.password {
        repository.add_slot(password, "first", false, options.now)?;
    }
    repository.put_config(&repository.config)?;
    Ok(repository)
}

/// What opens a repository.
pub enum Unlock {
    /// A password, tried on every slot.
    Password(Password),
    /// The master key itself, from an exported copy.
    Master(SecretKey),
}

/// Opens a repository. `unlock` is asked only where the repository is encrypted.
///
/// # Errors
/// [`BackendError::NoRepository`] without any configuration, [`RepositoryError::WrongKey`],
/// [`RepositoryError::NeedsKey`], damage of both copies, or a newer version.
pub fn open(
    backend: Arc<dyn Backend>,
    entropy: Arc<dyn Entropy>,
    unlock: impl FnOnce() -> Option<Unlock>,
) -> Result<Opened, RepositoryError> {
    let mut damaged_copies = Vec::new();
    let controls = read_configs(&*backend, &mut damaged_copies)?;
    let Some((_, first)) = controls.first() else {
        return Err(RepositoryError::Nothing("configuration"));
    };
    let (id, suite) = (first.repo, first.header.suite);
    let mut given = false;
    let master = match suite {
        Suite::Checksum => keys::public_master(&id),
        Suite::Aes256Gcm => {
            let slots = read_slots(&*backend, &mut damaged_copies);
            match unlock().ok_or(RepositoryError::NeedsKey)? {
                Unlock::Password(password) => open_master(&slots?, &password)?,
                Unlock::Master(master) => {
                    given = true;
                    master
                }
            }
        }
    };
    let (config, from) = newest_config(&controls, &master, given, &mut damaged_copies)?;
    // By the copy that opened: the other one may be another repository's.
    let (id, suite) = (from.repo, from.header.suite);
    let repository = assemble(backend, entropy, id, suite, config, master)?;
    Ok(Opened { repository, damaged_copies })
}

/// The configuration out of its copies: one that opens suffices.
fn newest_config<'c>(
    controls: &'c [(ObjectName, Control)],
    master: &SecretKey,
    given: bool,
    damaged: &mut Vec<String>,
) -> Result<(ConfigBody, &'c Control), RepositoryError> {
    let mut good = None;
    let mut last = RepositoryError::Nothing("configuration");
    for (name, control) in controls {
        match open_config(control, master, name) {
            Ok(body) => good = good.or(Some((body, control))),
            Err(error @ RepositoryError::Newer { .. }) => return Err(error),
            Err(error) => {
                damaged.push(name.to_string());
                last = error;
            }
        }
    }
    match (good, last) {
        (Some(found), _) => Ok(found),
        // A slot authenticates its key; a key from paper is only known wrong here.
        (None, RepositoryError::Forged { .. }) if given => Err(RepositoryError::WrongMaster),
        (None, last) => Err(last),
    }
}

fn assemble(
    backend: Arc<dyn Backend>,
    entropy: Arc<dyn Entropy>,
    id: RepoId,
    suite: Suite,
    config: ConfigBody,
    master: SecretKey,
) -> Result<Repository, RepositoryError> {
    let sizes = ChunkSizes { min: config.chunk_min, avg: config.chunk_avg, max: config.chunk_max };
    if !sizes.are_valid() || !(1..=22).contains(&config.compression) {
        return Err(RepositoryError::Parameter("chunk size or compression"));
    }
    let open = |purpose, wrapped: &HexBytes| keys::unwrap(suite, &master, &id, purpose, &wrapped.0);
    let mut seals = BTreeMap::new();
    for seal in &config.seals {
        seals.insert(seal.epoch, open(Purpose::Seal, &seal.secret)?);
    }
    if !seals.contains_key(&config.epoch) {
        return Err(RepositoryError::Parameter("key epoch"));
    }
    let namer = Namer::new(&open(Purpose::Ids, &config.ids)?);
    let cutter = Cutter::new(&open(Purpose::Cuts, &config.cuts)?, sizes);
    Ok(Repository { backend, entropy, id, suite, config, master, seals, namer, cutter })
}

/// The readable copies of the configuration of the highest number that has one.
fn read_configs(
    backend: &dyn Backend,
    damaged: &mut Vec<String>,
) -> Result<Vec<(ObjectName, Control)>, RepositoryError> {
    let listed = backend.list(Space::Config)?;
    let mut numbers: Vec<u64> =
        listed.iter().filter_map(|(name, _)| name.name().split('.').next()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut last = None;
    while let Some(number) = numbers.pop() {
        let mut found = Vec::new();
        for copy in Copy2::BOTH {
            let name = ObjectName::config(number, copy);
            let read = backend.get(&name, limits::CONTROL_MAX).map_err(RepositoryError::from);
            let read = read.and_then(|bytes| {
                Control::decode(&bytes, ObjectKind::Config)
                    .map_err(|source| RepositoryError::decoding(&name, source))
            });
            match read {
                Ok(control) => found.push((name, control)),
                Err(newer @ RepositoryError::Newer { .. }) => return Err(newer),
                Err(error) => {
                    damaged.push(name.to_string());
                    last = Some(error);
                }
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(last.unwrap_or_else(|| BackendError::NoRepository("this place".into()).into()))
}

fn open_master(
    slots: &[super::slots::SealedSlot],
    password: &Password,
) -> Result<SecretKey, RepositoryError> {
    for slot in slots {
        if let Some((master, _)) = slot.open(password)? {
            return Ok(master);
        }
    }
    Err(RepositoryError::WrongKey { slots: slots.len() })
}

fn config_key(control: &Control, master: &SecretKey) -> ObjectKey {
    let header = &control.header;
    ObjectKey::new(
        header.suite,
        master,
        &control.repo,
        ObjectKind::Config,
        &header.salt,
        &control.clear(),
    )
}

fn open_config(
    control: &Control,
    master: &SecretKey,
    object: &ObjectName,
) -> Result<ConfigBody, RepositoryError> {
    let mut body = control.sealed.clone();
    config_key(control, master)
        .open(0, &mut body)
        .map_err(|source| RepositoryError::Forged { object: object.to_string(), source })?;
    let wrong = |source: DecodeError| RepositoryError::decoding(object, source);
    let config: ConfigBody =
        from_body(&unpack_body(&body).map_err(wrong)?, "configuration").map_err(wrong)?;
    // An older one under a higher number would take back what was changed since.
    if Copy2::BOTH.iter().all(|copy| ObjectName::config(config.number, *copy) != *object) {
        return Err(wrong(DecodeError::Invalid { what: "the number of the configuration" }));
    }
    Ok(config)
}

impl Repository {
    /// Writes both copies of a configuration.
    pub(super) fn put_config(&self, config: &ConfigBody) -> Result<(), RepositoryError> {
        for copy in Copy2::BOTH {
            let name = ObjectName::config(config.number, copy);
            let header = Header { epoch: 0, ..self.new_header(ObjectKind::Config)? };
            let mut control = Control { header, repo: self.id, slot: None, sealed: Vec::new() };
            let body = to_body(config).map_err(|e| RepositoryError::decoding(&name, e))?;
            let mut sealed = pack_body(&body);
            config_key(&control, &self.master)
                .seal(0, &mut sealed)
                .map_err(|source| RepositoryError::Forged { object: name.to_string(), source })?;
            control.sealed = sealed;
            self.backend.put_new(&name, &[&control.encode()])?;
        }
        Ok(())
    }

    /// Draws a new sealing secret, so that whoever learnt the old one cannot read what is written
    /// from now on. What is there stays readable.
    ///
    /// # Errors
    /// The storage's; [`BackendError::Exists`] where somebody else rotated at the same time.
    pub fn rotate(&self) -> Result<u32, RepositoryError> {
        let epoch = self.config.epoch + 1;
        let secret = keys::draw(self.entropy())?;
        let wrapped =
            keys::wrap(self.suite, &self.master, &self.id, Purpose::Seal, &secret, self.entropy())?;
        let mut config = self.config.clone();
        config.number += 1;
        config.epoch = epoch;
        config.seals.push(EpochSecret { epoch, secret: HexBytes(wrapped) });
        self.put_config(&config)?;
        Ok(epoch)
    }

    /// The secrets that a related repository takes over: of ids and of cuts.
    fn related_secrets(&self) -> Result<(SecretKey, SecretKey), RepositoryError> {
        let open = |purpose, wrapped: &HexBytes| {
            keys::unwrap(self.suite, &self.master, &self.id, purpose, &wrapped.0)
        };
        Ok((open(Purpose::Ids, &self.config.ids)?, open(Purpose::Cuts, &self.config.cuts)?))
    }
}
