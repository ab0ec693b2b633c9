//! Memory and time stay bounded, whatever is written.

use super::*;

#[test]
fn a_terminal_s_questions_are_answered_once() {
    let mut screen = screen_of(20, 5, b"ab\x1b[6n\x1b[c\x1b[?u");
    assert_eq!(screen.take_replies(), b"\x1b[1;3R\x1b[?6c\x1b[?0u");
    assert!(screen.take_replies().is_empty());
    screen.feed(&b"\x1b[6n".repeat(100_000));
    assert!(screen.take_replies().len() <= MAX_REPLIES);
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
    for (columns, most) in [(20, 2_000), (40, 2_000), (80, 1_000), (500, 160), (501, 0), (1_000, 0)] {
        let mut screen = screen_of(columns, 5, lines.as_bytes());
        assert_eq!(screen.term.grid().history_size(), most, "{columns} columns");
        let oldest = format!("line {} ", 5_000 - 4 - most);
        assert!(text_of(&screen, -(most as i32)).starts_with(&oldest), "{columns}: {oldest}");
        let drawn = screen.redraw(History::With);
        assert!(drawn.len() < 100 * (most + 5) + 50_000, "{columns} columns: {} bytes", drawn.len());
        // Whatever its size becomes, and also where a screen of another size was kept before.
        for (columns, most) in [(1_000, 0), (500, 160), (80, 1_000), (20, 2_000)] {
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
    let mut screen = screen_of(1_000, 5, b"\x1b[3g\x1b[9999G");
    let begun = std::time::Instant::now();
    screen.feed(&b"\x1b[65535Z\x1b[65535I".repeat(1_000));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_repetition_that_no_line_can_take_is_none() {
    let mut screen = screen_of(1_000, 5, b"\x1b[4hx\x1b[999b");
    assert_eq!(text_of(&screen, 0), "x".repeat(1_000));
    let begun = std::time::Instant::now();
    screen.feed(&b"\x1b[2J\x1b[Hx\x1b[65535b".repeat(1_000));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    assert_eq!(text_of(&screen, 0).trim_end(), "x");
}

#[test]
fn a_region_below_the_screen_does_no_harm() {
    let mut screen = screen_of(20, 5, b"\x1b[7;9r\x1b[6;9r\nx\n\x1b[5;9ry\n\n\x1bM\x1b[L\x1b[M");
    screen.redraw(History::With);
    assert_eq!(screen.tracked.region, (4, 5));
}
