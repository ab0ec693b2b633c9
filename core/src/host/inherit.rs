//! What a child would inherit from this process, and must not.

use std::sync::Once;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

/// Signals whose being ignored would be inherited. `nohup` and a shell's `&` start a daemon with some of them
/// ignored; its commands would then not hear Ctrl-C, or outlive the connection's end. SIGPIPE is seen to by
/// the standard library.
const HEARD: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

extern "C" fn do_nothing(_: libc::c_int) {}

/// Sees to it, once, that children start with every signal at its default. An ignored signal gets a handler
/// that does nothing: the same to this process, but a handler is not inherited.
pub(super) fn heed_signals() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for signal in HEARD.into_iter().filter(|signal| is_ignored(*signal)) {
            set(signal, SigHandler::Handler(do_nothing));
        }
        // While it is ignored the system collects children by itself, and nobody learns how they ended.
        if is_ignored(Signal::SIGCHLD) {
            set(Signal::SIGCHLD, SigHandler::SigDfl);
        }
    });
}

/// Starts something with no signal blocked: a supervisor that blocked some when it started this process passed that on,
/// and a program that never blocked SIGTERM does not expect not to hear it.
pub(super) fn with_no_signal_blocked<T>(start: impl FnOnce() -> T) -> T {
    let blocked = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let started = start();
    // What failed changed nothing.
    if let Ok(blocked) = blocked {
        _ = blocked.thread_set_mask();
    }
    started
}

/// Whether this process was started to outlive its terminal, as by `nohup`: SIGHUP was ignored before it began.
pub fn hang_up_is_ignored() -> bool {
    is_ignored(Signal::SIGHUP)
}

fn is_ignored(signal: Signal) -> bool {
    #[expect(unsafe_code, reason = "nix can only replace an action, not look at it")]
    // SAFETY: without a new action the call changes nothing; all zeros are a valid `sigaction` to be written
    // to.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as libc::c_int, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

fn set(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    #[expect(unsafe_code, reason = "installing a signal handler is unsafe")]
    // SAFETY: the handler, if any, does nothing at all, so it may run at any instant.
    let result = unsafe { sigaction(signal, &action) };
    if let Err(error) = result {
        tracing::warn!(%signal, %error, "commands will inherit that this signal is ignored");
    }
}

/// Marks every file that is open now, but stdin, stdout and stderr, as closed in children. For a daemon at
/// its start: what a careless script left open is not for the commands of others. Files that malai opens are
/// marked anyway.
pub fn seal_inherited_files() {
    let Ok(entries) = std::fs::read_dir("/dev/fd") else { return };
    let open: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        #[expect(unsafe_code, reason = "the file belongs to nobody in this program")]
        // SAFETY: only a flag is set, on whatever has that number; if it was closed meanwhile the call fails.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        if result != 0 {
            tracing::debug!(fd, "was closed before it could be marked");
        }
    }
}
