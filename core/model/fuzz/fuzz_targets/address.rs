//! The words of a command line: what resolves prints as something that resolves to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use malai_model::address::{KnownCluster, resolve, resolve_machine, resolve_service};
use malai_model::alias::Aliases;
use malai_model::duration::{format_duration, parse_duration};
use malai_model::id::SecretKey;

fuzz_target!(|text: &str| {
    let clusters = [
        KnownCluster {
            alias: "company".parse().expect("a name"),
            domain: Some("example.com".to_owned()),
            ids: vec![SecretKey::from_bytes(&[1; 32]).id52()],
        },
        KnownCluster { alias: "com".parse().expect("a name"), domain: None, ids: Vec::new() },
    ];
    let aliases = Aliases::new([("web".parse().expect("a name"), vec!["web01.company".to_owned()])]);
    let words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Ok((target, _)) = resolve(&words, &aliases, &clusters) {
        assert_eq!(resolve_machine(&target.to_string(), &clusters), Ok(target));
    }
    if let Ok(service) = resolve_service(text, &clusters) {
        assert_eq!(resolve_service(&service.to_string(), &clusters), Ok(service));
    }
    if let Ok(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }
});
