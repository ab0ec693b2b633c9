//! Screens, and what is drawn of them on another.

mod bounds;
mod programs;
mod properties;
mod redraw;
mod sizes;

use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::Cell;

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
