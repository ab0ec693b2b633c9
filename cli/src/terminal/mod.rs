//! A session on this terminal.

mod attend;
mod escape;
mod modes;
mod raw;
mod screen;
mod tty;

pub(crate) use attend::{Place, attend};
pub(crate) use escape::EscapeChar;
pub(crate) use raw::{is_terminal, window};
