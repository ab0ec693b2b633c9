//! Cells as text for a terminal.

use std::fmt::Write;

use alacritty_terminal::grid::{Cursor, Dimensions, Grid};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::{Cell, Flags, Hyperlink};
use alacritty_terminal::vte::ansi::{CharsetIndex, Color, NamedColor, StandardCharset};

/// What a character is written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pen {
    fg: Color,
    bg: Color,
    flags: Flags,
    underline: Option<Color>,
    link: Option<Hyperlink>,
}

const FG: Color = Color::Named(NamedColor::Foreground);
const BG: Color = Color::Named(NamedColor::Background);
/// Flags that say something of a cell's place, not of its look.
const PLACE: Flags = Flags::WRAPLINE
    .union(Flags::WIDE_CHAR)
    .union(Flags::WIDE_CHAR_SPACER)
    .union(Flags::LEADING_WIDE_CHAR_SPACER);

impl Pen {
    fn usual() -> Self {
        Self { fg: FG, bg: BG, flags: Flags::empty(), underline: None, link: None }
    }

    pub(super) fn of(cell: &Cell) -> Self {
        Self {
            fg: cell.fg,
            bg: cell.bg,
            flags: cell.flags - PLACE,
            underline: cell.underline_color(),
            link: cell.hyperlink(),
        }
    }
}

/// Text for a terminal, and with what it writes at its end.
pub(super) struct Drawing {
    pub(super) text: String,
    pen: Pen,
}

impl Drawing {
    /// Begins; the first text has to bring the terminal to the usual pen.
    pub(super) fn new() -> Self {
        Self { text: String::new(), pen: Pen::usual() }
    }

    /// Adds a piece of text as it is.
    pub(super) fn add(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a control sequence: what stands behind its introducer.
    pub(super) fn csi(&mut self, rest: std::fmt::Arguments<'_>) {
        self.text.push_str("\x1b[");
        // Writing to memory does not fail.
        _ = self.text.write_fmt(rest);
    }

    /// Writes as usual from here on.
    pub(super) fn usual_pen(&mut self) {
        self.take(Pen::usual());
    }

    /// Writes as a cursor does from here on.
    pub(super) fn pen_of(&mut self, template: &Cell) {
        self.take(Pen::of(template));
    }

    fn take(&mut self, pen: Pen) {
        if pen.link != self.pen.link {
            match &pen.link {
                Some(link) => {
                    _ = write!(self.text, "\x1b]8;id={};{}\x1b\\", link.id(), link.uri());
                }
                None => self.add("\x1b]8;;\x1b\\"),
            }
        }
        let look = |pen: &Pen| (pen.fg, pen.bg, pen.flags, pen.underline);
        if look(&pen) != look(&self.pen) {
            self.attributes(&pen);
        }
        self.pen = pen;
    }

    fn attributes(&mut self, pen: &Pen) {
        const CODES: [(Flags, &str); 11] = [
            (Flags::BOLD, ";1"),
            (Flags::DIM, ";2"),
            (Flags::ITALIC, ";3"),
            (Flags::UNDERLINE, ";4"),
            (Flags::DOUBLE_UNDERLINE, ";4:2"),
            (Flags::UNDERCURL, ";4:3"),
            (Flags::DOTTED_UNDERLINE, ";4:4"),
            (Flags::DASHED_UNDERLINE, ";4:5"),
            (Flags::INVERSE, ";7"),
            (Flags::HIDDEN, ";8"),
            (Flags::STRIKEOUT, ";9"),
        ];
        self.add("\x1b[0");
        for (_, code) in CODES.iter().filter(|(flag, _)| pen.flags.contains(*flag)) {
            self.add(code);
        }
        self.color(pen.fg, 30, 90, 38);
        self.color(pen.bg, 40, 100, 48);
        match pen.underline {
            Some(Color::Indexed(index)) => _ = write!(self.text, ";58:5:{index}"),
            Some(Color::Spec(rgb)) => _ = write!(self.text, ";58:2::{}:{}:{}", rgb.r, rgb.g, rgb.b),
            Some(Color::Named(_)) | None => {}
        }
        self.add("m");
    }

    fn color(&mut self, color: Color, usual: usize, bright: usize, other: usize) {
        _ = match color {
            Color::Named(named) => match named as usize {
                number @ 0..=7 => write!(self.text, ";{}", usual + number),
                number @ 8..=15 => write!(self.text, ";{}", bright + number - 8),
                // The terminal's own.
                _ => Ok(()),
            },
            Color::Indexed(index) => write!(self.text, ";{other};5;{index}"),
            Color::Spec(rgb) => write!(self.text, ";{other};2;{};{};{}", rgb.r, rgb.g, rgb.b),
        };
    }

    fn cell(&mut self, cell: &Cell) {
        self.take(Pen::of(cell));
        self.text.push(cell.c);
        self.text.extend(cell.zerowidth().unwrap_or_default());
    }

    /// Writes lines of a grid, from the first given to the last of the screen, beginning at the left of an empty line on
    /// a terminal that wraps lines and has nothing below.
    pub(super) fn lines(&mut self, grid: &Grid<Cell>, first: i32) {
        let (rows, columns) = (grid.screen_lines() as i32, grid.columns());
        let blank = Cell::default();
        let mut wrapped = false;
        for line in first..rows {
            let row = &grid[Line(line)];
            let wraps = row[Column(columns - 1)].flags.contains(Flags::WRAPLINE) && line + 1 < rows;
            let written = (0..columns).rev().find(|column| row[Column(*column)] != blank);
            let mut end = if wraps { columns } else { written.map_or(0, |column| column + 1) };
            if wrapped {
                // Its first character is what makes the line before wrap.
                end = end.max(1);
            }
            for column in 0..end {
                let cell = &row[Column(column)];
                if cell.flags.intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER) {
                    continue;
                }
                self.cell(cell);
                let width = if cell.flags.contains(Flags::WIDE_CHAR) { 2 } else { 1 };
                if wrapped && column == 0 && cell.bg != BG && width < columns {
                    // Where the terminal scrolled it filled the line with that colour.
                    self.usual_pen();
                    self.add("\x1b[K");
                }
            }
            if !wraps && line + 1 < rows {
                self.usual_pen();
                self.add("\r\n");
            }
            wrapped = wraps;
        }
        self.usual_pen();
    }

    /// Brings the cursor to its place, with what it writes with. `top` is the line that the terminal counts from.
    pub(super) fn cursor(&mut self, grid: &Grid<Cell>, cursor: &Cursor<Cell>, top: usize) {
        let line = cursor.point.line.0 - top as i32 + 1;
        let mut column = cursor.point.column;
        self.add("\x1b(B\x1b)B\x0f");
        let row = &grid[cursor.point.line];
        if cursor.input_needs_wrap && row[column].flags.contains(Flags::WIDE_CHAR_SPACER) && column.0 > 0 {
            column -= 1;
        }
        self.csi(format_args!("{line};{}H", column.0 + 1));
        if cursor.input_needs_wrap {
            // Only writing the last character of a line brings the cursor behind it.
            self.cell(&row[column]);
        }
        for (index, set) in [
            (CharsetIndex::G0, '('),
            (CharsetIndex::G1, ')'),
            (CharsetIndex::G2, '*'),
            (CharsetIndex::G3, '+'),
        ] {
            let letter = match cursor.charsets[index] {
                StandardCharset::Ascii => 'B',
                StandardCharset::SpecialCharacterAndLineDrawing => '0',
            };
            _ = write!(self.text, "\x1b{set}{letter}");
        }
        self.pen_of(&cursor.template);
    }
}
