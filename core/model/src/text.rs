//! Text that somebody else wrote, made safe to show.

use std::borrow::Cow;

/// Escapes what would act on a terminal instead of being shown: control characters (line breaks, tabs and C1
/// too), characters that reorder text, and invisible ones. The result is one line: `\n`, `\u{1b}`.
///
/// For names, errors and paths that a peer sent. It is for showing only: a text that holds a backslash of its
/// own is not told apart from an escaped one.
pub fn escape_control(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Direction: marks, embeddings, overrides, isolates.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Invisible. The joiners U+200C and U+200D stay: words and emoji need them.
            | '\u{00ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_of_any_language_stays_as_it_is() {
        for text in ["", "web01", r"C:\x", "grün", "नमस्ते", "👩‍🚀", "مرحبا"] {
            assert!(matches!(escape_control(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
        assert_eq!(escape_control("a\x1b]0;title\x07b"), r"a\u{1b}]0;title\u{7}b");
        assert_eq!(escape_control("one\r\ntwo\t"), r"one\r\ntwo\t");
        assert_eq!(escape_control("\u{9b}31m\u{7f}\0"), r"\u{9b}31m\u{7f}\u{0}");
        assert_eq!(escape_control("a\u{202e}gpj.exe\u{2069}\u{feff}"), r"a\u{202e}gpj.exe\u{2069}\u{feff}");
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            let shown = escape_control(&text);
            prop_assert!(!shown.chars().any(acts));
            prop_assert_eq!(&escape_control(&shown), &shown);
        }
    }
}
