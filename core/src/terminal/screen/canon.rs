//! Brings a grid into the form that text on a terminal can bring about.
//!
//! The emulator leaves traces that nobody sees and no text makes: half a wide character whose other half was overwritten,
//! marks of wrapped lines where none wraps any more. A client that is shown the screen has none of them, and would go
//! another way from there. So they are removed here, too, when the screen is drawn.

use alacritty_terminal::grid::{Dimensions, Grid};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::{Cell, Flags};

/// Cleans a grid.
pub(super) fn clean(grid: &mut Grid<Cell>) {
    let (top, rows, last) = (grid.topmost_line().0, grid.screen_lines() as i32, grid.columns() - 1);
    for line in (top..rows).map(Line) {
        clean_wide(grid, line, last);
    }
    for line in (top..rows).map(Line) {
        clean_wraps(grid, line, last, rows);
    }
    for saved in [false, true] {
        let cursor = if saved { &mut grid.saved_cursor } else { &mut grid.cursor };
        if cursor.point.column.0 != last {
            cursor.input_needs_wrap = false;
        }
        cursor.template.c = ' ';
        if !has_extra(&cursor.template) {
            cursor.template.extra = None;
        }
        let (point, at_end) = (cursor.point, cursor.input_needs_wrap);
        // It is brought there by writing that character again, after which nothing is wrapped yet.
        let marks = Flags::WRAPLINE | Flags::LEADING_WIDE_CHAR_SPACER;
        if at_end && grid[point].flags.intersects(marks) {
            grid[point].flags.remove(marks);
        }
    }
}

fn clean_wide(grid: &mut Grid<Cell>, line: Line, last: usize) {
    for column in 0..=last {
        let cell = &grid[line][Column(column)];
        let flags = cell.flags;
        if cell.extra.is_some() && !has_extra(cell) {
            grid[line][Column(column)].extra = None;
        }
        if grid[line][Column(column)].c == '\t' {
            grid[line][Column(column)].c = ' ';
        }
        if flags.contains(Flags::WRAPLINE) && column != last {
            grid[line][Column(column)].flags.remove(Flags::WRAPLINE);
        }
        if flags.contains(Flags::LEADING_WIDE_CHAR_SPACER) && column != last {
            grid[line][Column(column)].flags.remove(Flags::LEADING_WIDE_CHAR_SPACER);
        }
        if flags.contains(Flags::WIDE_CHAR) {
            let has_other_half =
                column < last && grid[line][Column(column + 1)].flags.contains(Flags::WIDE_CHAR_SPACER);
            if has_other_half && !flags.contains(Flags::WIDE_CHAR_SPACER) {
                let spacer = spacer_of(&grid[line][Column(column)], Flags::WIDE_CHAR_SPACER);
                let other = &grid[line][Column(column + 1)];
                let spacer = keep_wrap(spacer, other);
                if *other != spacer {
                    grid[line][Column(column + 1)] = spacer;
                }
            } else {
                grid[line][Column(column)].clear_wide();
            }
        }
        let is_half = grid[line][Column(column)].flags.contains(Flags::WIDE_CHAR_SPACER)
            && !(column > 0 && grid[line][Column(column - 1)].flags.contains(Flags::WIDE_CHAR));
        if is_half {
            let cell = &mut grid[line][Column(column)];
            cell.flags.remove(Flags::WIDE_CHAR_SPACER);
            cell.c = ' ';
        }
        let cell = &grid[line][Column(column)];
        if cell.extra.is_some() && !has_extra(cell) {
            grid[line][Column(column)].extra = None;
        }
    }
}

/// A line is wrapped if the next one goes on with it: for a wide character that did not fit, a gap is left.
fn clean_wraps(grid: &mut Grid<Cell>, line: Line, last: usize, rows: i32) {
    let end = &grid[line][Column(last)];
    let flags = end.flags;
    let is_last_line = line.0 + 1 == rows;
    if flags.contains(Flags::WRAPLINE) && is_last_line {
        grid[line][Column(last)].flags.remove(Flags::WRAPLINE);
    }
    if !flags.contains(Flags::LEADING_WIDE_CHAR_SPACER) {
        // Without the gap a wide character would not have wrapped to the next line by itself, but moved there.
        return;
    }
    let next_is_wide = !is_last_line && grid[Line(line.0 + 1)][Column(0)].flags.contains(Flags::WIDE_CHAR);
    if next_is_wide && flags.contains(Flags::WRAPLINE) {
        let gap =
            spacer_of(&grid[Line(line.0 + 1)][Column(0)], Flags::LEADING_WIDE_CHAR_SPACER | Flags::WRAPLINE);
        if grid[line][Column(last)] != gap {
            grid[line][Column(last)] = gap;
        }
    } else {
        let cell = &mut grid[line][Column(last)];
        cell.flags.remove(Flags::LEADING_WIDE_CHAR_SPACER);
        cell.c = ' ';
    }
}

fn keep_wrap(mut spacer: Cell, old: &Cell) -> Cell {
    spacer.flags |= old.flags & Flags::WRAPLINE;
    spacer
}

/// What is written beside a wide character.
fn spacer_of(wide: &Cell, mark: Flags) -> Cell {
    let flags = wide.flags - Flags::WIDE_CHAR - Flags::WRAPLINE;
    let mut spacer = Cell { c: ' ', fg: wide.fg, bg: wide.bg, flags: flags | mark, extra: None };
    spacer.set_underline_color(wide.underline_color());
    spacer.set_hyperlink(wide.hyperlink());
    spacer
}

fn has_extra(cell: &Cell) -> bool {
    cell.zerowidth().is_some_and(|combining| !combining.is_empty())
        || cell.underline_color().is_some()
        || cell.hyperlink().is_some()
}
