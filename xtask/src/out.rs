//! The only file that prints.

use std::io::Write;

/// Prints a line on stdout at once.
pub(crate) fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // Nobody reads any more: nothing is left to say either.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Prints a line on stderr.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a formatted line on stdout.
macro_rules! say {
    ($($format:tt)*) => { $crate::out::line(&format!($($format)*)) };
}
pub(crate) use say;
