use proptest::prelude::*;

use super::super::header::Suite;
use super::*;

fn control(kind: ObjectKind) -> Control {
    let header = Header {
        kind,
        suite: Suite::Aes256Gcm,
        epoch: 0,
        needs_read: 0,
        needs_delete: 0,
        salt: [1; 32],
    };
    let derivation = Derivation { memory_kib: 65_536, passes: 3, lanes: 1 };
    let facts = b"facts".to_vec();
    let slot = SlotClear { derivation, commitment: [2; 32], facts };
    let slot = (kind == ObjectKind::KeySlot).then_some(slot);
    Control { header, repo: RepoId::from_array([5; 16]), slot, sealed: b"sealed body".to_vec() }
}

#[test]
fn control_objects_round_trip() {
    for kind in [ObjectKind::KeySlot, ObjectKind::Config, ObjectKind::Lease] {
        let object = control(kind);
        assert_eq!(Control::decode(&object.encode(), kind), Ok(object));
    }
}

#[test]
fn damage_is_told_before_a_key_is_tried() {
    let bytes = control(ObjectKind::KeySlot).encode();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(Control::decode(&damaged, ObjectKind::KeySlot).is_err(), "byte {at}");
        assert!(Control::decode(&bytes[..at], ObjectKind::KeySlot).is_err(), "cut at {at}");
    }
}

#[test]
fn a_key_derivation_above_its_bounds_is_refused() {
    let mut object = control(ObjectKind::KeySlot);
    object.slot.as_mut().unwrap().derivation.memory_kib = 1 << 30;
    assert!(matches!(
        Control::decode(&object.encode(), ObjectKind::KeySlot),
        Err(DecodeError::Bound { .. })
    ));
    object.slot.as_mut().unwrap().derivation = Derivation { memory_kib: 8, passes: 0, lanes: 1 };
    assert!(Control::decode(&object.encode(), ObjectKind::KeySlot).is_err());
}

#[test]
fn facts_above_their_bound_are_refused() {
    let mut object = control(ObjectKind::KeySlot);
    object.slot.as_mut().unwrap().facts = vec![0; limits::SLOT_FACTS_MAX as usize + 1];
    assert!(matches!(
        Control::decode(&object.encode(), ObjectKind::KeySlot),
        Err(DecodeError::Bound { .. })
    ));
}

#[test]
fn bodies_round_trip_and_ignore_fields_of_later_versions() {
    let note = NoteBody {
        about: ManifestId::from_array([7; 32]),
        time: Timestamp { secs: 5, nanos: 0 },
        fact: Fact::Forgotten { site: "s".into(), sequence: 3 },
    };
    let body = to_body(&note).unwrap();
    assert_eq!(from_body::<NoteBody>(&body, "note"), Ok(note.clone()));
    let text = String::from_utf8(body).unwrap().replacen('{', "{\"later\":1,", 1);
    assert_eq!(from_body::<NoteBody>(text.as_bytes(), "note"), Ok(note));
    assert!(from_body::<NoteBody>(b"{}", "note").is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        let _ = Control::decode(&bytes, ObjectKind::KeySlot);
        let _ = from_body::<LeaseBody>(&bytes, "lease");
    }
}
