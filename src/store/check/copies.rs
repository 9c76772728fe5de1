//! The configuration and the key slots, each in two copies of which one suffices.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::control::{Looked, bytes, is_summed};
use super::ledger::chain;
use super::{CheckError, DamageKind, Ledger};
use crate::backend::{Copy2, ObjectName, Space};
use crate::base::id::KeyId;
use crate::base::limits;
use crate::base::secret::SecretKey;
use crate::codec::seal::ObjectKey;
use crate::format::DecodeError;
use crate::format::control::{ConfigBody, Control, from_body};
use crate::format::header::ObjectKind;
use crate::store::keys;
use crate::store::repository::{Repository, RepositoryError, parse_master, unpack_body};

/// Both copies of each configuration and of each key slot.
///
/// # Errors
/// [`CheckError`].
pub fn copies(repository: &Repository, ledger: &mut Ledger) -> Result<(), CheckError> {
    configurations(repository, ledger)?;
    slots(repository, ledger)
}

/// The master key of an open repository.
fn master(repository: &Repository) -> Result<SecretKey, CheckError> {
    match repository.export_master().map(zeroize::Zeroizing::new) {
        Some(text) => Ok(parse_master(&text)?),
        None => Ok(keys::public_master(repository.id())),
    }
}

/// A copy's bytes; what is gone is entered.
fn copy(
    repository: &Repository,
    name: &ObjectName,
    ledger: &mut Ledger,
) -> Result<Option<Vec<u8>>, CheckError> {
    match bytes(repository, name, limits::CONTROL_MAX)? {
        Looked::Whole(bytes) => Ok(Some(bytes)),
        Looked::Gone => {
            ledger.add(name, DamageKind::CopyMissing, "it is gone".into());
            Ok(None)
        }
        Looked::Wrong(why) => {
            ledger.add(name, DamageKind::CopyDamaged, why);
            Ok(None)
        }
    }
}

/// Takes a copy apart; `Err` says what is wrong with it.
fn take_apart(
    repository: &Repository,
    name: &ObjectName,
    kind: ObjectKind,
    bytes: &[u8],
) -> Result<Result<Control, String>, CheckError> {
    match Control::decode(bytes, kind) {
        Ok(control) if control.repo == *repository.id() => Ok(Ok(control)),
        Ok(control) => Ok(Err(format!("it is of the repository {}", control.repo))),
        Err(source @ (DecodeError::Newer { .. } | DecodeError::Features { .. }))
            if is_summed(bytes) =>
        {
            Err(RepositoryError::decoding(name, source).into())
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn configurations(repository: &Repository, ledger: &mut Ledger) -> Result<(), CheckError> {
    let master = master(repository)?;
    let listed = repository.backend().list(Space::Config)?;
    let numbers: BTreeSet<u64> =
        listed.iter().filter_map(|(n, _)| n.name().split('.').next()?.parse().ok()).collect();
    for number in numbers {
        let mut first: Option<ConfigBody> = None;
        for which in Copy2::BOTH {
            let name = ObjectName::config(number, which);
            let Some(bytes) = copy(repository, &name, ledger)? else { continue };
            let control = take_apart(repository, &name, ObjectKind::Config, &bytes)?;
            let body = control.and_then(|control| open_config(&control, &master));
            let wrong = match body {
                Err(why) => why,
                Ok(body) if body.number != number => format!("it has the number {}", body.number),
                Ok(body) => match &first {
                    Some(other) if *other != body => "it differs from the other copy".into(),
                    Some(_) => continue,
                    None => {
                        first = Some(body);
                        continue;
                    }
                },
            };
            ledger.add(&name, DamageKind::CopyDamaged, wrong);
        }
    }
    Ok(())
}

fn open_config(control: &Control, master: &SecretKey) -> Result<ConfigBody, String> {
    let header = &control.header;
    let clear = control.clear();
    let kind = ObjectKind::Config;
    let key = ObjectKey::new(header.suite, master, &control.repo, kind, &header.salt, &clear);
    let mut body = control.sealed.clone();
    key.open(0, &mut body).map_err(|e| chain(&e))?;
    let plain = unpack_body(&body).map_err(|e| chain(&e))?;
    from_body(&plain, "configuration").map_err(|e| chain(&e))
}

/// The two copies of a slot are the same bytes. Which of two that differ is wrong, only its password
/// could tell, unless one of them is damaged in itself or is another slot's.
fn slots(repository: &Repository, ledger: &mut Ledger) -> Result<(), CheckError> {
    let listed = repository.backend().list(Space::Keys)?;
    let ids: BTreeSet<KeyId> = listed
        .iter()
        .filter_map(|(name, _)| KeyId::parse(name.name().split_once('.')?.0).ok())
        .collect();
    let mut owners: HashMap<[u8; 32], BTreeSet<KeyId>> = HashMap::new();
    let mut whole: BTreeMap<KeyId, Vec<(ObjectName, [u8; 32])>> = BTreeMap::new();
    for id in ids {
        for which in Copy2::BOTH {
            let name = ObjectName::key(&id, which);
            let Some(bytes) = copy(repository, &name, ledger)? else { continue };
            match take_apart(repository, &name, ObjectKind::KeySlot, &bytes)? {
                Ok(_) => {
                    let sum = *blake3::hash(&bytes).as_bytes();
                    owners.entry(sum).or_default().insert(id);
                    whole.entry(id).or_default().push((name, sum));
                }
                Err(why) => {
                    ledger.add(&name, DamageKind::CopyDamaged, why);
                }
            }
        }
    }
    for copies in whole.values() {
        let [(_, a), (_, b)] = copies.as_slice() else { continue };
        if a == b {
            continue;
        }
        let foreign = |sum: &[u8; 32]| owners.get(sum).is_some_and(|ids| ids.len() > 1);
        let known = foreign(a) != foreign(b);
        for (name, sum) in copies.iter().filter(|(_, sum)| !known || foreign(sum)) {
            let why = if foreign(sum) { "it is another slot's" } else { "the two copies differ" };
            ledger.add(name, DamageKind::CopyDamaged, why.into());
        }
    }
    Ok(())
}
