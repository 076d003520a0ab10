//! A model's text on its way to standard output: as it is into a pipe or a file, cleaned onto a terminal. What a model writes is as
//! untrusted as its file, and a terminal obeys what it is sent.

use std::borrow::Cow;
use std::io::IsTerminal;

/// The way of one text, piece by piece.
pub(crate) struct Screen {
    // The place in an escape sequence, which may be cut anywhere; `None` if nothing is cleaned.
    place: Option<Place>,
}

/// Where the next character stands, after ECMA-48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Text,
    /// Behind ESC and, perhaps, characters that only a final one completes.
    Escape,
    /// In a control sequence: parameters up to a final character.
    Control,
    /// In a string for the terminal, such as a title: up to BEL or ESC \.
    String,
    /// Behind ESC in such a string.
    StringEscape,
}

impl Screen {
    /// For standard output.
    pub(crate) fn of_stdout() -> Self {
        Self { place: std::io::stdout().is_terminal().then_some(Place::Text) }
    }

    /// What may be written of the next piece.
    pub(crate) fn pass<'a>(&mut self, piece: &'a str) -> Cow<'a, str> {
        let Some(place) = &mut self.place else { return piece.into() };
        if *place == Place::Text && !piece.contains(is_removed) {
            return piece.into();
        }
        piece.chars().filter(|c| place.advance(*c)).collect()
    }
}

/// Control characters, except those that text consists of.
fn is_removed(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

impl Place {
    /// Moves past `c`, and returns whether it is shown. No sequence goes beyond a line, so that a text with the beginning of one does not
    /// lose all that follows.
    fn advance(&mut self, c: char) -> bool {
        if c == '\n' {
            *self = Place::Text;
            return true;
        }
        let was = *self;
        *self = match (was, c) {
            (Place::String | Place::StringEscape, '\x07' | '\u{9c}') => Place::Text,
            (Place::String, '\x1b') => Place::StringEscape,
            (Place::StringEscape, '\\') => Place::Text,
            (Place::String | Place::StringEscape, _) => Place::String,
            (_, '\x1b') => Place::Escape,
            (_, '\u{9b}') => Place::Control,
            (_, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => Place::String,
            (Place::Text, _) => Place::Text,
            (Place::Escape, '[') => Place::Control,
            (Place::Escape, 'P' | 'X' | ']' | '^' | '_') => Place::String,
            (Place::Escape, '\x20'..='\x2f') => Place::Escape,
            (Place::Control, '\x20'..='\x3f') => Place::Control,
            (Place::Escape | Place::Control, _) => Place::Text,
        };
        was == Place::Text && !is_removed(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text cleaned as a whole; cut anywhere, it must come out the same.
    fn cleaned(text: &str) -> String {
        let mut screen = Screen { place: Some(Place::Text) };
        let whole = screen.pass(text).into_owned();
        let mut screen = Screen { place: Some(Place::Text) };
        let pieces: String =
            text.chars().map(|c| screen.pass(c.encode_utf8(&mut [0; 4])).into_owned()).collect();
        assert_eq!(whole, pieces);
        whole
    }

    #[test]
    fn sequences_and_control_characters_are_removed() {
        assert_eq!(cleaned("a\x1b[2J\x1b[1;31mb\x1b[0m"), "ab");
        assert_eq!(cleaned("a\x1b]0;title\x07b\x1b]52;c;eHg=\x1b\\c\x1bP1$q\x1b\\d"), "abcd");
        assert_eq!(cleaned("a\x1bcb\x1b(0c\u{9b}5md\u{9d}0;t\u{9c}e"), "abcde");
        assert_eq!(cleaned("a\x08\x07\0\x7f\u{85}b\r\n\tc"), "ab\n\tc");
    }

    #[test]
    fn text_stays() {
        for text in ["", "plain [2J text", "ünïcödé 🦙 👩\u{200d}🌾 \u{200f}שלום", "a\n\tb"] {
            assert_eq!(cleaned(text), text);
            assert!(matches!(Screen { place: Some(Place::Text) }.pass(text), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn a_sequence_without_an_end_costs_one_line() {
        assert_eq!(cleaned("a\x1b]0;title\nb\x1b[1;2\nc\x1b"), "a\nb\nc");
    }

    #[test]
    fn a_pipe_gets_everything() {
        assert_eq!(Screen { place: None }.pass("a\x1b[2J\0b"), "a\x1b[2J\0b");
    }
}
