//! The terminal's own settings: raw while a session is shown, and as they were before on every way out.

use std::sync::{Mutex, Once, PoisonError};

use malai_core::model::wire::WindowSize;
use rustix::termios::{OptionalActions, Termios};

/// What the terminal was like, while it is raw. One a process, so that a panic hook finds it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Keeps the terminal raw. Dropping it, or a panic, restores what was before.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal of stdin raw; `None` if stdin is none.
    pub(crate) fn enter() -> std::io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !is_terminal() {
            return Ok(None);
        }
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                previous(panic);
            }));
        });
        let before = rustix::termios::tcgetattr(stdin)?;
        // Kept first: whatever happens from here on, it can be restored.
        *lock() = Some(before.clone());
        let entered = Self(());
        apply(&raw(before))?;
        Ok(Some(entered))
    }

    /// Restores the terminal for a while: until [`Self::resume`].
    pub(crate) fn pause(&self) {
        if let (true, Some(before)) = (in_foreground(), lock().as_ref()) {
            _ = apply(before);
        }
    }

    /// Makes it raw again. What it is like now is not what to restore: somebody else may have left it in between.
    pub(crate) fn resume(&self) {
        if let (true, Some(before)) = (in_foreground(), lock().as_ref()) {
            _ = apply(&raw(before.clone()));
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn restore() {
    // Not while another program has the terminal: it is the shell's then, and asking for it would stop this process.
    if let (Some(before), true) = (lock().take(), in_foreground()) {
        // There is nothing to be done about a terminal that is gone.
        _ = apply(&before);
    }
}

fn raw(mut settings: Termios) -> Termios {
    settings.make_raw();
    settings
}

fn apply(settings: &Termios) -> rustix::io::Result<()> {
    // Not `Drain`: a terminal that is held by Ctrl-S would hold this process too.
    rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, settings)
}

fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(rustix::stdio::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Whether stdin is a terminal.
pub(crate) fn is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

/// The size of the terminal that this process is on; the usual one if it is on none, or that does not know.
pub(crate) fn window() -> WindowSize {
    let sizes = [rustix::stdio::stdout(), rustix::stdio::stdin(), rustix::stdio::stderr()];
    let size = sizes.into_iter().find_map(|stream| rustix::termios::tcgetwinsize(stream).ok());
    match size {
        Some(size) if size.ws_col > 0 && size.ws_row > 0 => WindowSize {
            columns: size.ws_col,
            rows: size.ws_row,
            width: size.ws_xpixel,
            height: size.ws_ypixel,
        },
        _ => WindowSize::default(),
    }
}

/// Stops this process as Ctrl-Z stops any other; returns when it goes on.
pub(crate) fn stop_here() {
    // The whole group, as the terminal itself does it: a pipeline stops as one.
    _ = rustix::process::kill_current_process_group(rustix::process::Signal::TSTP);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use malai_testkit::{TestHome, TestNet};

    use super::*;

    /// Says something to the test that started this process on a terminal, and waits for a key.
    fn say_and_wait(word: &str) {
        let mut out = std::io::stdout();
        write!(out, "[{word}]").and_then(|()| out.flush()).expect("is written");
        std::io::stdin().read_exact(&mut [0]).expect("a key");
    }

    /// Not a test by itself.
    #[test]
    #[ignore = "run by a_panic_restores_the_terminal, on a terminal"]
    fn inner_panics() {
        say_and_wait("begins");
        let raw = RawMode::enter().expect("enters").expect("on a terminal");
        say_and_wait("raw");
        // Elsewhere, so that nothing here is dropped.
        let panicked = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(panicked.is_err());
        say_and_wait("panicked");
        std::mem::forget(raw);
        std::process::exit(7);
    }

    #[test]
    fn a_panic_restores_the_terminal() {
        let net = TestNet::of_program(std::env::current_exe().expect("this program"));
        let inner = "terminal::raw::tests::inner_panics";
        let home = TestHome::new(&net, "one");
        let mut terminal = home.terminal(["--exact", inner, "--ignored", "--nocapture"]).spawn();
        terminal.wait_for_text("[begins]");
        let before = terminal.settings();
        terminal.type_text("\n");
        terminal.wait_for_text("[raw]");
        assert_ne!(terminal.settings(), before);
        terminal.type_text("\n");
        terminal.wait_for_text("[panicked]");
        assert_eq!(terminal.settings(), before);
        terminal.type_text("\n");
        assert_eq!(terminal.wait(), 7);
        assert_eq!(terminal.settings(), before);
        assert!(terminal.screen().shows("on purpose"), "what went wrong is told: {:?}", terminal.screen());
    }
}
