//! Whatever is written.

use proptest::prelude::*;

use super::*;

/// Something that a program may write.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![Just(0_u16), 1..8_u16, 1..30_u16];
    let text = prop_oneof![
        "[ -~]{1,12}".prop_map(String::from),
        "[日本語한글😀aé]{1,6}".prop_map(String::from),
        Just("a\u{301}e\u{308}".to_owned()),
        Just("\r\n".to_owned()),
        Just("\n".to_owned()),
        Just("\r".to_owned()),
        Just("\t".to_owned()),
        Just("\u{8}".to_owned()),
    ];
    let sequence = prop_oneof![
        (number(), number()).prop_map(|(a, b)| format!("\x1b[{a};{b}H")),
        (number(), "[ABCDEFGLMPSTXZId@`]").prop_map(|(n, letter)| format!("\x1b[{n}{letter}")),
        (0..4_u8, "[JK]").prop_map(|(n, letter)| format!("\x1b[{n}{letter}")),
        (number(), number()).prop_map(|(a, b)| format!("\x1b[{a};{b}r")),
        prop::collection::vec(prop_oneof![0..10_u8, 21..30_u8, 30..50_u8, 90..108_u8], 0..4).prop_map(
            |codes| {
                let codes: Vec<String> = codes.iter().map(u8::to_string).collect();
                format!("\x1b[{}m", codes.join(";"))
            }
        ),
        any::<u8>().prop_map(|n| format!("\x1b[38;5;{n}m\x1b[48;5;{n}m")),
        (0..6_u8).prop_map(|n| format!("\x1b[4:{n}m")),
        Just("\x1b[58:2::1:2:3m".to_owned()),
        Just("\x1b]8;id=a;https://example.com\x1b\\".to_owned()),
        Just("\x1b]8;;\x1b\\".to_owned()),
        (
            prop::sample::select(vec![
                1_u16, 3, 6, 7, 12, 25, 47, 1000, 1002, 1003, 1004, 1006, 1047, 1048, 1049, 2004
            ]),
            "[hl]"
        )
            .prop_map(|(mode, letter)| format!("\x1b[?{mode}{letter}")),
        (prop::sample::select(vec![4_u8, 20]), "[hl]")
            .prop_map(|(mode, letter)| format!("\x1b[{mode}{letter}")),
        prop::sample::select(vec![
            "\x1b7",
            "\x1b8",
            "\x1bD",
            "\x1bE",
            "\x1bM",
            "\x1bH",
            "\x1b[g",
            "\x1b[3g",
            "\x1b=",
            "\x1b>",
            "\x1b(0",
            "\x1b(B",
            "\x1b)0",
            "\x0e",
            "\x0f",
            "\x1b#8",
            "\x1bc",
            "\x1b[s",
            "\x1b[u",
            "\x1b[>1u",
            "\x1b[<u",
            "\x1b[=3;2u",
            "\x1b[3 q",
            "\x1b[b",
            "\x1b[3b",
            "\x1b[22;2t",
            "\x1b[23;2t",
            "\x1b]2;title\x07",
            "\x1b]4;5;#aabbcc\x07",
            "\x1b]104\x07",
            "\x1b]12;#123456\x07",
            "\x1b[",
            "\x1b",
            "\x1b]0;half",
        ])
        .prop_map(str::to_owned),
    ];
    let piece = prop_oneof![3 => text, 4 => sequence];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_written_the_drawn_screen_is_the_same(
        before in pieces(), bytes in pieces(), after in pieces(),
        columns in 5..24_u16, rows in 1..8_u16, with in any::<bool>(),
    ) {
        let mut screen = screen_of(columns, rows, &bytes);
        let history = if with { History::With } else { History::Without };
        // What keys are on a screen that is not shown cannot be changed.
        let before = String::from_utf8_lossy(&before).replace("\x1b[>1u", "").replace("\x1b[=3;2u", "");
        let problem = check_redraw(&mut screen, history, before.as_bytes(), &after);
        prop_assert!(problem.is_ok(), "{}", problem.err().unwrap_or_default());
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut(bytes in pieces(), cuts in prop::collection::vec(1..9_usize, 1..40)) {
        let whole = screen_of(20, 6, &bytes);
        let mut cut = Screen::new(window(20, 6));
        let mut rest = &bytes[..];
        for length in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at((*length).min(rest.len()));
            cut.feed(piece);
            rest = left;
        }
        let lines = whole.term.grid().history_size();
        prop_assert_eq!(difference(&whole, &cut, lines), None);
        prop_assert_eq!(&whole.tracked.title, &cut.tracked.title);
        prop_assert_eq!(whole.tail.bytes(), cut.tail.bytes());
    }

    #[test]
    fn no_bytes_and_no_sizes_fail(
        bytes in prop::collection::vec(any::<u8>(), 0..400), text in pieces(),
        sizes in prop::collection::vec((0..40_u16, 0..12_u16), 1..5),
    ) {
        let mut screen = Screen::new(window(10, 4));
        for (columns, rows) in sizes {
            // Not guarded: a failure is to be seen here.
            screen.feed(&bytes);
            screen.feed(&text);
            screen.resize(window(columns, rows));
            screen.redraw(History::With);
        }
    }
}
