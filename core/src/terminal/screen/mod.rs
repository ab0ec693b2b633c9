//! The screen of a session: what its terminal shows, kept whether or not anybody looks.
//!
//! Everything comes from a program that may be hostile: whatever it sends, memory and time stay bounded, and a defect of
//! the emulator costs the picture, not the session.

mod canon;
mod draw;
mod redraw;
mod tail;
mod track;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alacritty_terminal::event::{Event, EventListener};
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::term::{Config, Osc52};
use alacritty_terminal::vte::ansi::{Processor, Timeout};
use malai_model::wire::WindowSize;

pub use redraw::History;
use tail::Tail;
use track::{Tracked, Tracker};

type Term = alacritty_terminal::Term<Replies>;

/// The most lines that have left the screen and are kept.
const MAX_HISTORY: usize = 2_000;
/// The most cells in them: of wide lines fewer are kept.
const MAX_HISTORY_CELLS: usize = 80_000;
/// The most cells of a screen.
const MAX_CELLS: usize = 256_000;
/// The most columns. When the emulator needs room for more lines it takes it for a thousand at once.
const MAX_COLUMNS: u16 = 1_000;
/// The most rows.
const MAX_ROWS: u16 = 10_000;
/// Of wider screens no line is kept that left them: that alone would take that room.
const MAX_COLUMNS_KEPT: usize = 500;
/// The emulator needs room for a wide character.
const MIN_COLUMNS: u16 = 2;
/// The most bytes of answers that are kept until they are taken.
const MAX_REPLIES: usize = 4 * 1024;

/// The screen of a terminal, and what has left it at the top.
pub struct Screen {
    term: Term,
    parser: Processor<NoHolding>,
    tracked: Tracked,
    tail: Tail,
    replies: Replies,
    window: WindowSize,
}

/// What the terminal has to answer to its program.
#[derive(Debug, Clone, Default)]
struct Replies(Arc<Mutex<Vec<u8>>>);

impl EventListener for Replies {
    fn send_event(&self, event: Event) {
        if let Event::PtyWrite(text) = event {
            self.push(text.as_bytes());
        }
    }
}

impl Replies {
    fn push(&self, bytes: &[u8]) {
        let mut replies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if replies.len() + bytes.len() <= MAX_REPLIES {
            replies.extend_from_slice(bytes);
        }
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Synchronised updates are not held back: nobody sees this screen half-drawn.
#[derive(Debug, Default)]
struct NoHolding;

impl Timeout for NoHolding {
    fn set_timeout(&mut self, _: Duration) {}
    fn clear_timeout(&mut self) {}
    fn pending_timeout(&self) -> bool {
        false
    }
}

/// The size of the emulated grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    columns: usize,
    rows: usize,
}

impl Size {
    fn of(window: WindowSize) -> Self {
        let columns = usize::from(window.columns.max(MIN_COLUMNS));
        Self { columns, rows: usize::from(window.rows).min(MAX_CELLS / columns) }
    }

    fn history(self) -> usize {
        if self.columns > MAX_COLUMNS_KEPT { 0 } else { MAX_HISTORY.min(MAX_HISTORY_CELLS / self.columns) }
    }

    fn config(self) -> Config {
        Config {
            scrolling_history: self.history(),
            kitty_keyboard: true,
            osc52: Osc52::Disabled,
            ..Config::default()
        }
    }
}

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.rows
    }

    fn screen_lines(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }
}

/// Cuts a size to what a session bears: from 1 to 1,000 columns and 10,000 rows, and at most 256,000 cells.
pub(super) fn clamp(window: WindowSize) -> WindowSize {
    let columns = window.columns.clamp(1, MAX_COLUMNS);
    let most_rows = u16::try_from(MAX_CELLS / usize::from(columns)).unwrap_or(MAX_ROWS);
    WindowSize { columns, rows: window.rows.clamp(1, MAX_ROWS.min(most_rows)), ..window }
}

impl Screen {
    /// Makes an empty screen. A size beyond what a session bears is cut.
    pub fn new(window: WindowSize) -> Self {
        let window = clamp(window);
        let size = Size::of(window);
        let replies = Replies::default();
        Self {
            term: Term::new(size.config(), &size, replies.clone()),
            parser: Processor::new(),
            tracked: Tracked::new(size.columns, size.rows),
            tail: Tail::default(),
            replies,
            window,
        }
    }

    /// Shows what a program wrote.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.guarded(|screen| {
            let Self { term, parser, tracked, tail, replies, .. } = screen;
            let mut tracker = Tracker { term, tracked, replies };
            tail.pass(bytes, |bytes| parser.advance(&mut tracker, bytes));
        });
    }

    /// Takes what the terminal answers to its program's questions since the last call. To be thrown away while a real
    /// terminal is attached: that one answers them.
    pub fn take_replies(&mut self) -> Vec<u8> {
        self.replies.take()
    }

    /// Changes the size; one beyond what a session bears is cut. Returns what it is now.
    pub fn resize(&mut self, window: WindowSize) -> WindowSize {
        let window = clamp(window);
        let (old, new) = (Size::of(self.window), Size::of(window));
        self.window = window;
        if old != new {
            self.guarded(|screen| {
                // In halves: the emulator takes time and memory by the square of how many pieces it cuts a line into.
                let mut now = old;
                while now.columns / 2 > new.columns {
                    let next = Size { columns: now.columns / 2, rows: now.rows };
                    screen.change_size(now, next);
                    now = next;
                }
                screen.change_size(now, new);
                screen.tracked.resize(new.columns, new.rows);
                screen.tail.forget_character();
            });
        }
        window
    }

    fn change_size(&mut self, old: Size, new: Size) {
        // Before the change: what leaves the screen by it is kept.
        if new.history() != old.history() {
            self.term.set_options(new.config());
        }
        self.term.resize(new);
        self.term.grid_mut().truncate();
    }

    /// The size.
    pub fn window(&self) -> WindowSize {
        self.window
    }

    /// The title that its program gave it; empty if none.
    pub fn title(&self) -> &str {
        self.tracked.title.as_deref().unwrap_or_default()
    }

    /// Returns bytes that make a terminal of this size show exactly this screen and go on as this one does, whatever it
    /// showed before. What was half said when they are made is repeated at their end.
    pub fn redraw(&mut self, history: History) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.guarded(|screen| bytes = redraw::redraw(screen, history));
        bytes
    }

    /// Runs the emulator. If it fails the session goes on with an empty screen.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            tracing::error!("the terminal's emulator failed: the session goes on with an empty screen");
            *self = Self::new(self.window);
        }
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("window", &self.window).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
