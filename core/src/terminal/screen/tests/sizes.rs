//! Changes of size.

use super::*;

#[test]
fn sizes_are_cut_to_what_a_session_bears() {
    for (columns, rows) in [(0, 0), (65_535, 1), (1, 65_535), (65_535, 65_535)] {
        let mut screen = Screen::new(window(columns, rows));
        screen.feed("x日\r\n\x1b[2J\x1b[999;999Hy\x1b[?1049h\x1b[5b".as_bytes());
        let now = screen.window();
        assert!((1..=1_000).contains(&now.columns) && (1..=10_000).contains(&now.rows), "{now:?}");
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
    let mut screen = Screen::new(window(1_000, 256));
    let began = std::time::Instant::now();
    for _ in 0..4 {
        screen.feed("x日".repeat(90_000).as_bytes());
        for (columns, rows) in [(2, 256), (1_000, 256), (25, 10_000), (1_000, 1), (2, 10_000), (1_000, 256)] {
            screen.resize(window(columns, rows));
        }
    }
    // As the emulator would do it by itself it takes ten times as long, and gigabytes.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_wide_screen_that_is_narrowed_in_steps_keeps_its_text() {
    let digits = "0123456789".repeat(90);
    let mut screen = screen_of(1_000, 40, format!("first\r\n{digits}\r\nafter").as_bytes());
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
