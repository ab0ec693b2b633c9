//! No input makes the frame codec panic, and what it reads it writes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use malai_model::wire::frame::{self, Head, MAX_HEAD};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    loop {
        match frame::decode(rest) {
            Ok(Some((head, taken))) => {
                let mut bytes = Vec::new();
                frame::encode(&head, &mut bytes);
                if let Head::Ignored { .. } = head {
                    assert_eq!(bytes.get(1..4), rest.get(1..4));
                } else {
                    assert_eq!(Some(bytes.as_slice()), rest.get(..taken));
                }
                let body = match head {
                    Head::Data { length, .. } | Head::Ignored { length } => length,
                    _ => 0,
                };
                let Some(next) = rest.get(taken + body..) else { return };
                rest = next;
            }
            Ok(None) => {
                assert!(rest.len() < MAX_HEAD);
                return;
            }
            Err(_) => return,
        }
    }
});
