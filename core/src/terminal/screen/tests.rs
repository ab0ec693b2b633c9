use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::Cell;
use proptest::prelude::*;

use super::*;

fn window(columns: u16, rows: u16) -> WindowSize {
    WindowSize { columns, rows, ..WindowSize::default() }
}

fn screen_of(columns: u16, rows: u16, bytes: &[u8]) -> Screen {
    let mut screen = Screen::new(window(columns, rows));
    screen.feed(bytes);
    screen
}

/// A line as it would be read aloud, for what a failed test prints.
fn text_of(screen: &Screen, line: i32) -> String {
    let row = &screen.term.grid()[Line(line)];
    (0..screen.term.columns()).map(|column| row[Column(column)].c).collect()
}

/// Compares what is shown and how it would go on; of the history the newest lines, as many as said.
fn difference(one: &Screen, two: &Screen, history: usize) -> Option<String> {
    let (a, b) = (one.term.grid(), two.term.grid());
    if one.term.mode() != two.term.mode() {
        return Some(format!("modes {:?} {:?}", one.term.mode(), two.term.mode()));
    }
    let history = history as i32;
    for line in -history..a.screen_lines() as i32 {
        for column in 0..a.columns() {
            let (x, y): (&Cell, &Cell) = (&a[Line(line)][Column(column)], &b[Line(line)][Column(column)]);
            if x != y {
                return Some(format!(
                    "cell {line}:{column}\n{x:?}\n{y:?}\n{:?}\n{:?}",
                    text_of(one, line),
                    text_of(two, line)
                ));
            }
        }
    }
    if a.cursor != b.cursor {
        return Some(format!("cursor\n{:?}\n{:?}", a.cursor, b.cursor));
    }
    if a.saved_cursor != b.saved_cursor {
        return Some(format!("saved cursor\n{:?}\n{:?}", a.saved_cursor, b.saved_cursor));
    }
    let (x, y) = (&one.tracked, &two.tracked);
    let same = x.region == y.region
        && x.tabs == y.tabs
        && x.charset == y.charset
        && x.style == y.style
        && x.keyboard == y.keyboard
        && x.other_modes == y.other_modes
        && x.other_keys == y.other_keys;
    if !same {
        return Some(format!("tracked\n{x:?}\n{y:?}"));
    }
    (0..259)
        .find(|index| one.term.colors()[*index] != two.term.colors()[*index])
        .map(|i| format!("color {i}"))
}

/// Draws `screen` on a terminal that has shown `before`, and compares; then lets both go on with `after`.
fn check_redraw(screen: &mut Screen, history: History, before: &[u8], after: &[u8]) -> Result<(), String> {
    let window = screen.window();
    let mut other = screen_of(window.columns, window.rows, before);
    let drawn = screen.redraw(history);
    other.feed(&drawn);
    let lines = if history == History::With { screen.term.grid().history_size() } else { 0 };
    if other.term.grid().history_size() < lines {
        return Err("the history is not drawn".to_owned());
    }
    if screen.tracked.title.is_some() && screen.tracked.title != other.tracked.title {
        return Err(format!("titles {:?} {:?}", screen.tracked.title, other.tracked.title));
    }
    if let Some(difference) = difference(screen, &other, lines) {
        return Err(format!("drawn {:?}\n{difference}", String::from_utf8_lossy(&drawn)));
    }
    screen.feed(after);
    other.feed(after);
    super::canon::clean(screen.term.grid_mut());
    super::canon::clean(other.term.grid_mut());
    if let Some(difference) = difference(screen, &other, 0) {
        return Err(format!("after {:?}\ndrawn {:?}\n{difference}", after, String::from_utf8_lossy(&drawn)));
    }
    Ok(())
}

fn assert_redraw(bytes: &str) {
    let mut screen = screen_of(20, 6, bytes.as_bytes());
    if let Err(problem) = check_redraw(&mut screen, History::With, b"", b"more\r\n\x1b8x\x1b[?1049ly") {
        panic!("{bytes:?}: {problem}");
    }
}

#[test]
fn a_drawn_screen_is_the_same_and_goes_on_the_same() {
    for bytes in [
        "",
        "hello",
        "hello\r\nworld\r\n\x1b[31;1mred\x1b[0m plain",
        "a line that is longer than the screen is wide and goes on\r\nnext",
        "exactly twenty chars",
        "1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n9",
        "\x1b[44mblue that wraps around the end of this narrow line\x1b[0m\r\nx\r\ny\r\nz\r\nzz\r\nzzz",
        "日本語の長い文字列はここで折り返す\r\n日本",
        "x日本語の長い文字列はここで折り返す",
        "e\u{301}a\u{308}\u{304} \u{1f600}",
        "\x1b[38;5;200m\x1b[48;2;1;2;3mcolours\x1b[58:5:7m\x1b[4:3mcurl\x1b[4:5mdash\x1b[9;7;8;2;3mall",
        "\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\ \x1b]8;id=x;https://example.org\x1b\\another",
        "\x1b]2;a title\x07\x1b[22;2t\x1b]2;another\x07",
        "\x1b[2;5r\x1b[3;1Hin the region\n\n\n\nscrolled",
        "\x1b[2;5r\x1b[?6h\x1b[2;3Horigin",
        "\x1b[?1h\x1b=\x1b[?2004h\x1b[?1002h\x1b[?1006h\x1b[?1004h\x1b[?25l\x1b[5 q\x1b[?7l\x1b[4h\x1b[20h",
        "\x1b(0lqqk\x1b(B\x1b)0\x0ex\x1b7",
        "\x1b[3g\x1b[5G\x1bH\x1b[12G\x1bH\rtabs\t.",
        "\x1b[3;4H\x1b[35m\x1b7\x1b[0m\x1b[1;1Helsewhere",
        "\x1b[5;16Hlast!\x1b7\x1b[H",
        "shell\r\n$ vim\r\n\x1b[?1049h\x1b[2J\x1b[H\x1b[7m~ full screen\x1b[0m\x1b[6;1H\x1b[1mstatus\x1b[3;7H",
        "shell\x1b[33m\x1b[?1049h\x1b[1;20Hx\x1b[>1u\x1b[>5u",
        "\x1b[>3u\x1b[=5;2u\x1b[>4;2m\x1b[?1016h",
        "\x1b]4;1;rgb:12/34/56\x07\x1b]11;#112233\x07",
        "half a sequence \x1b[3",
        "half a title \x1b]2;abc",
        "half a character \u{20ac}\x1b[",
    ] {
        assert_redraw(bytes);
    }
}

/// A program says a character and then how often it is repeated; who begins to look in between sees the same.
#[test]
fn what_a_character_is_repeated_by_may_come_after_the_redraw() {
    for (bytes, after) in [
        ("abc", "\x1b[3bx"),
        ("a\x1b[", "2bx"),
        ("\x1b[4;1;31mr\x1b[3b", "\x1b[2bx"),
        ("\x1b(0q\x1b[2", "b"),
        ("日", "\x1b[2bx"),
        ("aaaaaaaaaa", "\x1b[2bx"),
        ("abcdef\x1b[1;3H\x1b[4hx", "\x1b[2b"),
        ("\x1b[2;5r\x1b[?6hx", "\x1b[2b"),
        // Nothing to repeat.
        ("", "\x1b[3bx"),
        ("a\x1b[2;2H", "\x1b[3bx"),
        ("a\x1b[", "\x08bx"),
    ] {
        let mut screen = screen_of(10, 6, bytes.as_bytes());
        let found = check_redraw(&mut screen, History::With, b"before", after.as_bytes());
        assert_eq!(found, Ok(()), "{bytes:?} then {after:?}");
        if bytes == "abc" {
            assert_eq!(text_of(&screen, 0), "abccccx   ");
        }
    }
}

#[test]
fn half_a_character_is_repeated() {
    let euro = "€".as_bytes();
    for split in 1..euro.len() {
        let mut screen = screen_of(20, 4, &euro[..split]);
        let mut other = Screen::new(window(20, 4));
        other.feed(&screen.redraw(History::With));
        other.feed(&euro[split..]);
        assert!(text_of(&other, 0).starts_with('€'), "{split}");
    }
}

#[test]
fn what_was_on_a_terminal_before_does_not_show_through() {
    let before = "\x1b[?1049h\x1b[41m\x1b[2J\x1b(0\x1b[3;4r\x1b[?6h\x1b[4h\x1b[?7l\x1b[>5u\x1b]4;3;#010203\x07\
        \x1b]8;;https://example.com\x07\x1b[?1003h\x1b[20h\x1b[3g\x1b]2;old\x07\x1b[?1015h unfinished \x1b]2;oh";
    for bytes in ["", "hello\r\nyou", "\x1b[?1049h\x1b[Hfull\x1b[32m"] {
        let mut screen = screen_of(20, 6, bytes.as_bytes());
        check_redraw(&mut screen, History::Without, before.as_bytes(), b"and on").expect("is the same");
    }
}

#[test]
fn the_history_comes_first_so_that_the_client_can_scroll_back() {
    let lines: String = (0..50).map(|line| format!("line {line}\r\n")).collect();
    let mut screen = screen_of(20, 5, lines.as_bytes());
    let mut with = Screen::new(window(20, 5));
    with.feed(&screen.redraw(History::With));
    assert!(text_of(&with, -40).starts_with("line 6 "), "{:?}", text_of(&with, -40));
    let mut without = Screen::new(window(20, 5));
    without.feed(&screen.redraw(History::Without));
    assert_eq!(without.term.grid().history_size(), 0);
    assert!(text_of(&without, 0).starts_with("line 46"));
}

#[test]
fn quitting_a_full_screen_program_shows_what_was_there_before() {
    let mut screen = screen_of(30, 5, b"$ ls\r\nfile\r\n$ vim file\r\n\x1b[?1049h\x1b[H\x1b[2Jtext in vim");
    let mut other = Screen::new(window(30, 5));
    other.feed(&screen.redraw(History::With));
    assert!(other.term.mode().contains(TermMode::ALT_SCREEN));
    assert!(text_of(&other, 0).starts_with("text in vim"));
    other.feed(b"\x1b[?1049l$ ");
    assert!(text_of(&other, 1).starts_with("file"));
    assert!(text_of(&other, 3).starts_with("$ "));
}

#[test]
fn a_terminal_s_questions_are_answered_once() {
    let mut screen = screen_of(20, 5, b"ab\x1b[6n\x1b[c\x1b[?u");
    assert_eq!(screen.take_replies(), b"\x1b[1;3R\x1b[?6c\x1b[?0u");
    assert!(screen.take_replies().is_empty());
    screen.feed(&b"\x1b[6n".repeat(100_000));
    assert!(screen.take_replies().len() <= MAX_REPLIES);
}

#[test]
fn sizes_are_cut_to_what_a_session_bears() {
    for (columns, rows) in [(0, 0), (65_535, 1), (1, 65_535), (65_535, 65_535)] {
        let mut screen = Screen::new(window(columns, rows));
        screen.feed("x日\r\n\x1b[2J\x1b[999;999Hy\x1b[?1049h\x1b[5b".as_bytes());
        let now = screen.window();
        assert!((1..=10_000).contains(&now.columns) && (1..=10_000).contains(&now.rows), "{now:?}");
        assert!(usize::from(now.columns) * usize::from(now.rows) <= MAX_CELLS);
        for next in [window(rows, columns), window(3, 2), window(columns, rows)] {
            screen.resize(next);
            screen.feed("日本語\x1b[?1049l".as_bytes());
            screen.redraw(History::With);
        }
    }
}

/// Whoever is attached says the size, as often as they like.
#[test]
fn no_change_of_size_takes_long() {
    let mut screen = Screen::new(window(10_000, 25));
    screen.feed("x日".repeat(100_000).as_bytes());
    let began = std::time::Instant::now();
    for (columns, rows) in [(2, 10_000), (10_000, 25), (2, 1), (10_000, 25), (1_001, 200), (3, 10_000)] {
        screen.resize(window(columns, rows));
    }
    // A tenth of a second; as the emulator would do it by itself, minutes.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_wide_screen_that_is_narrowed_in_steps_keeps_its_text() {
    let digits = "0123456789".repeat(100);
    let mut screen = screen_of(2_400, 40, format!("first\r\n{digits}\r\nafter").as_bytes());
    screen.resize(window(100, 60));
    let top = screen.term.grid().topmost_line().0;
    let lines: Vec<String> = (top..60).map(|line| text_of(&screen, line).trim_end().to_owned()).collect();
    let mut wanted = vec!["first".to_owned()];
    wanted.extend(digits.as_bytes().chunks(100).map(|piece| String::from_utf8_lossy(piece).into_owned()));
    wanted.push("after".to_owned());
    assert_eq!(
        lines.iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        wanted.iter().collect::<Vec<_>>()
    );
    assert_eq!(screen.term.grid().cursor.point.column.0, 5);
}

#[test]
fn endless_sequences_take_no_memory_and_end() {
    for begin in ["\x1b]2;", "\x1b]8;;", "\x1bP", "\x1b_", "\x1b^", "\x1bX", "\x1b[", "\x1b]52;c;"] {
        let mut screen = screen_of(20, 5, begin.as_bytes());
        for _ in 0..100 {
            screen.feed(&[b'1'; 64 * 1024]);
            assert!(screen.tail.bytes().len() <= 9 * 1024);
        }
        let drawn = screen.redraw(History::With);
        assert!(drawn.len() < 32 * 1024, "{begin:?}: {}", drawn.len());
        screen.feed(b"\x1b\\\x1b[m\r\x1b[Kseen");
        assert!(text_of(&screen, 0).starts_with("seen"), "{begin:?}: {:?}", text_of(&screen, 0));
    }
}

#[test]
fn titles_links_and_marks_are_bounded() {
    let mut screen = Screen::new(window(80, 24));
    screen.feed(format!("\x1b]2;{}\x07", "t".repeat(5_000)).as_bytes());
    assert_eq!(screen.title().len(), 1024);
    for _ in 0..10_000 {
        screen.feed(b"\x1b[22;2t\x1b[>1u");
    }
    assert_eq!((screen.tracked.titles.len(), screen.tracked.keyboard[0].stack.len()), (16, 16));
    screen.feed(format!("a{}", "\u{301}".repeat(100_000)).as_bytes());
    let marks = screen.term.grid()[Line(0)][Column(0)].zerowidth().map(<[char]>::len);
    assert_eq!(marks, Some(8));
    for number in 0..50_000 {
        screen.feed(format!("\x1b]8;;https://example.com/{number}/{}\x1b\\x", "l".repeat(900)).as_bytes());
    }
    let drawn = screen.redraw(History::With);
    assert!(drawn.len() < 1024 * 1024, "{}", drawn.len());
}

#[test]
fn what_has_left_the_screen_is_bounded_in_lines_and_in_cells() {
    let lines: String = (0..5_000).map(|line| format!("\x1b[3{}mline {line}\r\n", line % 8)).collect();
    for (columns, most) in [(20, 2_000), (40, 2_000), (80, 1_000), (10_000, 8)] {
        let mut screen = screen_of(columns, 5, lines.as_bytes());
        assert_eq!(screen.term.grid().history_size(), most, "{columns} columns");
        let oldest = format!("line {} ", 5_000 - 4 - most);
        assert!(text_of(&screen, -(most as i32)).starts_with(&oldest), "{columns}: {oldest}");
        let drawn = screen.redraw(History::With);
        assert!(drawn.len() < 100 * (most + 5) + 50_000, "{columns} columns: {} bytes", drawn.len());
        // Whatever its size becomes, and also where a screen of another size was kept before.
        for (columns, most) in [(10_000, 8), (80, 1_000), (20, 2_000)] {
            screen.resize(window(columns, 5));
            assert!(screen.term.grid().history_size() <= most, "{columns} columns");
            screen.feed(lines.as_bytes());
            assert_eq!(screen.term.grid().history_size(), most, "{columns} columns");
        }
        // Nothing leaves a full-screen program's screen.
        screen.feed(b"\x1b[?1049h");
        screen.feed(lines.as_bytes());
        assert_eq!(screen.term.grid().history_size(), 0);
    }
}

#[test]
fn tabs_without_stops_cost_no_time() {
    let mut screen = screen_of(10_000, 5, b"\x1b[3g\x1b[9999G");
    let begun = std::time::Instant::now();
    screen.feed(&b"\x1b[65535Z\x1b[65535I".repeat(1_000));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_region_below_the_screen_does_no_harm() {
    let mut screen = screen_of(20, 5, b"\x1b[7;9r\x1b[6;9r\nx\n\x1b[5;9ry\n\n\x1bM\x1b[L\x1b[M");
    screen.redraw(History::With);
    assert_eq!(screen.tracked.region, (4, 5));
}

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

/// What a real program writes to a terminal while it is typed at.
#[expect(clippy::print_stdout, reason = "says what was not tested")]
async fn record(argv: &[&str], typed: &[&str]) -> Option<Vec<u8>> {
    use crate::host::{Executable, LocalUser, Login, PtyProcess, SpawnRequest};
    let user = LocalUser::current().expect("a user");
    let found = user.path.split(':').any(|dir| std::path::Path::new(dir).join(argv[0]).exists());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{} is missing: .ci/run installs it", argv[0]);
        println!("not run: no {}", argv[0]);
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let text: String = (0..200).map(|line| format!("line {line} with\ttabs and 日本語\n")).collect();
    std::fs::write(dir.path().join("text"), text).expect("is written");
    let request = SpawnRequest {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: [
            ("PATH", user.path.as_str()),
            ("TERM", "xterm-256color"),
            ("LANG", "C.UTF-8"),
            ("HOME", "/nonexistent"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        dir: dir.path().to_owned(),
        user: user.clone(),
        program: Executable::Named,
    };
    let process = PtyProcess::spawn(&request, window(80, 24), Login::Program).expect("starts");
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    for typed in std::iter::once(&"").chain(typed) {
        process.master.write(typed.as_bytes()).await.ok();
        // Until it says nothing for a moment.
        let quiet = std::time::Duration::from_millis(400);
        while let Ok(Ok(count)) = tokio::time::timeout(quiet, process.master.read(&mut block)).await {
            bytes.extend_from_slice(&block[..count]);
            if count == 0 || bytes.len() > 1_000_000 {
                break;
            }
        }
    }
    process.hang_up(std::time::Duration::from_millis(200)).await.ok();
    assert!(bytes.len() > 200, "{argv:?} said nothing: {:?}", String::from_utf8_lossy(&bytes));
    Some(bytes)
}

#[tokio::test]
async fn real_programs_are_drawn_exactly_at_any_moment() {
    let programs: [(&[&str], &[&str]); 4] = [
        (
            &["vim", "-u", "NONE", "-N", "text"],
            &["ihello\x1b", ":set number\r", ":split\r", "\x06", ":syntax on\r"],
        ),
        (&["less", "text"], &[" ", "/line 7\r", "b", "G"]),
        (&["top", "-d", "1"], &["1", "h", "\x1b"]),
        (
            &["tmux", "-L", "malai-test", "-f", "/dev/null", "new-session", "sh"],
            &["seq 40\r", "\x02%", "ls\r", "exit\r", "exit\r"],
        ),
    ];
    for (argv, typed) in programs {
        let Some(bytes) = record(argv, typed).await else { continue };
        let step = (bytes.len() / 40).max(1);
        for cut in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
            let mut screen = screen_of(80, 24, &bytes[..cut]);
            let rest = &bytes[cut..bytes.len().min(cut + 2 * step)];
            if let Err(problem) = check_redraw(&mut screen, History::With, b"local$ ", rest) {
                panic!("{argv:?} at {cut}: {problem}");
            }
        }
    }
}
