//! Control objects, and the JSON bodies of all of them.
#![no_main]

use cabk::format::control::{
    CondemnedBody, ConfigBody, Control, LeaseBody, LeaseEndBody, NoteBody, SlotBody, from_body,
};
use cabk::format::header::ObjectKind;
use cabk::format::manifest::ManifestBody;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for kind in ObjectKind::ALL {
        if let Ok(control) = Control::decode(bytes, kind) {
            assert_eq!(Control::decode(&control.encode(), kind), Ok(control));
        }
    }
    let _ = from_body::<ConfigBody>(bytes, "configuration");
    let _ = from_body::<SlotBody>(bytes, "key slot");
    let _ = from_body::<LeaseBody>(bytes, "lease");
    let _ = from_body::<LeaseEndBody>(bytes, "lease end");
    let _ = from_body::<CondemnedBody>(bytes, "generation");
    let _ = from_body::<NoteBody>(bytes, "note");
    let _ = from_body::<ManifestBody>(bytes, "manifest");
});
