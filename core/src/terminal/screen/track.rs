//! What the emulator knows and does not tell, and what it would keep without bound: noted beside it.

use std::collections::BTreeSet;

use alacritty_terminal::grid::{Dimensions, Grid};
use alacritty_terminal::index::{Column, Line, Point};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{
    Attr, CharsetIndex, ClearMode, CursorShape, CursorStyle, Handler, Hyperlink, KeyboardModes,
    KeyboardModesApplyBehavior, LineClearMode, Mode, ModifyOtherKeys, NamedPrivateMode, PrivateMode, Rgb,
    StandardCharset, TabulationClearMode,
};

use super::{Replies, Term};

/// The longest title, in bytes.
const MAX_TITLE: usize = 1024;
/// The most titles and keyboard modes that a program may put aside.
const MAX_STACK: usize = 16;
/// The most combining characters of a cell.
const MAX_COMBINING: usize = 8;
/// The longest hyperlink, in bytes.
const MAX_LINK: usize = 1024;
/// The most bytes of hyperlinks on the screen and in its history.
const MAX_LINKS: usize = 256 * 1024;
/// Modes that the emulator does not know and a client's terminal may.
const OTHER_MODES: [u16; 5] = [9, 1015, 1016, 2031, 2048];

const TAB_EVERY: usize = 8;

/// What is noted.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The lines that scroll: the first, and the one behind the last.
    pub(super) region: (usize, usize),
    /// Whether a tab stops there, by column.
    pub(super) tabs: Vec<bool>,
    /// Which set of characters is used.
    pub(super) charset: CharsetIndex,
    /// The cursor's form; absent: the terminal's own.
    pub(super) style: Option<CursorStyle>,
    /// The title.
    pub(super) title: Option<String>,
    /// Titles put aside.
    pub(super) titles: Vec<Option<String>>,
    /// How keys are reported, on the primary and on the alternate screen.
    pub(super) keyboard: [Keyboard; 2],
    /// Modes that are on and that the emulator does not know.
    pub(super) other_modes: BTreeSet<u16>,
    /// XTerm's modifyOtherKeys.
    pub(super) other_keys: u8,
    /// The last character, as it was said.
    pub(super) character: char,
    links: Links,
}

/// How keys are reported on one screen, by kitty's protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Keyboard {
    pub(super) stack: Vec<u8>,
    pub(super) current: u8,
}

/// How much memory hyperlinks may take.
#[derive(Debug, Default)]
struct Links {
    since_count: usize,
    closed: bool,
}

impl Tracked {
    pub(super) fn new(columns: usize, rows: usize) -> Self {
        Self {
            region: (0, rows),
            tabs: usual_tabs(0, columns).collect(),
            charset: CharsetIndex::G0,
            style: None,
            title: None,
            titles: Vec::new(),
            keyboard: Default::default(),
            other_modes: BTreeSet::new(),
            other_keys: 0,
            character: ' ',
            links: Links::default(),
        }
    }

    pub(super) fn resize(&mut self, columns: usize, rows: usize) {
        self.region = (0, rows);
        let have = self.tabs.len();
        self.tabs.truncate(columns);
        self.tabs.extend(usual_tabs(have, columns));
    }
}

fn usual_tabs(from: usize, to: usize) -> impl Iterator<Item = bool> {
    (from..to).map(|column| column % TAB_EVERY == 0)
}

/// The emulator with what is noted beside it: every call goes on to it, some are looked at first.
pub(super) struct Tracker<'a> {
    pub(super) term: &'a mut Term,
    pub(super) tracked: &'a mut Tracked,
    pub(super) replies: &'a Replies,
}

impl Tracker<'_> {
    fn keyboard(&mut self) -> &mut Keyboard {
        let alternate = self.term.mode().contains(TermMode::ALT_SCREEN);
        &mut self.tracked.keyboard[usize::from(alternate)]
    }

    /// Tells the emulator how keys are reported; it would keep a stack of its own, and fail when that is full.
    fn apply_keyboard(&mut self) {
        let modes = KeyboardModes::from_bits_truncate(self.keyboard().current);
        Handler::set_keyboard_mode(self.term, modes, KeyboardModesApplyBehavior::Replace);
    }

    /// Older ways to change to the alternate screen, which the emulator does not know.
    fn change_screen(&mut self, to_alternate: bool) {
        if self.term.mode().contains(TermMode::ALT_SCREEN) == to_alternate {
            return;
        }
        let cursor = self.term.grid().cursor.clone();
        self.term.swap_alt();
        self.term.grid_mut().cursor = cursor;
        self.changed_screen(!to_alternate);
    }

    /// The alternate screen is entered with nothing of its last time, neither a saved cursor.
    fn changed_screen(&mut self, was_alternate: bool) {
        let is_alternate = self.term.mode().contains(TermMode::ALT_SCREEN);
        if is_alternate && !was_alternate {
            let grid = self.term.grid_mut();
            grid.saved_cursor = grid.cursor.clone();
        }
        if is_alternate != was_alternate {
            self.apply_keyboard();
        }
    }

    fn bound_combining(&mut self, at: Point) {
        let cell = &self.term.grid()[at];
        let Some(combining) = cell.zerowidth().filter(|combining| combining.len() > MAX_COMBINING) else {
            return;
        };
        let kept: Vec<char> = combining[..MAX_COMBINING].to_vec();
        let cell = &mut self.term.grid_mut()[at];
        let (character, flags) = (cell.c, cell.flags);
        cell.clear_wide();
        (cell.c, cell.flags) = (character, flags);
        kept.into_iter().for_each(|character| cell.push_zerowidth(character));
    }

    fn has_room_for_link(&mut self, length: usize) -> bool {
        if length > MAX_LINK {
            return false;
        }
        let links = &mut self.tracked.links;
        links.since_count += length;
        if links.since_count > MAX_LINKS {
            links.since_count = 0;
            let mut last = None;
            let mut total = 0;
            let grid = self.term.grid();
            for line in grid.topmost_line().0..grid.screen_lines() as i32 {
                for cell in &grid[Line(line)] {
                    if let Some(link) = cell.hyperlink().filter(|link| Some(link) != last.as_ref()) {
                        total += link.uri().len() + link.id().len();
                        last = Some(link);
                    }
                }
            }
            links.closed = total > MAX_LINKS;
        }
        !links.closed
    }
}

/// The cell before the cursor: the one that a character without width would be added to.
pub(super) fn base_cell(grid: &Grid<Cell>) -> Point {
    let cursor = &grid.cursor;
    let mut column = cursor.point.column.0;
    if !cursor.input_needs_wrap {
        column = column.saturating_sub(1);
    }
    let line = cursor.point.line;
    if grid[line][Column(column)].flags.contains(Flags::WIDE_CHAR_SPACER) {
        column = column.saturating_sub(1);
    }
    Point::new(line, Column(column))
}

/// Cuts a text to a number of bytes, at the border of a character.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
    text
}

macro_rules! pass_on {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $name(&mut self, $($argument: $type),*) {
            Handler::$name(self.term, $($argument),*);
        })*
    };
}

impl Handler for Tracker<'_> {
    pass_on! {
        goto(line: i32, column: usize);
        goto_line(line: i32);
        goto_col(column: usize);
        insert_blank(count: usize);
        move_up(count: usize);
        move_down(count: usize);
        identify_terminal(intermediate: Option<char>);
        device_status(kind: usize);
        move_forward(count: usize);
        move_backward(count: usize);
        move_down_and_cr(count: usize);
        move_up_and_cr(count: usize);
        put_tab(count: u16);
        backspace();
        carriage_return();
        linefeed();
        newline();
        scroll_up(count: usize);
        scroll_down(count: usize);
        insert_blank_lines(count: usize);
        delete_lines(count: usize);
        erase_chars(count: usize);
        delete_chars(count: usize);
        save_cursor_position();
        restore_cursor_position();
        clear_line(mode: LineClearMode);
        clear_screen(mode: ClearMode);
        reverse_index();
        terminal_attribute(attribute: Attr);
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        report_mode(mode: Mode);
        report_private_mode(mode: PrivateMode);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        configure_charset(index: CharsetIndex, charset: StandardCharset);
        set_color(index: usize, color: Rgb);
        reset_color(index: usize);
        decaln();
        text_area_size_chars();
    }

    fn input(&mut self, c: char) {
        self.tracked.character = c;
        if c < '\u{300}' {
            Handler::input(self.term, c);
            return;
        }
        let base = base_cell(self.term.grid());
        Handler::input(self.term, c);
        self.bound_combining(base);
    }

    fn set_title(&mut self, title: Option<String>) {
        self.tracked.title = title.map(|title| cut(title, MAX_TITLE));
    }

    fn push_title(&mut self) {
        if self.tracked.titles.len() == MAX_STACK {
            self.tracked.titles.remove(0);
        }
        self.tracked.titles.push(self.tracked.title.clone());
    }

    fn pop_title(&mut self) {
        if let Some(title) = self.tracked.titles.pop() {
            self.tracked.title = title;
        }
    }

    fn set_horizontal_tabstop(&mut self) {
        let column = self.term.grid().cursor.point.column.0;
        self.tracked.tabs[column] = true;
        Handler::set_horizontal_tabstop(self.term);
    }

    fn clear_tabs(&mut self, mode: TabulationClearMode) {
        match mode {
            TabulationClearMode::Current => {
                let column = self.term.grid().cursor.point.column.0;
                self.tracked.tabs[column] = false;
            }
            TabulationClearMode::All => self.tracked.tabs.fill(false),
        }
        Handler::clear_tabs(self.term, mode);
    }

    fn move_backward_tabs(&mut self, count: u16) {
        let mut column = self.term.grid().cursor.point.column.0;
        for _ in 0..count {
            // Where no stop is left the emulator would look for one again and again.
            match self.tracked.tabs[..column].iter().rposition(|stop| *stop) {
                Some(stop) => column = stop,
                None => break,
            }
        }
        self.term.grid_mut().cursor.point.column = Column(column);
    }

    fn move_forward_tabs(&mut self, count: u16) {
        let columns = u16::try_from(self.term.columns()).unwrap_or(u16::MAX);
        Handler::move_forward_tabs(self.term, count.min(columns));
    }

    fn set_scrolling_region(&mut self, top: usize, bottom: Option<usize>) {
        let rows = self.term.screen_lines();
        let end = bottom.unwrap_or(rows);
        // As the emulator does, but a region that begins below the screen is none: it would be empty.
        if top >= end || top > rows {
            return;
        }
        self.tracked.region = (top - 1, end.min(rows));
        Handler::set_scrolling_region(self.term, top, bottom);
    }

    fn set_active_charset(&mut self, index: CharsetIndex) {
        self.tracked.charset = index;
        Handler::set_active_charset(self.term, index);
    }

    fn set_cursor_style(&mut self, style: Option<CursorStyle>) {
        self.tracked.style = style;
        Handler::set_cursor_style(self.term, style);
    }

    fn set_cursor_shape(&mut self, shape: CursorShape) {
        self.tracked.style.get_or_insert_default().shape = shape;
        Handler::set_cursor_shape(self.term, shape);
    }

    fn set_hyperlink(&mut self, link: Option<Hyperlink>) {
        let link = link
            .filter(|link| self.has_room_for_link(link.uri.len() + link.id.as_ref().map_or(0, String::len)));
        Handler::set_hyperlink(self.term, link);
    }

    fn set_private_mode(&mut self, mode: PrivateMode) {
        match mode {
            PrivateMode::Unknown(47 | 1047) => self.change_screen(true),
            PrivateMode::Unknown(1048) => self.save_cursor_position(),
            PrivateMode::Unknown(mode) if OTHER_MODES.contains(&mode) => {
                self.tracked.other_modes.insert(mode);
            }
            PrivateMode::Named(NamedPrivateMode::BlinkingCursor) => {
                self.tracked.style.get_or_insert_default().blinking = true;
            }
            PrivateMode::Named(NamedPrivateMode::ColumnMode) => {
                self.tracked.region = (0, self.term.screen_lines());
            }
            _ => {}
        }
        let was_alternate = self.term.mode().contains(TermMode::ALT_SCREEN);
        Handler::set_private_mode(self.term, mode);
        self.changed_screen(was_alternate);
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        match mode {
            PrivateMode::Unknown(47 | 1047) => self.change_screen(false),
            PrivateMode::Unknown(1048) => self.restore_cursor_position(),
            PrivateMode::Unknown(mode) => {
                self.tracked.other_modes.remove(&mode);
            }
            PrivateMode::Named(NamedPrivateMode::BlinkingCursor) => {
                self.tracked.style.get_or_insert_default().blinking = false;
            }
            PrivateMode::Named(NamedPrivateMode::ColumnMode) => {
                self.tracked.region = (0, self.term.screen_lines());
            }
            _ => {}
        }
        let was_alternate = self.term.mode().contains(TermMode::ALT_SCREEN);
        Handler::unset_private_mode(self.term, mode);
        self.changed_screen(was_alternate);
    }

    fn reset_state(&mut self) {
        let links = std::mem::take(&mut self.tracked.links);
        *self.tracked = Tracked::new(self.term.columns(), self.term.screen_lines());
        self.tracked.links = links;
        Handler::reset_state(self.term);
    }

    fn report_keyboard_mode(&mut self) {
        let text = format!("\x1b[?{}u", self.keyboard().current);
        self.replies.push(text.as_bytes());
    }

    fn push_keyboard_mode(&mut self, mode: KeyboardModes) {
        let keyboard = self.keyboard();
        if keyboard.stack.len() == MAX_STACK {
            keyboard.stack.remove(0);
        }
        keyboard.stack.push(mode.bits());
        keyboard.current = mode.bits();
        self.apply_keyboard();
    }

    fn pop_keyboard_modes(&mut self, count: u16) {
        let keyboard = self.keyboard();
        let left = keyboard.stack.len().saturating_sub(usize::from(count));
        keyboard.stack.truncate(left);
        keyboard.current = keyboard.stack.last().copied().unwrap_or(0);
        self.apply_keyboard();
    }

    fn set_keyboard_mode(&mut self, mode: KeyboardModes, behavior: KeyboardModesApplyBehavior) {
        let keyboard = self.keyboard();
        let current = KeyboardModes::from_bits_truncate(keyboard.current);
        let new = match behavior {
            KeyboardModesApplyBehavior::Replace => mode,
            KeyboardModesApplyBehavior::Union => current | mode,
            KeyboardModesApplyBehavior::Difference => current - mode,
        };
        keyboard.current = new.bits();
        self.apply_keyboard();
    }

    fn set_modify_other_keys(&mut self, mode: ModifyOtherKeys) {
        self.tracked.other_keys = match mode {
            ModifyOtherKeys::Reset => 0,
            ModifyOtherKeys::EnableExceptWellDefined => 1,
            ModifyOtherKeys::EnableAll => 2,
        };
    }
}
