//! What becomes of symbolic links: below the roots of a copy, and on the way to them.

/// What becomes of symbolic links below the roots of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Links {
    /// They are copied as links.
    #[default]
    Keep,
    /// What they lead to is copied, wherever it is.
    Follow,
}

/// What becomes of symbolic links in the paths that a request names, and at their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathLinks {
    /// They are followed, as a shell's commands do.
    Follow,
    /// They are refused: whoever asks may name certain paths alone, and could have made a link there that leads away.
    Refuse,
}
