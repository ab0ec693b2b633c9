//! The whole screen as bytes for a terminal.

use std::fmt::Write;

use alacritty_terminal::grid::{Dimensions, Grid};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{
    CharsetIndex, CursorShape, Handler, KeyboardModes, KeyboardModesApplyBehavior,
};

use super::Screen;
use super::canon::clean;
use super::draw::{Drawing, Pen};
use super::track::{Keyboard, Tracked, base_cell};

/// Whether what has left the screen at its top is drawn first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// For a terminal that has nothing of it: what it shows now is pushed up, so that it can be scrolled back to.
    With,
    /// For a terminal that has seen some of it: what it shows now is overwritten.
    Without,
}

/// Brings a terminal in any state to one that can be drawn on: nothing half said, the primary screen, no mode that changes
/// what text does, the usual pen and colours.
const PREPARE: &str = concat!(
    "\x1b\\\x1b[?25l\x1b[<99u\x1b[=0;1u\x1b[?1049l\x1b[?1047l",
    "\x1b[0m\x1b]8;;\x1b\\\x1b(B\x1b)B\x1b*B\x1b+B\x0f",
    "\x1b[r\x1b[?6l\x1b[4l\x1b[20l\x1b[?7h",
    "\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\",
);

/// Modes of the emulator that a number turns on and off, without those that change how the screen is drawn.
const MODES: [(TermMode, u16); 6] = [
    (TermMode::APP_CURSOR, 1),
    (TermMode::FOCUS_IN_OUT, 1004),
    (TermMode::ALTERNATE_SCROLL, 1007),
    (TermMode::URGENCY_HINTS, 1042),
    (TermMode::BRACKETED_PASTE, 2004),
    (TermMode::LINE_WRAP, 7),
];

/// Of these at most one is on.
const MOUSE: [(TermMode, u16); 3] =
    [(TermMode::MOUSE_REPORT_CLICK, 1000), (TermMode::MOUSE_DRAG, 1002), (TermMode::MOUSE_MOTION, 1003)];

/// And of these.
const MOUSE_FORM: [(TermMode, u16); 2] = [(TermMode::UTF8_MOUSE, 1005), (TermMode::SGR_MOUSE, 1006)];

/// Modes that only other terminals know: turned off first.
const OTHER_OFF: &str = "\x1b[?9l\x1b[?1015l\x1b[?1016l\x1b[?2031l\x1b[?2048l";

pub(super) fn redraw(screen: &mut Screen, history: History) -> Vec<u8> {
    let mode = *screen.term.mode();
    let is_alternate = mode.contains(TermMode::ALT_SCREEN);
    let mut drawing = Drawing::new();
    drawing.add(PREPARE);
    if !is_alternate {
        clean(screen.term.grid_mut());
        drawing.primary(screen.term.grid(), history);
        drawing.keyboard(&screen.tracked.keyboard[0]);
        // What a program left set on the other screen cannot be told without showing it.
        screen.tracked.keyboard[1] = Keyboard::default();
    } else {
        let mut alternate = screen.term.grid().clone();
        clean(&mut alternate);
        screen.term.swap_alt();
        clean(screen.term.grid_mut());
        drawing.primary(screen.term.grid(), history);
        let grid = screen.term.grid();
        drawing.cursor(grid, &grid.cursor, 0);
        drawing.keyboard(&screen.tracked.keyboard[0]);
        // Going back empties it, and takes the primary screen's cursor along.
        screen.term.swap_alt();
        *screen.term.grid_mut() = alternate;
        let keyboard = KeyboardModes::from_bits_truncate(screen.tracked.keyboard[1].current);
        Handler::set_keyboard_mode(&mut screen.term, keyboard, KeyboardModesApplyBehavior::Replace);
        drawing.add("\x1b[?1049h");
        drawing.usual_pen();
        drawing.add("\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[H\x1b[J");
        drawing.lines(screen.term.grid(), 0);
        drawing.keyboard(&screen.tracked.keyboard[1]);
    }
    let tracked = &screen.tracked;
    drawing.palette(screen);
    drawing.titles(tracked, history);
    drawing.tabs(tracked);
    let (top, end) = tracked.region;
    let rows = screen.term.screen_lines();
    if (top, end) != (0, rows) {
        // A region of one line comes about only by naming more lines than there are.
        let bottom = if top + 1 == end { end + 1 } else { end };
        drawing.csi(format_args!("{};{bottom}r", top + 1));
    }
    let is_origin = mode.contains(TermMode::ORIGIN);
    if is_origin {
        // From there no other place can be reached.
        let line = &mut screen.term.grid_mut().cursor.point.line.0;
        *line = (*line).clamp(top as i32, end as i32 - 1);
    }
    let tracked = &screen.tracked;
    let grid = screen.term.grid();
    drawing.cursor(grid, &grid.saved_cursor, 0);
    drawing.add("\x1b7");
    if is_origin {
        drawing.add("\x1b[?6h");
    }
    drawing.cursor(grid, &grid.cursor, if is_origin { top } else { 0 });
    drawing.add(if tracked.charset == CharsetIndex::G1 { "\x0e" } else { "\x0f" });
    drawing.modes(mode, tracked);
    if screen.tail.is_after_character() {
        let top = if is_origin { top } else { 0 };
        if !drawing.last_character(screen.term.grid(), tracked, mode, top) {
            screen.tail.forget_character();
        }
    }
    let mut bytes = drawing.text.into_bytes();
    bytes.extend_from_slice(screen.tail.bytes());
    bytes
}

impl Drawing {
    fn primary(&mut self, grid: &Grid<Cell>, history: History) {
        let rows = grid.screen_lines();
        if history == History::With {
            self.csi(format_args!("{rows};1H"));
            self.add(&"\n".repeat(rows));
        }
        self.add("\x1b[H\x1b[J");
        let first = if history == History::With { grid.topmost_line().0 } else { 0 };
        self.lines(grid, first);
    }

    /// Writes the character before the cursor once more, so that it can be repeated. It has to be what is said last.
    /// Returns whether that leaves everything else as it is.
    fn last_character(&mut self, grid: &Grid<Cell>, tracked: &Tracked, mode: TermMode, top: usize) -> bool {
        let at = base_cell(grid);
        let cell = &grid[at];
        let cursor = &grid.cursor;
        let is_wide = cell.flags.contains(Flags::WIDE_CHAR);
        let end = at.column.0 + if is_wide { 2 } else { 1 };
        let is_before_cursor =
            if cursor.input_needs_wrap { end == grid.columns() } else { end == cursor.point.column.0 };
        // A wide one at the left has a mark of it at the end of the line before.
        let is_movable = is_before_cursor && !(is_wide && at.column.0 == 0);
        let character = tracked.character;
        let is_same = cursor.charsets[tracked.charset].map(character) == cell.c
            && cell.zerowidth().is_none_or(<[char]>::is_empty)
            && Pen::of(cell) == Pen::of(&cursor.template);
        if !is_movable || !is_same {
            return false;
        }
        self.csi(format_args!("{};{}H", at.line.0 - top as i32 + 1, at.column.0 + 1));
        if mode.contains(TermMode::INSERT) && end < grid.columns() {
            self.csi(format_args!("{}P", end - at.column.0));
        }
        self.text.push(character);
        true
    }

    fn keyboard(&mut self, keyboard: &Keyboard) {
        self.add("\x1b[<99u\x1b[=0;1u");
        for modes in &keyboard.stack {
            self.csi(format_args!(">{modes}u"));
        }
        if keyboard.current != keyboard.stack.last().copied().unwrap_or(0) {
            self.csi(format_args!("={};1u", keyboard.current));
        }
    }

    fn palette(&mut self, screen: &Screen) {
        let colors = screen.term.colors();
        // Behind the palette come the foreground, the background and the cursor.
        for index in 0..259 {
            let Some(rgb) = colors[index] else { continue };
            _ = match index {
                0..256 => write!(self.text, "\x1b]4;{index}"),
                _ => write!(self.text, "\x1b]{}", index - 256 + 10),
            };
            _ = write!(self.text, ";rgb:{:02x}/{:02x}/{:02x}\x1b\\", rgb.r, rgb.g, rgb.b);
        }
    }

    fn titles(&mut self, tracked: &Tracked, history: History) {
        if history == History::With {
            for title in &tracked.titles {
                self.title(title.as_deref().unwrap_or_default());
                self.add("\x1b[22;2t");
            }
        }
        if let Some(title) = &tracked.title {
            self.title(title);
        }
    }

    fn title(&mut self, title: &str) {
        _ = write!(self.text, "\x1b]2;{title}\x1b\\");
    }

    fn tabs(&mut self, tracked: &Tracked) {
        self.add("\x1b[3g");
        let stops = tracked.tabs.iter().enumerate().filter(|(_, stops)| **stops);
        for (column, _) in stops {
            self.csi(format_args!("{}G", column + 1));
            self.add("\x1bH");
        }
    }

    fn modes(&mut self, mode: TermMode, tracked: &Tracked) {
        let letter = |on: bool| if on { 'h' } else { 'l' };
        for (flag, number) in MODES {
            self.csi(format_args!("?{number}{}", letter(mode.contains(flag))));
        }
        for modes in [&MOUSE[..], &MOUSE_FORM[..]] {
            for (_, number) in modes {
                self.csi(format_args!("?{number}l"));
            }
            for (_, number) in modes.iter().filter(|(flag, _)| mode.contains(*flag)) {
                self.csi(format_args!("?{number}h"));
            }
        }
        self.add(OTHER_OFF);
        for number in &tracked.other_modes {
            self.csi(format_args!("?{number}h"));
        }
        self.csi(format_args!(">4;{}m", tracked.other_keys));
        self.add(if mode.contains(TermMode::APP_KEYPAD) { "\x1b=" } else { "\x1b>" });
        self.csi(format_args!("4{}", letter(mode.contains(TermMode::INSERT))));
        self.csi(format_args!("20{}", letter(mode.contains(TermMode::LINE_FEED_NEW_LINE))));
        let style = match tracked.style {
            None => 0,
            Some(style) => {
                let steady = match style.shape {
                    CursorShape::Underline => 4,
                    CursorShape::Beam => 6,
                    CursorShape::Block | CursorShape::HollowBlock | CursorShape::Hidden => 2,
                };
                steady - u8::from(style.blinking)
            }
        };
        self.csi(format_args!("{style} q"));
        self.csi(format_args!("?25{}", letter(mode.contains(TermMode::SHOW_CURSOR))));
    }
}
