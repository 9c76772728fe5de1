use super::*;
use crate::backend::Copy2;
use crate::backend::memory::MemoryBackend;
use crate::base::id::{KeyId, ManifestId};
use crate::base::secret::Password;
use crate::base::time::Timestamp;
use crate::format::control::{Fact, NoteBody};
use crate::format::pack::ChunkKind;
use crate::host::entropy::SystemEntropy;
use crate::store::cut::ChunkSizes;

fn password(text: &str) -> Password {
    Password::new(text.into())
}

fn options<'a>(
    password: Option<&'a Password>,
    related_to: Option<&'a Repository>,
) -> InitOptions<'a> {
    InitOptions {
        password,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to,
        now: Timestamp::EPOCH,
    }
}

fn made(
    backend: &MemoryBackend,
    password: Option<&Password>,
    related_to: Option<&Repository>,
) -> Repository {
    let options = options(password, related_to);
    init(Arc::new(backend.clone()), Arc::new(SystemEntropy), &options).unwrap()
}

fn opened(backend: &MemoryBackend, word: Option<&str>) -> Result<Opened, RepositoryError> {
    open(Arc::new(backend.clone()), Arc::new(SystemEntropy), || {
        word.map(|word| Unlock::Password(password(word)))
    })
}

fn slot_ids(repository: &Repository) -> Vec<KeyId> {
    let slots = repository.slots().unwrap();
    slots.iter().map(|slot| KeyId::parse(&slot.id).unwrap()).collect()
}

fn note() -> NoteBody {
    let about = ManifestId::from_array([7; 32]);
    NoteBody { about, time: Timestamp::EPOCH, fact: Fact::Drilled { passed: true } }
}

#[test]
fn a_repository_opens_with_its_password_and_no_other() {
    let backend = MemoryBackend::new();
    let repository = made(&backend, Some(&password("right")), None);
    assert!(repository.is_encrypted());
    assert_eq!(backend.objects().len(), 4, "two copies of a slot, two of the configuration");
    let again = opened(&backend, Some("right")).unwrap();
    assert_eq!(again.repository.id(), repository.id());
    assert!(again.damaged_copies.is_empty());
    assert!(matches!(opened(&backend, Some("wrong")), Err(RepositoryError::WrongKey { slots: 1 })));
    assert!(matches!(opened(&backend, None), Err(RepositoryError::NeedsKey)));
    let exported = repository.export_master().unwrap();
    let master = Unlock::Master(parse_master(&exported.to_uppercase()).unwrap());
    let shared: Arc<dyn Backend> = Arc::new(backend.clone());
    assert!(open(shared, Arc::new(SystemEntropy), || Some(master)).is_ok());
    assert!(parse_master(&exported.replacen('0', "1", 1).replacen('f', "0", 1)).is_err());
}

#[test]
fn without_encryption_nobody_is_asked() {
    let backend = MemoryBackend::new();
    let repository = made(&backend, None, None);
    assert!(!repository.is_encrypted() && repository.export_master().is_none());
    let shared: Arc<dyn Backend> = Arc::new(backend.clone());
    let again = open(shared, Arc::new(SystemEntropy), || panic!("asked for a key")).unwrap();
    assert_eq!(again.repository.id(), repository.id());
}

#[test]
fn nothing_is_no_repository_and_bounds_are_held_at_init() {
    let empty = MemoryBackend::new();
    assert!(matches!(
        opened(&empty, None),
        Err(RepositoryError::Backend(BackendError::NoRepository(_)))
    ));
    for (compression, parity_percent, min) in
        [(0, 0, 16 << 10), (20, 0, 16 << 10), (3, 51, 16 << 10), (3, 0, 0)]
    {
        let sizes = ChunkSizes { min, ..ChunkSizes::DEFAULT };
        let wrong = InitOptions { compression, parity_percent, sizes, ..options(None, None) };
        let made = init(Arc::new(empty.clone()), Arc::new(SystemEntropy), &wrong);
        assert!(matches!(made, Err(RepositoryError::Parameter(_))));
    }
    assert!(empty.objects().is_empty());
}

#[test]
fn each_copy_alone_suffices() {
    let backend = MemoryBackend::new();
    let repository = made(&backend, Some(&password("right")), None);
    let slot = slot_ids(&repository)[0];
    for which in Copy2::BOTH {
        for name in [ObjectName::config(1, which), ObjectName::key(&slot, which)] {
            let whole = backend.raw_get(&name).unwrap();
            let torn = [&whole[..0], &whole[..70], &whole[..whole.len() - 1]];
            for bytes in torn {
                backend.raw_put(&name, bytes);
                let again = opened(&backend, Some("right")).unwrap();
                assert_eq!(again.damaged_copies, [name.to_string()]);
            }
            assert!(backend.raw_remove(&name));
            let again = opened(&backend, Some("right")).unwrap();
            assert_eq!(again.damaged_copies, [name.to_string()]);
            backend.raw_put(&name, &whole);
        }
    }
    for which in Copy2::BOTH {
        backend.raw_put(&ObjectName::config(1, which), b"torn");
    }
    assert!(matches!(opened(&backend, Some("right")), Err(RepositoryError::Damaged { .. })));
}

#[test]
fn related_repositories_share_ids_and_cuts_and_no_others() {
    let (first, second, third) = (MemoryBackend::new(), MemoryBackend::new(), MemoryBackend::new());
    let one = made(&first, Some(&password("one")), None);
    let related = made(&second, Some(&password("two")), Some(&one));
    let stranger = made(&third, None, None);
    assert_eq!(related.config().related_to.as_ref(), Some(one.id()));
    let mut noise = vec![0; 1 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    for kind in ChunkKind::ALL {
        assert_eq!(one.namer().name(kind, b"x"), related.namer().name(kind, b"x"));
        assert_ne!(one.namer().name(kind, b"x"), stranger.namer().name(kind, b"x"));
    }
    assert_eq!(one.cutter().cut(&noise), related.cutter().cut(&noise));
    let cuts = |r: &Repository| {
        let (mut rest, mut list) = (&noise[..], Vec::new());
        while !rest.is_empty() {
            list.push(r.cutter().cut(rest));
            rest = &rest[list[list.len() - 1]..];
        }
        list
    };
    assert_eq!(cuts(&one), cuts(&related));
    assert_ne!(cuts(&one), cuts(&stranger));
    let name = ObjectName::condemned(1);
    let bytes = one.seal_control(ObjectKind::Note, &note()).unwrap();
    let read = related.open_control::<NoteBody>(&name, ObjectKind::Note, &bytes);
    assert!(matches!(read, Err(RepositoryError::Damaged { .. })), "sealing is not shared");
}

#[test]
fn after_rotation_old_objects_are_read_and_new_ones_have_the_new_epoch() {
    let backend = MemoryBackend::new();
    let before = made(&backend, Some(&password("right")), None);
    let name = ObjectName::condemned(1);
    let old = before.seal_control(ObjectKind::Note, &note()).unwrap();
    assert_eq!(before.rotate().unwrap(), 2);
    assert!(matches!(before.rotate(), Err(RepositoryError::Backend(BackendError::Exists(_)))));
    let after = opened(&backend, Some("right")).unwrap().repository;
    assert_eq!((after.config().number, after.config().epoch), (2, 2));
    let new = after.seal_control(ObjectKind::Note, &note()).unwrap();
    assert_eq!(Header::decode(&new, ObjectKind::Note).unwrap().epoch, 2);
    for bytes in [&old, &new] {
        let read: NoteBody = after.open_control(&name, ObjectKind::Note, bytes).unwrap();
        assert_eq!(read, note());
    }
    let read = before.open_control::<NoteBody>(&name, ObjectKind::Note, &new);
    assert!(read.is_err(), "the old secret does not open what is new");
    assert_eq!(
        after.namer().name(ChunkKind::Data, b"x"),
        before.namer().name(ChunkKind::Data, b"x")
    );
}

#[test]
fn slots_are_added_told_apart_and_removed_but_the_last() {
    let backend = MemoryBackend::new();
    let repository = made(&backend, Some(&password("one")), None);
    let now = Timestamp { secs: 5, nanos: 0 };
    let second = repository.add_slot(&password("two"), "second", true, now).unwrap().id;
    for word in ["one", "two"] {
        assert_eq!(opened(&backend, Some(word)).unwrap().repository.id(), repository.id());
    }
    assert_eq!(repository.slot_of(&password("two")).unwrap(), second);
    let slots = repository.slots().unwrap();
    let facts = slots.iter().filter_map(|s| s.facts.as_ref());
    let mut known: Vec<_> = facts.map(|f| (f.label.as_str(), f.recovery)).collect();
    known.sort_unstable();
    assert_eq!(known, [("first", false), ("second", true)]);
    assert!(matches!(repository.remove_slot("zz"), Err(RepositoryError::NoSuchKey(_))));
    assert!(matches!(repository.remove_slot(""), Err(RepositoryError::NoSuchKey(_))));
    let removed = repository.remove_slot(&second.to_hex()).unwrap();
    assert_eq!(removed, second.to_hex());
    assert!(matches!(opened(&backend, Some("two")), Err(RepositoryError::WrongKey { .. })));
    let last = slot_ids(&repository)[0].to_hex();
    assert!(matches!(repository.remove_slot(&last), Err(RepositoryError::LastKey)));
}

#[test]
fn objects_do_not_pass_for_another_kind_or_after_a_change() {
    let backend = MemoryBackend::new();
    let repository = made(&backend, None, None);
    let name = ObjectName::condemned(1);
    let bytes = repository.seal_control(ObjectKind::Note, &note()).unwrap();
    for kind in ObjectKind::ALL.into_iter().filter(|k| *k != ObjectKind::Note) {
        assert!(repository.open_control::<NoteBody>(&name, kind, &bytes).is_err());
    }
    for at in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        let read = repository.open_control::<NoteBody>(&name, ObjectKind::Note, &wrong);
        assert!(read.is_err(), "byte {at}");
    }
}

#[test]
fn bodies_of_all_sizes_go_and_come() {
    for len in [0, 1, 1024, 1025, 1 << 20] {
        let plain = vec![b'x'; len];
        let packed = pack_body(&plain);
        assert!(packed.len() <= len + 1);
        assert_eq!(unpack_body(&packed), Ok(plain));
    }
    for wrong in [&[][..], &[2, 0], &[1, 1, 2, 3]] {
        assert!(unpack_body(wrong).is_err());
    }
    let mut bomb = pack_body(&vec![0; 1 << 20]);
    bomb.truncate(bomb.len() - 1);
    assert!(unpack_body(&bomb).is_err());
}

#[test]
fn a_slot_that_does_not_belong_here_is_no_way_back_in() {
    let (backend, other) = (MemoryBackend::new(), MemoryBackend::new());
    let repository = made(&backend, Some(&password("right")), None);
    let foreign = made(&other, Some(&password("another")), None);
    let planted = slot_ids(&foreign)[0];
    for copy in Copy2::BOTH {
        let bytes = foreign.backend().get(&ObjectName::key(&planted, copy), 1 << 20).unwrap();
        repository.backend().put_new(&ObjectName::key(&planted, copy), &[&bytes]).unwrap();
    }
    let own = slot_ids(&repository).into_iter().find(|id| *id != planted).unwrap();
    let removed = repository.remove_slot(&own.to_hex());
    assert!(matches!(removed, Err(RepositoryError::LastKey)));
    opened(&backend, Some("right")).unwrap();
}

#[test]
fn an_older_configuration_under_a_higher_number_counts_for_nothing() {
    let backend = MemoryBackend::new();
    let repository = made(&backend, Some(&password("right")), None);
    let number = repository.config().number;
    for copy in Copy2::BOTH {
        let bytes = repository.backend().get(&ObjectName::config(number, copy), 1 << 20).unwrap();
        let later = ObjectName::config(number + 7, copy);
        repository.backend().put_new(&later, &[&bytes]).unwrap();
    }
    let found = opened(&backend, Some("right"));
    assert!(found.is_err(), "what was changed since would be taken back in silence");
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let repository = made(&MemoryBackend::new(), None, None);
    let long = vec![ManifestId::from_array([1; 32]).to_hex(); 40_000];
    let sealed = repository.seal_control(ObjectKind::Note, &long);
    // The text compresses well: what counts is what lies in the repository.
    assert!(sealed.is_ok_and(|bytes| bytes.len() < 1 << 20));
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let hex = crate::format::control::HexBytes(noise);
    let sealed = repository.seal_control(ObjectKind::Note, &hex);
    assert!(matches!(sealed, Err(RepositoryError::TooLarge { .. })), "{sealed:?}");
}
