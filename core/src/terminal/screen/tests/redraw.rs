//! What is drawn: the same screen, which goes on the same.

use alacritty_terminal::term::TermMode;

use super::*;

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
