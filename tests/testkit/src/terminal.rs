//! A process on a terminal of its own, and what its screen shows.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alacritty_terminal::Term;
use alacritty_terminal::event::{Event, EventListener};
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::Flags;
use alacritty_terminal::term::{Config, TermMode};
use alacritty_terminal::vte::ansi::Processor;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::Winsize;

use crate::{DEADLINE, TestHome, TestNet, await_until};

/// The most bytes that are kept as they came.
const LATEST: usize = 64 * 1024;

/// Builds one run of a program on a terminal.
#[must_use]
pub struct TerminalCommand {
    net: TestNet,
    what: String,
    program: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    size: (u16, u16),
}

impl TerminalCommand {
    pub(crate) fn new<I, S>(home: &TestHome, program: &Path, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let mut environment = home.net().environment(home.path());
        environment.push(("TERM".into(), "xterm-256color".into()));
        Self {
            net: home.net().clone(),
            what: format!("[{}] {} {}", home.name(), program.display(), words.join(" ")),
            program: program.to_owned(),
            args,
            environment,
            size: (80, 24),
        }
    }

    /// Gives the terminal another size than 80 columns and 24 lines.
    pub fn size(mut self, columns: u16, lines: u16) -> Self {
        self.size = (columns, lines);
        self
    }

    /// Adds a variable to the cleared environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// When there is no terminal, or the process cannot be started.
    pub fn spawn(self) -> Terminal {
        // Closed in children from its first moment on: other tests start processes at the same time.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("opens a terminal");
        grantpt(&master).expect("grants the terminal");
        unlockpt(&master).expect("unlocks the terminal");
        let path = ptsname(&master, Vec::new()).expect("the terminal has a name");
        let path = PathBuf::from(OsString::from(path.to_str().expect("the name is text")));
        let slave =
            File::options().read(true).write(true).open(&path).expect("opens the terminal's other side");
        rustix::termios::tcsetwinsize(&slave, winsize(self.size)).expect("sets the size");
        let stream = || slave.try_clone().expect("copies the terminal's handle");
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.environment)
            .current_dir(self.net.path())
            .stdin(stream())
            .stdout(stream())
            .stderr(stream());
        #[expect(unsafe_code, reason = "a controlling terminal can be had in the child alone")]
        // SAFETY: between fork and exec only two system calls are made, both safe there.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|source| panic!("starts {}: {source}", self.what));
        drop(command);
        Terminal::new(self.net, self.what, child, File::from(master), slave, self.size)
    }
}

fn winsize((columns, lines): (u16, u16)) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: lines,
        ws_xpixel: columns.saturating_mul(8),
        ws_ypixel: lines.saturating_mul(16),
    }
}

/// A process on a terminal. Dropping it kills its process group and hangs the terminal up.
pub struct Terminal {
    what: String,
    child: Child,
    master: File,
    /// Held, so that the terminal and its settings outlive the process.
    slave: File,
    shared: Arc<Shared>,
    reaped: Option<ExitStatus>,
    _net: TestNet,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    term: Term<Answers>,
    title: Arc<Mutex<String>>,
    parser: Processor,
    total: u64,
    counts: Box<[u64; 256]>,
    latest: VecDeque<u8>,
    /// Reading stops while it is held, as in a terminal whose window is frozen.
    held: bool,
}

/// Answers what a program asks its terminal.
struct Answers {
    master: File,
    title: Arc<Mutex<String>>,
}

impl EventListener for Answers {
    fn send_event(&self, event: Event) {
        match event {
            Event::PtyWrite(text) => {
                // The program may be gone.
                let _ = (&self.master).write_all(text.as_bytes());
            }
            Event::Title(title) => *self.title.lock().unwrap_or_else(PoisonError::into_inner) = title,
            _ => {}
        }
    }
}

struct Size((u16, u16));

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.screen_lines()
    }

    fn screen_lines(&self) -> usize {
        usize::from(self.0.1)
    }

    fn columns(&self) -> usize {
        usize::from(self.0.0)
    }
}

/// What a screen shows at one moment.
#[derive(Debug, Clone)]
pub struct Screen {
    /// Its lines, without blanks at their ends.
    pub lines: Vec<String>,
    /// Where the cursor is: column and line, from 0.
    pub cursor: (usize, usize),
    /// Whether it is the alternate screen, as full-screen programs have it.
    pub alternate: bool,
    /// Whether the cursor is shown.
    pub cursor_shown: bool,
    /// Whether the program wants the mouse.
    pub mouse: bool,
    /// The title.
    pub title: String,
}

impl Screen {
    /// Returns the lines as one text.
    pub fn text(&self) -> String {
        self.lines.join("\n").trim_end().to_owned()
    }

    /// Says whether a text is on it.
    pub fn shows(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

impl Terminal {
    fn new(net: TestNet, what: String, child: Child, master: File, slave: File, size: (u16, u16)) -> Self {
        let title = Arc::new(Mutex::new(String::new()));
        let copy = || master.try_clone().expect("copies the terminal's handle");
        let answers = Answers { master: copy(), title: Arc::clone(&title) };
        let state = State {
            term: Term::new(Config { scrolling_history: 1000, ..Config::default() }, &Size(size), answers),
            title,
            parser: Processor::new(),
            total: 0,
            counts: Box::new([0; 256]),
            latest: VecDeque::new(),
            held: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (mut from, reading) = (copy(), Arc::clone(&shared));
        std::thread::spawn(move || {
            let mut block = vec![0; 64 * 1024];
            loop {
                {
                    let mut state = reading.lock();
                    while state.held {
                        state = reading.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
                let count = match from.read(&mut block) {
                    Ok(count) if count > 0 => count,
                    Err(source) if source.kind() == std::io::ErrorKind::Interrupted => continue,
                    Ok(_) | Err(_) => return,
                };
                let mut state = reading.lock();
                let State { term, parser, counts, latest, total, .. } = &mut *state;
                parser.advance(term, &block[..count]);
                block[..count].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
                latest.extend(&block[..count]);
                latest.drain(..latest.len().saturating_sub(LATEST));
                *total += count as u64;
                drop(state);
                reading.changed.notify_all();
            }
        });
        Self { what, child, master, slave, shared, reaped: None, _net: net }
    }

    /// Returns the process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    ///
    /// # Panics
    ///
    /// When the terminal takes nothing.
    pub fn type_text(&self, text: impl AsRef<[u8]>) {
        (&self.master)
            .write_all(text.as_ref())
            .unwrap_or_else(|source| panic!("{}: types: {source}", self.what));
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, columns: u16, lines: u16) {
        let mut state = self.shared.lock();
        state.term.resize(Size((columns, lines)));
        rustix::termios::tcsetwinsize(&self.slave, winsize((columns, lines))).expect("sets the size");
    }

    /// Stops reading, or goes on: a window that is frozen.
    pub fn hold(&self, held: bool) {
        self.shared.lock().held = held;
        self.shared.changed.notify_all();
    }

    /// Returns what the screen shows now.
    pub fn screen(&self) -> Screen {
        screen(&self.shared.lock())
    }

    /// Returns how often a byte came.
    pub fn count_of(&self, byte: u8) -> u64 {
        self.shared.lock().counts[usize::from(byte)]
    }

    /// Says whether these very bytes are among the latest 64 KiB that came.
    pub fn has_come(&self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        let mut state = self.shared.lock();
        state.latest.make_contiguous().windows(bytes.len()).any(|window| window == bytes)
    }

    /// Returns how many bytes came.
    pub fn total(&self) -> u64 {
        self.shared.lock().total
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Panics
    ///
    /// When it is not within the deadline; what it shows is printed.
    #[track_caller]
    pub fn wait_within(&self, deadline: Duration, what: &str, fits: impl Fn(&Screen) -> bool) -> Screen {
        let until = Instant::now() + deadline;
        let mut state = self.shared.lock();
        loop {
            let now = screen(&state);
            if fits(&now) {
                return now;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                panic!(
                    "{}: still waiting after {deadline:?} for {what}; the screen shows:\n{}\n{now:?}",
                    self.what,
                    now.text()
                );
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_within`].
    #[track_caller]
    pub fn wait_for(&self, what: &str, fits: impl Fn(&Screen) -> bool) -> Screen {
        self.wait_within(DEADLINE / 2, what, fits)
    }

    /// Waits until a text is on the screen, and returns that.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_within`].
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) -> Screen {
        self.wait_for(&format!("{text:?}"), |screen| screen.shows(text))
    }

    /// Waits until a line of the screen ends with this text, and returns the screen. What was typed ahead may have left a
    /// prompt before it.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_within`].
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> Screen {
        self.wait_for(&format!("a line that ends with {text:?}"), |screen| {
            screen.lines.iter().any(|line| line.ends_with(text))
        })
    }

    /// Returns the terminal's settings as text, to be compared.
    pub fn settings(&self) -> String {
        let settings = rustix::termios::tcgetattr(&self.slave).expect("asks for the settings");
        format!(
            "{:?} {:?} {:?} {:?} {:?}",
            settings.input_modes,
            settings.output_modes,
            settings.control_modes,
            settings.local_modes,
            settings.special_codes
        )
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.reaped.is_none() {
            let _ = kill(self.id(), signal);
        }
    }

    /// Says whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.reaped.is_none() {
            self.reaped = self.child.try_wait().expect("asks for the process's state");
        }
        self.reaped.is_some()
    }

    /// Waits for the end of the process, and returns its status as a shell shows it. The screen stays.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let what = self.what.clone();
        let shared = Arc::clone(&self.shared);
        let started = Instant::now();
        while !self.has_ended() {
            assert!(
                started.elapsed() < DEADLINE,
                "still waiting for the end of {what}; the screen shows:\n{}",
                screen(&shared.lock()).text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        // What it wrote last may not have been looked at yet: it comes before this, which no screen shows.
        let marks = self.count_of(0);
        let marked = (&self.slave).write_all(&[0]).is_ok();
        await_until("the last of the output", DEADLINE, || {
            !marked || self.count_of(0) > marks || self.shared.lock().held
        });
        let status = self.reaped.expect("has ended");
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Kills the process group at once.
    pub fn kill(mut self) {
        self.kill_group();
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is an i32"))
    }

    fn kill_group(&mut self) {
        if self.reaped.is_none() {
            // Not reaped, so the id is still its own.
            let _ = killpg(self.id(), Signal::SIGKILL);
            self.reaped = self.child.wait().ok();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.hold(false);
        self.kill_group();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn screen(state: &State) -> Screen {
    let grid = state.term.grid();
    let lines = (0..grid.screen_lines()).map(|line| {
        let row = &grid[Line(i32::try_from(line).unwrap_or(0))];
        let cells = (0..grid.columns()).map(|column| &row[Column(column)]);
        let text: String =
            cells.filter(|cell| !cell.flags.contains(Flags::WIDE_CHAR_SPACER)).map(|cell| cell.c).collect();
        text.trim_end().to_owned()
    });
    let mode = state.term.mode();
    let cursor = grid.cursor.point;
    Screen {
        lines: lines.collect(),
        cursor: (cursor.column.0, usize::try_from(cursor.line.0).unwrap_or(0)),
        alternate: mode.contains(TermMode::ALT_SCREEN),
        cursor_shown: mode.contains(TermMode::SHOW_CURSOR),
        mouse: mode.intersects(TermMode::MOUSE_MODE),
        title: state.title.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(net: &TestNet, script: &str) -> Terminal {
        TestHome::new(net, "one").terminal(["-c", script]).spawn()
    }

    #[test]
    fn a_process_has_a_controlling_terminal_with_a_size_and_its_screen_is_seen() {
        let net = TestNet::of_program("/bin/sh");
        let mut terminal =
            shell(&net, "stty size; read x </dev/tty; printf '\\033[2J\\033[3;4Hgot %s' $x; exit 3");
        terminal.wait_for_line("24 80");
        terminal.type_text("it\n");
        assert_eq!(terminal.wait(), 3);
        let screen = terminal.screen();
        assert_eq!((screen.lines[2].as_str(), screen.cursor), ("   got it", (9, 2)));
        assert_eq!(terminal.count_of(b'g'), 1);
        assert!(terminal.has_come("\x1b[2J\x1b[3;4Hgot it") && !terminal.has_come("got  it"));
    }

    #[test]
    fn a_change_of_size_is_told_and_control_c_interrupts() {
        let net = TestNet::of_program("/bin/sh");
        let script = "trap 'stty size' WINCH; trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done";
        let mut terminal = shell(&net, script);
        terminal.wait_for_line("ready");
        terminal.resize(100, 30);
        terminal.wait_for_line("30 100");
        terminal.type_text("\x03");
        assert_eq!(terminal.wait(), 7);
    }
}
