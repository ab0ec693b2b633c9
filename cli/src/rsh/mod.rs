//! What other programs say to `ssh`, understood: its options, and a command line meant for a shell.

pub(crate) mod options;
pub(crate) mod words;
