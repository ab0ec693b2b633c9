//! Text that somebody else wrote, made safe to show.

use std::borrow::Cow;
use std::fmt::Write as _;

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

/// As [`escape_control`], for JSON: in its strings `\u009b` means the character itself, so that a parser gets the exact
/// text, and a terminal that the JSON is written to nothing to obey. What JSON demands is escaped already.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // Line breaks and the like stand between values only, where they are no text.
    let is_hidden = |c: char| (!c.is_ascii() || c == '\u{7f}') && acts(c);
    if !json.chars().any(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // A `String` takes everything.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal acts on a character, or shows nothing of it, instead of showing it.
pub(crate) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Direction: marks, embeddings, overrides, isolates.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Invisible. The joiners U+200C and U+200D and the variation selectors stay: words and emoji need them.
            | '\u{00ad}' | '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{200b}'
            | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_of_any_language_stays_as_it_is() {
        for text in ["", "web01", r"C:\x", "grün", "नमस्ते", "👩‍🚀", "❤\u{fe0f}", "葛\u{e0100}", "مرحبا"]
        {
            assert!(matches!(escape_control(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
        assert_eq!(escape_control("a\x1b]0;title\x07b"), r"a\u{1b}]0;title\u{7}b");
        assert_eq!(escape_control("one\r\ntwo\t"), r"one\r\ntwo\t");
        assert_eq!(escape_control("\u{9b}31m\u{7f}\0"), r"\u{9b}31m\u{7f}\u{0}");
        assert_eq!(escape_control("web\u{3164}01\u{e0041}"), r"web\u{3164}01\u{e0041}");
        assert_eq!(escape_control("a\u{202e}gpj.exe\u{2069}\u{feff}"), r"a\u{202e}gpj.exe\u{2069}\u{feff}");
    }

    #[test]
    fn json_says_the_same_and_does_nothing_to_a_terminal() {
        let json = "{\n  \"a\": \"\\u001b[1m\u{9b}31m\u{7f}\u{202e}é\u{e0041}\"\n}";
        let shown = "{\n  \"a\": \"\\u001b[1m\\u009b31m\\u007f\\u202eé\\udb40\\udc41\"\n}";
        assert_eq!(escape_json(json), shown);
        let plain = "{\n\t\"é\": 1}";
        assert!(matches!(escape_json(plain), Cow::Borrowed(same) if same == plain));
    }

    proptest! {
        #[test]
        fn a_parser_gets_the_exact_text(text in any::<String>(), odd in "[\u{7f}-\u{a0}\u{2028}-\u{202e}\u{e0000}-\u{e007f}]*") {
            let text = text + &odd;
            let json = serde_json::to_string(&text).expect("is written");
            let shown = escape_json(&json);
            prop_assert!(!shown.chars().any(acts), "{}", shown);
            prop_assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
        }

        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            let shown = escape_control(&text);
            prop_assert!(!shown.chars().any(acts));
            prop_assert_eq!(&escape_control(&shown), &shown);
        }
    }
}
