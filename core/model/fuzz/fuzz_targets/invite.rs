//! No text makes the invite reader panic, and what it reads it writes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use malai_model::cluster::Invite;

fuzz_target!(|text: &str| {
    if let Ok(invite) = text.parse::<Invite>() {
        // Hints of later kinds are dropped by reading, so it is the second writing that has to be stable.
        let word = invite.to_word();
        assert_eq!(word.parse::<Invite>().as_ref(), Ok(&invite));
        assert!(invite.hints().len() <= Invite::MAX_HINTS);
    }
});
