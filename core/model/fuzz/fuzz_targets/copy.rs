//! No input makes the copy codec panic, every name that it lets through is one component, and what it reads it writes
//! back so that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use malai_model::wire::copy::{self, Frame, HEADER};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Some((head, after)) = rest.split_first_chunk::<HEADER>() {
        let Ok((kind, length)) = copy::decode_head(*head) else { return };
        let Some((payload, next)) = after.split_at_checked(length) else { return };
        rest = next;
        let Ok(frame) = copy::decode_payload(kind, payload) else { return };
        match frame {
            Frame::Ignored => continue,
            Frame::File { name, .. } | Frame::Link { name, .. } | Frame::Passed { name } => {
                assert!(copy::is_component(name));
            }
            _ => {}
        }
        let mut bytes = Vec::new();
        copy::encode(&frame, &mut bytes);
        let again = copy::decode_head([bytes[0], bytes[1], bytes[2], bytes[3]]).expect("its own head");
        assert_eq!(copy::decode_payload(again.0, &bytes[HEADER..]).as_ref(), Ok(&frame));
    }
});
